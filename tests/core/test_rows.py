"""The lines of the record files, byte for byte."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from soakd.core import rows
from soakd.core.errors import HostError
from soakd.core.rounds import RoundResult, RoundSpec
from soakd.core.stats import Counters

TIME = "2026-11-22T17:00:00+0000"
FILE = "0123456789abcdef0123456789abcdef"
SPEC = RoundSpec(3, "source_probe", "a", "b", "a>b", FILE, 2048, False, 20, 20, 5, 1, 20)
RESULT = RoundResult(
    spec=SPEC,
    outcome="late",
    cause=None,
    prestored=False,
    source_ids=("aa", "bb"),
    first_seen_s=41.23456,
    rechecks=1,
    error=None,
    notes=(("early_read", "timeout"),),
    publish_body="{}",
    search_body="{}",
    final_body="{}",
    publish_at_s=100.5,
    started_at_s=100.0,
    ended_at_s=160.0004,
)


def _record(result: RoundResult, publisher_id: str | None = None) -> dict[str, Any]:
    return rows.round_record(
        result,
        started_at="2026-11-22T17:00:00Z",
        publish_at="2026-11-22T17:00:00.5Z",
        ended_at="2026-11-22T17:01:00Z",
        publisher_id=publisher_id,
    )


def test_a_row_of_rounds_tsv_has_six_columns_whatever_the_bodies_hold() -> None:
    """Tabs and newlines become blanks; everything else stands as it came."""
    row = rows.tsv_row(TIME, 7, FILE, '{"queued":true}\n', "a\tb\r\nc", "")
    assert row == f'{TIME}\t7\t{FILE}\t{{"queued":true}} \ta b  c\t\n'
    assert row.count("\t") == 5


def test_a_status_row_names_the_node_by_letter() -> None:
    """Time, letter, raw status on one line."""
    assert rows.status_row(TIME, "A", '{"x":\n1}') == f'{TIME}\tA\t{{"x": 1}}\n'


def test_a_round_record_holds_every_column() -> None:
    """The keys are the format: later readers count on all of them."""
    assert _record(RESULT, "bb") == {
        "round": 3,
        "measurement": "source_probe",
        "publisher": "a",
        "searcher": "b",
        "flow": "a>b",
        "file_id": FILE,
        "file_size": 2048,
        "outcome": "late",
        "cause": None,
        "cold": False,
        "prestored": False,
        "source_ids": ["aa", "bb"],
        "publisher_listed": True,
        "first_seen_s": 41.235,
        "rechecks": 1,
        "error": None,
        "notes": [{"step": "early_read", "text": "timeout"}],
        "started_at": "2026-11-22T17:00:00Z",
        "publish_at": "2026-11-22T17:00:00.5Z",
        "ended_at": "2026-11-22T17:01:00Z",
        "duration_s": 60.0,
    }


def test_whether_the_publisher_is_listed_may_be_unknown() -> None:
    """Null without an id to look for, false if another one is listed."""
    assert _record(RESULT)["publisher_listed"] is None
    assert _record(RESULT, "cc")["publisher_listed"] is False


def test_an_error_record_names_step_and_text() -> None:
    """And there is no first sight to date."""
    record = _record(replace(RESULT, outcome="error", error=("read", "500"), first_seen_s=None))
    assert record["error"] == {"step": "read", "text": "500"}
    assert record["first_seen_s"] is None


def test_a_record_is_one_line_of_plain_ascii() -> None:
    """Even lone surrogates and newlines from a node cannot break it."""
    line = rows.record_json({"id": "\ud800\n", "n": 1.5})
    assert line == '{"id":"\\ud800\\n","n":1.5}\n'
    assert json.loads(line.encode("ascii")) == {"id": "\ud800\n", "n": 1.5}


def test_a_record_with_nan_is_refused() -> None:
    """NaN is not JSON."""
    with pytest.raises(ValueError, match="JSON compliant"):
        rows.record_json({"x": float("nan")})


def test_records_are_counted_from_their_lines() -> None:
    """Bytes and text alike; the last number is where to go on."""
    late = rows.record_json(_record(RESULT))
    missed = rows.record_json(_record(replace(RESULT, outcome="miss", prestored=True)))
    assert rows.counters_from_lines([late, missed.encode()]) == (
        Counters(late=1, miss=1, prestored=1, prestored_miss=1),
        3,
    )
    assert rows.counters_from_lines([]) == (Counters(), 0)


@pytest.mark.parametrize(
    "line", ["", "[]", "3", "{}", '{"outcome":"won","prestored":false,"round":1}', b"\xff"]
)
def test_a_line_that_is_no_record_is_named(line: str | bytes) -> None:
    """Counting on without it would make sums that disagree."""
    good = rows.record_json(_record(RESULT))
    with pytest.raises(HostError, match=r"cannot read line 2 of rounds\.ndjson"):
        rows.counters_from_lines([good, line])


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (
            rows.soak_start(7200.0, 1764000000.9),
            "soak-start duration_secs=7200 deadline_epoch=1764000000",
        ),
        (rows.soak_start(0.25, None), "soak-start duration_secs=0.25 deadline_epoch=none"),
        (rows.soak_start(None, None), "soak-start duration_secs=none deadline_epoch=none"),
        (
            rows.run_tag("t", {"a": "sa", "b": "sb"}, fresh_identity=True),
            "run-tag=t session_a=sa session_b=sb fresh_identity=1",
        ),
        (rows.started({"a": 11, "b": 12}), "started A pid=11 B pid=12"),
        (
            rows.attached({"a": "http://127.0.0.1:2000", "b": "http://[::1]:2001"}),
            "attached A url=http://127.0.0.1:2000 B url=http://[::1]:2001",
        ),
        (rows.ready_check(5.9, {"a": "200", "b": "503"}), "ready-check elapsed=5s A=200 B=503"),
        (rows.timer(59.9, 4), "timer remaining_secs=59 round=4"),
        (rows.timer(None, 4), "timer remaining_secs=none round=4"),
        (rows.round_begin(4, FILE, 2048), f"round=4 file={FILE} size=2048"),
        (
            rows.miss_recheck(4, 1, 20.0, FILE),
            f"round=4 miss_recheck attempt=1 delay_secs=20 file={FILE}",
        ),
        (rows.miss_recheck_hit(4, 1, FILE), f"round=4 miss_recheck_hit attempt=1 file={FILE}"),
        (rows.deadline_reached(), "deadline reached"),
        (rows.stop_marker(), "stop marker detected"),
        (rows.node_stop_requested(), "node stop requested"),
        (rows.soak_finished(4), "soak-finished rounds=4"),
        (rows.runner_stop_requested(), "runner stop requested"),
        (rows.error("cannot go on"), "ERROR: cannot go on"),
        (rows.warn("slow"), "WARN: slow"),
    ],
)
def test_the_markers_are_those_of_the_scripts(line: str, wanted: str) -> None:
    """Readers grep for these words."""
    assert line == wanted


def test_a_line_of_the_log_stays_one_line() -> None:
    """A text from elsewhere cannot forge a second line."""
    assert rows.log_line(TIME, "a\nb\tc") == f"{TIME} a b c\n"


def test_thousandths_are_the_finest_seconds() -> None:
    """No exponents and no binary noise."""
    assert rows.soak_start(0.1 + 0.2, None).startswith("soak-start duration_secs=0.3 ")
    assert "delay_secs=0 " in rows.miss_recheck(1, 1, 0.0, FILE)
    assert "delay_secs=100 " in rows.miss_recheck(1, 1, 100.0, FILE)
