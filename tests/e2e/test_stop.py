"""`soakctl stop`: each rung is shown, and nothing of the run is left."""

from __future__ import annotations

import re

import pytest

from tests.e2e import inside
from tests.e2e.box import Box
from tests.e2e.host import alive
from tests.e2e.records import SCRIPT_TIME, check_sums, count

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.mark.safety
def test_stop_returns_when_nothing_of_the_run_is_left(box: Box) -> None:
    """No process, port, temporary file, lock or cgroup; stopped, aborted, and written down once."""
    run = inside.start(box, "50", WAIT_SEARCH="1")
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
    assert "aborted" in box.ctl("stop", run).out
    assert box.status(run) == final
    assert box.read(run, "logs/soak.log").count("stop requested") == 1


@pytest.mark.safety
def test_a_later_stop_overwrites_nothing(box: Box) -> None:
    """A completed run stays completed, and nobody has asked for its stop."""
    completed = inside.start(box, "--rounds", "1")
    before = inside.wait(box, completed)
    box.ctl("stop", completed)
    assert box.status(completed)["verdict"] == before["verdict"] == "passed"
    assert "stop requested" not in box.read(completed, "logs/soak.log")


@pytest.mark.safety
def test_stop_during_warm_up_ends_the_run(box: Box) -> None:
    """Before the first round: stopped, aborted, no rounds; all files are there all the same."""
    box.install(warmup_secs=60.0)
    run = inside.start(box, "50")
    box.until(run, lambda s: s["nodes"][0]["pid"], "the nodes are launched")
    final = inside.stop(box, run)
    assert (final["result"], final["verdict"]) == ("stopped", "aborted")
    assert final["rounds"]["total"] == 0
    assert box.leftovers() == []


def test_a_stop_without_waiting_returns_before_the_ladder_ends(box: Box) -> None:
    """`--no-wait`; `status` then shows the rung and its pids."""
    box.install(stop_secs=0.6)
    run = inside.start(box, "50")
    box.until_rounds(run, 1)
    assert "stopping" in box.ctl("stop", run, "--no-wait").out
    status = box.until(run, lambda s: s["rung"], "a rung")
    assert status["state"] == "stopping"
    assert status["rung"]["rung"] == "sigint"
    assert len(status["rung"]["pids"]) == 2
    assert inside.wait(box, run, status=4)["verdict"] == "aborted"
