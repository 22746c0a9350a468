"""soakd is killed and started again, in each state of a run (docs/safety.md, 8)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import faults
from tests.e2e.box import Box
from tests.e2e.host import alive
from tests.e2e.pairs import Pairs, pairs
from tests.e2e.records import check_rounds, count, epoch, tsv
from tests.e2e.waiting import GUARD_S

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.safety]

_LEAVES_WITHIN_S = 2.0
# Enough to be still at it when soakd is killed.
_FILES_TO_COPY = 4000
# How much of so short a run soakd was away depends on the host: no gate on that.
_SHORT = ("--rounds", "2", "--gate", "rounds >= 1")
# Enough to be still at it as well.
_STOP_S = 6.0

STATES = {"queued": 0, "staging": 0, "starting": 0, "running": 4, "stopping": 4}
"""What a run was at when soakd was killed, and the exit status of its end."""
_NEXT = {"starting": (), "running": (), "stopping": ("finished",)}
"""What follows on the states in which nodes run."""


class Story:
    """A run in each state, whose soakd ends three times; what was said of them on the way.

    Attributes:
        before: by the soakd that was killed.
        kept: their states in its store.
        between: by the next that came to serve; one was killed while it took them up.
        after: by the last one; that before was told to leave.
        left_within_s: how long it took for that.
        final: in the end.
    """

    def __init__(self, made: Pairs) -> None:
        """Brings the runs into their states, ends soakd three times, and has them end."""
        self.box = box = made.box
        self.runs = runs = made.runs
        _begin(made)
        self.shims = {name: box.row(runs[name])["shim_pid"] for name in _NEXT}
        self.before = made.statuses()
        self.before["running"] = box.until(
            runs["running"], lambda s: s["phase"] == "wait_search", "a round under way"
        )
        box.leave(signal.SIGKILL)
        self.kept = {name: box.row(run)["state"] for name, run in runs.items()}
        assert all(map(alive, [*self.shims.values(), *self.pids("starting")]))
        assert all(map(alive, self.pids("running")))
        box.serve_and_kill()
        box.serve()
        self.between = made.statuses()
        self.left_within_s = box.leave(signal.SIGTERM)
        assert not box.socket.exists()
        box.serve()
        self.after = made.statuses()
        faults.now(box, runs["starting"], "b", "heal")
        box.until_rounds(runs["running"], self.after["running"]["rounds"]["total"] + 1)
        box.ctl("stop", runs["running"])
        self.final = {name: box.wait(run, STATES[name]) for name, run in runs.items()}

    def pids(self, state: str) -> list[int]:
        """The nodes of a run, before the first end of soakd."""
        return [node["pid"] for node in self.before[state]["nodes"]]


def _begin(made: Pairs) -> None:
    """Have a run in each state."""
    box, runs = made.box, made.runs
    made.begin("running", "600", WAIT_SEARCH="1.5")
    # It waits for the ports.
    runs["queued"] = box.start(*_SHORT)
    made.begin("stopping", "600", sim={"stop_secs": _STOP_S})
    made.lay_out(spoil=_never_ready)
    runs["starting"] = box.start(*_SHORT)
    box.until(runs["starting"], lambda s: s["nodes"][1]["pid"], "both nodes run")
    made.lay_out(spoil=_with_many_files)
    for name in ("running", "stopping"):
        box.until_rounds(runs[name], 1)
    box.ctl("stop", runs["stopping"], "--no-wait")
    box.until(runs["stopping"], lambda s: s["rung"], "the first rung")
    runs["staging"] = box.start(*_SHORT)


def _never_ready(folders: list[Path]) -> None:
    """A node that warms up until it is told to heal."""
    faults.at_install(folders[1], "http@start:503")


def _with_many_files(folders: list[Path]) -> None:
    many = folders[0] / "many"
    many.mkdir()
    (many / "0").write_bytes(b"content")
    for number in range(1, _FILES_TO_COPY):
        os.link(many / "0", many / str(number))


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Yield the story of three ends of soakd, told to its end."""
    with pairs(tmp_path_factory.mktemp("thrice"), at_a_time=len(STATES)) as made:
        yield Story(made)


