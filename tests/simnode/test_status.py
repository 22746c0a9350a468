from __future__ import annotations

from soakd.simnode.status import GAUGES, LIFETIME, WINDOW, Counters


def test_the_status_object_has_ninety_nine_fields() -> None:
    """18 gauges, 12 lifetime totals, 69 window counters, none twice."""
    status = Counters().close_window({})
    assert (len(GAUGES), len(LIFETIME), len(WINDOW), len(status)) == (18, 12, 69, 99)
    assert all(type(value) is int and value >= 0 for value in status.values())


def test_closing_the_window_zeroes_it_and_adds_to_the_totals() -> None:
    """Window counters start again, totals go on."""
    counters = Counters()
    counters.add("timeouts", 2)
    assert counters.close_window({})["timeouts"] == 2
    counters.add("timeouts")
    second = counters.close_window({})
    assert (second["timeouts"], second["timeouts_total"]) == (1, 3)


def test_totals_grow_only_when_a_window_closes() -> None:
    """A status is a snapshot: what came after it is not in it."""
    counters = Counters()
    counters.add("sent_reqs")
    first = counters.close_window({})
    counters.add("sent_reqs")
    assert first["sent_reqs_total"] == 1


def test_aliases_show_the_same_counter() -> None:
    """`recv_req` is the misleading name of `sent_reqs`."""
    counters = Counters()
    counters.add("sent_reqs", 3)
    counters.add("recv_ress", 2)
    status = counters.close_window({})
    assert status["recv_req"] == status["sent_reqs"] == status["recv_req_total"] == 3
    assert status["recv_res"] == status["recv_ress"] == status["recv_res_total"] == 2


def test_gauges_stand_as_given() -> None:
    """A gauge with the suffix `_total` is a gauge."""
    status = Counters().close_window({"source_store_entries_total": 5})
    assert status["source_store_entries_total"] == 5


def test_traffic_of_the_bootstrap_is_dropped() -> None:
    """The first window starts with the service loop."""
    counters = Counters()
    counters.add("new_nodes")
    counters.drop_window()
    assert counters.close_window({})["new_nodes"] == 0
