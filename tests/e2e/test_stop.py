"""`soakctl stop`: each rung is shown, and nothing of the run is left."""

from __future__ import annotations

import re

import pytest

from tests.e2e.box import Box
from tests.e2e.host import alive
from tests.e2e.nodes import IGNORES_SIGTERM, LEAVES_A_CHILD, teach
from tests.e2e.records import SCRIPT_TIME, check_sums, count

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.mark.safety
def test_stop_returns_when_nothing_of_the_run_is_left(box: Box) -> None:
    """No process, port, temporary file, lock or cgroup; stopped, aborted, and written down."""
    run = box.start("50", WAIT_SEARCH="1")
    pids = [node["pid"] for node in box.until_rounds(run, 1)["nodes"]]
    assert set(pids) < set(box.processes())
    box.until(run, lambda s: s["phase"] == "wait_search", "a round to be cut")
    stopped = box.ctl("stop", run)
    assert box.processes() == {}
    assert box.leftovers() == []
    assert not any(map(alive, pids))
    lines = stopped.out.splitlines()
    assert lines[0] == f"stopping {run}"
    assert lines[1] == f"  SIGINT to {pids[0]} {pids[1]}"
    assert re.fullmatch(rf"{run} finished · aborted: stopped by \w+", lines[-1])
    final = box.status(run)
    assert (final["result"], final["verdict"]) == ("stopped", "aborted")
    assert box.read(run, "runner.state") == "stopped\n"
    check_sums(box, run, final)
    last = box.records(run)[-1]
    assert (last["outcome"], last["cause"]) == ("skipped", "cut:stop")
    asked = [line for line in box.read(run, "logs/soak.log").splitlines() if "requested" in line]
    assert len(asked) == 1
    assert re.fullmatch(rf"{SCRIPT_TIME} stop requested", asked[0])
    found = count(box, run)
    names = ("runner stop requested", "stop marker detected", "node stop requested")
    assert [found[name] for name in names] == [1, 1, 1]


@pytest.mark.safety
def test_a_later_stop_overwrites_nothing(box: Box) -> None:
    """A completed run stays completed, a stopped one stopped, with one line in soak.log."""
    completed = box.start("--rounds", "1")
    before = box.wait(completed)
    box.ctl("stop", completed)
    assert box.status(completed)["verdict"] == before["verdict"] == "passed"
    assert "stop requested" not in box.read(completed, "logs/soak.log")
    stopped = box.start("50")
    box.until_rounds(stopped, 1)
    box.ctl("stop", stopped)
    before = box.status(stopped)
    assert "aborted" in box.ctl("stop", stopped).out
    assert box.status(stopped) == before
    assert box.read(stopped, "logs/soak.log").count("stop requested") == 1


@pytest.mark.safety
def test_stop_during_warm_up_ends_the_run(box: Box) -> None:
    """Before the first round: stopped, aborted, no rounds; all files are there all the same."""
    box.install(warmup_secs=60.0)
    run = box.start("50")
    box.until(run, lambda s: s["nodes"][0]["pid"], "the nodes are launched")
    box.ctl("stop", run)
    final = box.wait(run, status=4)
    assert (final["result"], final["rounds"]["total"]) == ("stopped", 0)
    assert box.leftovers() == []


def test_a_stop_without_waiting_returns_before_the_ladder_ends(box: Box) -> None:
    """`--no-wait`; `status` then shows the rung and its pids."""
    box.install(stop_secs=0.6)
    run = box.start("50")
    box.until_rounds(run, 1)
    assert "stopping" in box.ctl("stop", run, "--no-wait").out
    status = box.until(run, lambda s: s["rung"], "a rung")
    assert status["state"] == "stopping"
    assert status["rung"]["rung"] == "sigint"
    assert len(status["rung"]["pids"]) == 2
    assert box.wait(run, status=4)["verdict"] == "aborted"


def test_every_rung_of_the_ladder_is_shown_and_the_last_one_ends_what_ignores_all(
    box: Box,
) -> None:
    """A node that ignores SIGINT and SIGTERM, with a child in a session of its own."""
    box.install(stop_secs=100.0)
    teach(box.soaks[0], IGNORES_SIGTERM, LEAVES_A_CHILD)
    run = box.start("50", "--set", "stop_grace_s=0.3")
    box.until_rounds(run, 1)
    stray = int((box.node(run, "a") / "stray.pid").read_text())
    assert alive(stray)
    rungs = [line.split()[0] for line in box.ctl("stop", run).out.splitlines()[1:-1]]
    assert rungs == ["SIGINT", "SIGTERM", "SIGKILL", "sweep"]
    assert not alive(stray)
    assert box.leftovers() == []
    final = box.wait(run, status=4)
    assert final["nodes"][0]["exit"]["signal"] == 9