@pytest.mark.parametrize("state", STATES)
def test_a_run_of_any_state_outlives_three_ends_of_soakd(story: Story, state: str) -> None:
    """Killed, killed again while it takes up, told to leave: same processes, same story."""
    box, run, before, after = story.box, story.runs[state], story.before[state], story.after[state]
    assert before["state"] == story.kept[state] == state
    assert story.between[state]["id"] == run
    if state in _NEXT:
        # It goes on meanwhile, and may have come further.
        assert after["state"] in {state, *_NEXT[state]}, after["cause"]
        assert [node["pid"] for node in after["nodes"]] in [story.pids(state), [None, None]]
        assert box.row(run)["shim_pid"] == story.shims[state]
        assert after["rounds"]["total"] >= before["rounds"]["total"]
    final = story.final[state]
    assert final["verdict"] == ("aborted" if STATES[state] else "passed")
    assert final["rounds"]["miss"] == final["rounds"]["error"] == 0
    records = box.records(run)
    check_rounds(tsv(box, run), records)
    assert len(records) == final["rounds"]["total"]
    if state != "queued":
        assert count(box, run)["soak-start"] == 1


def test_soakd_leaves_at_once_and_nothing_of_these_runs_is_left(story: Story) -> None:
    """However much goes on without it."""
    assert story.left_within_s <= _LEAVES_WITHIN_S
    assert story.box.processes() == {}
    assert story.box.leftovers() == []


def test_a_measured_run_goes_on_with_a_gap_and_a_skipped_round(story: Story) -> None:
    """Same processes, same deadline; the round that was cut is skipped, none is lost."""
    box, run = story.box, story.runs["running"]
    before, after, final = story.before["running"], story.after["running"], story.final["running"]
    assert (after["state"], after["link"]) == ("running", "connected")
    assert [node["pid"] for node in after["nodes"]] == story.pids("running")
    assert after["deadline_at"] == before["deadline_at"]
    assert after["remaining_s"] < before["remaining_s"]
    assert after["gaps"]
    for gap in after["gaps"]:
        assert gap["why"]
        assert 0 <= gap["s"] == pytest.approx(epoch(gap["to"]) - epoch(gap["from"]), abs=0.01)
    gaps = [e for e in box.records(run, "logs/events.ndjson") if e["kind"] == "gap"]
    assert [event["data"] for event in gaps] == after["gaps"]
    assert 1 <= after["rounds"]["skipped"] <= len(gaps)
    cut = next(r for r in box.records(run)[before["round"] - 1 :] if r["outcome"] != "hit")
    assert (cut["outcome"], cut["cause"]) == ("skipped", "gap")
    # The next one if it was over in the moment before the kill.
    assert cut["round"] in {before["round"], before["round"] + 1}
    # The last round is cut by the stop.
    assert final["rounds"]["skipped"] - after["rounds"]["skipped"] in {0, 1}
    assert [ended["exit"] for ended in final["nodes"]] == [{"code": 0, "signal": None}] * 2


def test_nodes_that_warm_up_are_waited_for_by_the_next_soakd(story: Story) -> None:
    """It takes nobody for ready who is not."""
    for status in (story.between["starting"], story.after["starting"]):
        assert status["state"] == "starting", status["cause"]
        assert [node["pid"] for node in status["nodes"]] == story.pids("starting")
        assert status["rounds"]["total"] == 0


def test_a_stop_goes_on_without_soakd(story: Story) -> None:
    """The shim walks the ladder alone; who asked for the stop is not forgotten."""
    box, run, final = story.box, story.runs["stopping"], story.final["stopping"]
    assert (final["result"], final["cause"]["code"]) == ("stopped", "stop_asked")
    assert box.read(run, "runner.state") == "stopped\n"
    assert box.read(run, "logs/soak.log").count("stop requested") == 1


def test_staging_that_was_cut_is_done_again(story: Story) -> None:
    """A soakd that goes while folders are copied costs nothing but time."""
    copies = list((story.box.node(story.runs["staging"], "a") / "many").iterdir())
    assert len(copies) == _FILES_TO_COPY
    assert {path.read_bytes() for path in copies} == {b"content"}


def test_no_reported_round_is_lost_or_doubled_however_often_soakd_is_killed(own_box: Box) -> None:
    """Three times, each as soon as a round was reported: numbers go on, nodes keep their pids.

    `wait` comes through it: it says that soakd is away, tries again, and tells the end.
    """
    box = own_box
    run = box.start("50")
    waiting = box.ctl_spawn("wait", run)
    pids = [node["pid"] for node in box.until_rounds(run, 1)["nodes"]]
    reported = 0
    for _ in range(3):
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
    out, err = waiting.communicate(timeout=GUARD_S)
    assert waiting.returncode == 4
    assert "lost soakd; the soak goes on" in err
    assert "finished" in out
    final = box.status(run)
    records = box.records(run)
    check_rounds(tsv(box, run), records)
    assert len({record["file_id"] for record in records}) == len(records)
    assert len(records) == final["rounds"]["total"]
    assert final["rounds"]["skipped"] <= 4
    assert len(final["gaps"]) == 3
