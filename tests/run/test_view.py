"""What others see of a run: from its row alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from soakd.core.plan import Plan
from soakd.core.stats import Counters, counters_to_dict
from soakd.edge.store import GapRow, NodeRow, RunRow, Store
from soakd.view import from_row, gap_map, parse_run_name, public, rates, run_name
from tests.run.kit import ANN, add_run, make_attached_plan, make_host, make_plan

PUBLIC = {
    "id", "owner", "label", "state", "created_at", "started_at", "ended_at", "reason",
}  # fmt: skip


def make_row(tmp_path: Path, store: Store, plan: Plan) -> RunRow:
    run_id = add_run(make_host(tmp_path, store), plan, owner=ANN)
    row = store.get_run(run_id)
    assert row is not None
    return row


def test_public_view_is_an_allow_list(tmp_path: Path, store: Store) -> None:
    """Another user's run: no plan, no nodes, no cause, no tag."""
    row = make_row(tmp_path, store, make_plan(label="mine", run_tag="secret-tag"))
    seen = public(row, "slots")
    assert set(seen) == PUBLIC
    assert seen == {
        "id": "r1",
        "owner": "ann",
        "label": "mine",
        "state": "queued",
        "created_at": "1970-01-01T00:16:40Z",
        "started_at": None,
        "ended_at": None,
        "reason": "slots",
    }
    assert "secret-tag" not in json.dumps(seen)


def test_queued_run_is_shown_from_its_row(tmp_path: Path, store: Store) -> None:
    """Everything that the wire promises is there, empty as it is."""
    plan = make_plan(duration_s=90.0)
    status = from_row(make_row(tmp_path, store, plan), plan, (), (), "slots")
    assert status["remaining_s"] == status["duration_s"] == 90.0
    assert status["nodes"] == [
        {"name": name, "pid": None, "state": "none", "exit": None, "trouble": []} for name in "ab"
    ]
    assert status["rounds"]["total"] == 0
    assert status["hit_rate"] == {"value": None, "n": 0}
    assert (status["round"], status["deadline_at"], status["notes"]) == (None, None, [])


def test_nodes_of_somebody_else_are_shown_as_such_from_the_row(
    tmp_path: Path, store: Store
) -> None:
    """Before and after the run: nothing else is ever known of them."""
    plan = make_attached_plan()
    status = from_row(make_row(tmp_path, store, plan), plan, (), (), None)
    assert status["nodes"] == [
        {"name": name, "pid": None, "state": "attached", "exit": None, "trouble": []}
        for name in "ab"
    ]


def test_finished_run_is_shown_from_its_row(tmp_path: Path, store: Store) -> None:
    """Verdict, cause, counts, exits, gaps and what was measured under."""
    plan = make_plan()
    row = make_row(tmp_path, store, plan)
    counters = Counters(hit=3, late=1, miss=2, error=1, skipped=1, prestored=2, prestored_hit=1)
    store.transition(
        1, "queued", "finished", "{}", None, "test", at=1.0, ended_at=2000.5, result="failed",
        verdict="failed", why="it broke", cause_json='{"code":"node_exited"}', last_round=8,
        counters_json=json.dumps(counters_to_dict(counters)), edits_json='["a: x = 1"]',
        measured_json='{"simulation": true, "notes": ["n"], "deadline_at": "D"}',
    )  # fmt: skip
    row = store.get_run(1) or row
    nodes = [NodeRow(1, "a", 42, 7, '{"code": 1}'), NodeRow(1, "b", 43, 7, None)]
    status = from_row(row, plan, nodes, [GapRow(1, 0.0, 5.25, 5.25, "away")], None)
    assert (status["state"], status["verdict"], status["why"]) == ("finished", "failed", "it broke")
    assert (status["cause"], status["remaining_s"]) == ({"code": "node_exited"}, None)
    assert status["ended_at"] == "1970-01-01T00:33:20.500Z"
    assert status["rounds"] == {
        "total": 8, "hit": 3, "late": 1, "miss": 2, "error": 1, "skipped": 1, "prestored": 2,
    }  # fmt: skip
    assert status["hit_rate"] == {"value": pytest.approx(4 / 6), "n": 6}
    assert status["search_hit_rate"] == {"value": pytest.approx(3 / 5), "n": 5}
    # No pid of a run that is not live is shown: it may be anybody's by now.
    assert status["nodes"] == [
        {"name": "a", "pid": None, "state": "exited", "exit": {"code": 1}, "trouble": []},
        {"name": "b", "pid": None, "state": "none", "exit": None, "trouble": []},
    ]
    assert status["gaps"] == [
        {"from": "1970-01-01T00:00:00Z", "to": "1970-01-01T00:00:05.250Z", "s": 5.25, "why": "away"}
    ]
    assert (status["simulation"], status["notes"], status["deadline_at"]) == (True, ["n"], "D")
    assert (status["edits"], status["round"]) == (["a: x = 1"], 8)


def test_rates_have_their_n() -> None:
    """Errors and skipped rounds say nothing about the network."""
    assert rates(Counters(error=5, skipped=5))["hit_rate"] == {"value": None, "n": 0}
    assert rates(Counters(hit=1, miss=1))["hit_rate"] == {"value": 0.5, "n": 2}
    only_prestored = Counters(hit=2, prestored=2, prestored_hit=2)
    assert rates(only_prestored)["search_hit_rate"] == {"value": None, "n": 0}


def test_gap_is_rounded_for_people() -> None:
    """Milliseconds are enough."""
    assert gap_map(GapRow(1, 0.0, 1.0, 1.23456, "x"))["s"] == 1.235


def test_run_names_are_read_back() -> None:
    """`r7` and nothing else."""
    assert parse_run_name(run_name(7)) == 7
    for text in ("7", "r", "r-1", "r1 ", "R1", "r٣", "r1.0", "", "r" + "1" * 30, "rr1"):
        assert parse_run_name(text) is None
