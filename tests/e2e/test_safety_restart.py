"""soakd is killed and started again, in each state of a run (docs/safety.md, 8)."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.e2e import faults
from tests.e2e.box import Box, Status
from tests.e2e.host import alive
from tests.e2e.records import check_rounds, tsv
from tests.e2e.waiting import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.safety]

# Enough to be still at it when soakd is told to leave.
_FILES_TO_COPY = 3000


@dataclass(frozen=True)
class Stage:
    """How a run is brought into a state, and what it comes to when it is not disturbed again."""

    reached: Callable[[Status], object]
    # How much of so short a run soakd was away depends on the host: no gate on that.
    start: tuple[str, ...] = ("--rounds", "2", "--gate", "rounds >= 1")
    env: dict[str, str] = field(default_factory=dict)
    sim: dict[str, Any] = field(default_factory=dict)
    verdict: str = "passed"


STATES = {
    "queued": Stage(lambda s: s["state"] == "queued"),
    "staging": Stage(lambda s: s["state"] == "staging"),
    "starting": Stage(
        lambda s: s["state"] == "starting" and s["nodes"][1]["pid"],
        start=("--rounds", "8", "--gate", "rounds >= 1"),
        sim={"warmup_secs": 2.5},
    ),
    "running": Stage(
        lambda s: s["rounds"]["total"] >= 1 and s["phase"] == "wait_search",
        start=("50",),
        env={"WAIT_SEARCH": "0.8"},
    ),
    "stopping": Stage(
        lambda s: s["rung"], start=("50",), sim={"stop_secs": 1.5}, verdict="aborted"
    ),
}
_NEXT = {"starting": ("warming", "running"), "running": (), "stopping": ("finished",)}
"""What follows on the states in which nodes run."""


def _begin(box: Box, state: str) -> tuple[str, Status]:
    """A run in this state, and what is known of it there."""
    wanted = STATES[state]
    box.install(outcomes=["hit"], **wanted.sim)
    if state == "queued":
        box.start("50")
    if state == "staging":
        many = box.soaks[0] / "many"
        many.mkdir()
        (many / "0").write_bytes(b"content")
        for number in range(1, _FILES_TO_COPY):
            os.link(many / "0", many / str(number))
    run = box.start(*wanted.start, **wanted.env)
    if state == "stopping":
        box.until_rounds(run, 1)
        box.ctl("stop", run, "--no-wait")
    return run, box.until(run, wanted.reached, state)


def _finish(box: Box, run: str, state: str) -> Status:
    """The end that the run comes to."""
    if state == "queued":
        box.ctl("stop", "r1")
    if state == "running":
        total = box.status(run)["rounds"]["total"]
        box.until_rounds(run, total + 1)
        box.ctl("stop", run)
    status = {"passed": 0, "aborted": 4}[STATES[state].verdict if state != "running" else "aborted"]
    return box.wait(run, status=status)


@pytest.mark.parametrize("state", STATES)
def test_a_run_of_any_state_outlives_three_ends_of_soakd(bare_box: Box, state: str) -> None:
    """Killed, killed again while it takes up, told to leave: same processes, same story."""
    box = bare_box
    box.serve()
    run, before = _begin(box, state)
    shim = box.row(run)["shim_pid"]
    box.leave(signal.SIGKILL)
    if state != "staging":
        assert box.row(run)["state"] == state
    box.serve_and_kill()
    box.serve()
    assert box.status(run)["id"] == run
    box.leave(signal.SIGTERM)
    box.serve()
    after = box.status(run)
    pids = [node["pid"] for node in before["nodes"]]
    if state in _NEXT:
        # It goes on meanwhile, and may have come further.
        assert after["state"] in {state, *_NEXT[state]}, after["cause"]
        assert [node["pid"] for node in after["nodes"]] in [pids, [None, None]]
        assert box.row(run)["shim_pid"] == shim
        assert after["rounds"]["total"] >= before["rounds"]["total"]
    if state == "running":
        assert (after["state"], after["link"]) == ("running", "connected")
        assert [node["pid"] for node in after["nodes"]] == pids
        assert after["gaps"]
        assert all(gap["why"] and gap["s"] >= 0 for gap in after["gaps"])
        gaps = [e for e in box.records(run, "logs/events.ndjson") if e["kind"] == "gap"]
        assert [event["data"] for event in gaps] == after["gaps"]
        cut = box.records(run)[before["round"] - 1]
        assert (cut["round"], cut["outcome"], cut["cause"]) == (before["round"], "skipped", "gap")
    final = _finish(box, run, state)
    assert final["rounds"]["miss"] == final["rounds"]["error"] == 0
    records = box.records(run)
    check_rounds(tsv(box, run), records)
    assert len(records) == final["rounds"]["total"]
    assert box.processes() == {}


def test_no_reported_round_is_lost_or_doubled_however_often_soakd_is_killed(own_box: Box) -> None:
    """Four times, each as soon as a round was reported: numbers go on, nodes keep their pids."""
    box = own_box
    run = box.start("50")
    pids = [node["pid"] for node in box.until_rounds(run, 1)["nodes"]]
    reported = 0
    for _ in range(4):
        reported = box.until_rounds(run, reported + 3)["rounds"]["total"]
        hits = box.status(run)["rounds"]["hit"]
        box.leave(signal.SIGKILL)
        written = box.records_whole(run)
        assert len(written) >= reported
        box.serve()
        after = box.status(run)
        assert after["rounds"]["total"] >= reported
        assert after["rounds"]["hit"] >= hits
        assert [node["pid"] for node in after["nodes"]] == pids
        assert [r["file_id"] for r in box.records(run)[: len(written)]] == [
            r["file_id"] for r in written
        ]
    box.ctl("stop", run)
    final = box.wait(run, status=4)
    records = box.records(run)
    check_rounds(tsv(box, run), records)
    assert len({record["file_id"] for record in records}) == len(records)
    assert len(records) == final["rounds"]["total"]
    assert final["rounds"]["skipped"] <= 5
    assert len(final["gaps"]) == 4


@pytest.mark.parametrize(
    ("order", "exit_", "words"),
    [
        ("exit:7", {"code": 7, "signal": None}, "exit status 7"),
        ("die:SEGV", {"code": None, "signal": 11}, "SIGSEGV"),
    ],
)
@pytest.mark.parametrize("for_long", [False, True], ids=["soon back", "too late"])
def test_a_node_that_ended_meanwhile_gives_its_true_exit(
    own_box: Box, order: str, exit_: dict[str, Any], words: str, *, for_long: bool
) -> None:
    """The shim has seen it, and has written it down should it be gone itself by then."""
    box = own_box
    run = box.start("50", "--set", f"orphan_grace_s={1 if for_long else 600}")
    pids = [node["pid"] for node in box.until_rounds(run, 1)["nodes"]]
    box.leave(signal.SIGKILL)
    faults.now(box, run, "b", order)
    wait_for(lambda: not alive(pids[1]), "node b has ended")
    if for_long:
        wait_for(lambda: not box.processes(), "the shim ends everything")
    box.serve()
    final = box.wait(run, status=1)
    assert (final["cause"]["code"], final["cause"]["node"]) == ("node_exited", "b")
    assert f"node b (pid {pids[1]}) ended by itself: {words}" in final["cause"]["text"]
    assert final["nodes"][1]["exit"] == exit_
    assert final["nodes"][0]["exit"] == {"code": 0, "signal": None}
    assert json.loads(box.read(run, "run.json"))["nodes"] == final["nodes"]
    assert box.leftovers() == []


def test_a_soakd_that_stays_away_for_too_long_leaves_nothing_running(own_box: Box) -> None:
    """The shim stops its nodes politely and ends; the next soakd says why, and how they ended."""
    box = own_box
    run = box.start("50", "--set", "orphan_grace_s=1")
    pids = [node["pid"] for node in box.until_rounds(run, 1)["nodes"]]
    faults.now(box, run, "a", "daemon:2,noenv,chdir,deaf")
    pids += [box.row(run)["shim_pid"], *faults.descendants(box, run, "a")]
    box.leave(signal.SIGKILL)
    wait_for(lambda: not any(map(alive, pids)), "everything has ended")
    assert box.processes() == {}
    box.serve()
    final = box.wait(run, status=5)
    assert (final["result"], final["cause"]["code"]) == ("failed", "shim_gone")
    assert "no soakd was there for 1 s (orphan_grace_s)" in final["cause"]["text"]
    assert [node["exit"] for node in final["nodes"]] == [{"code": 0, "signal": None}] * 2
    assert len(box.records(run)) == final["rounds"]["total"]
    assert box.leftovers() == []


def test_a_shim_that_is_told_to_end_while_soakd_is_away_aborts_its_run(own_box: Box) -> None:
    """As at a shutdown of its slice: the nodes end politely, the next soakd says by what."""
    box = own_box
    run = box.start("50")
    box.until_rounds(run, 1)
    box.leave(signal.SIGKILL)
    os.kill(box.row(run)["shim_pid"], signal.SIGTERM)
    wait_for(lambda: not box.processes(), "the shim ends everything")
    box.serve()
    final = box.wait(run, status=4)
    assert (final["result"], final["cause"]["code"]) == ("aborted", "shim_told")
    assert "SIGTERM" in final["cause"]["text"]
    assert [node["exit"] for node in final["nodes"]] == [{"code": 0, "signal": None}] * 2
