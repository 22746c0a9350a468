"""Gates from the command line to the exit status, with real rounds."""

from __future__ import annotations

import json
import signal

import pytest

from tests.e2e.box import Box

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

_FAST = {"WAIT_SEARCH": "0.1", "WAIT_BETWEEN": "0", "MISS_RECHECK_ATTEMPTS": "0"}
_SLOW = _FAST | {"WAIT_SEARCH": "0.3"}


def _judged(box: Box, run: str) -> dict[str, str]:
    gates = json.loads(box.read(run, "run.json"))["gates"]
    return {gate["gate"]: gate["status"] for gate in gates}


def test_a_soak_is_judged_by_the_gates_of_the_command_line(box: Box) -> None:
    """Passed, inconclusive with what is missing, and all of them in run.json."""
    gates = ("hit_rate >= 0.3", "hit_rate >= 97%", "visible.median < 45s", "max_miss_streak <= 2")
    options = [word for gate in gates for word in ("--gate", gate)]
    run = box.start("--rounds", "8", *options, **_FAST)
    final = box.wait(run, status=3)
    assert final["verdict"] == "inconclusive"
    assert _judged(box, run) == {
        "hit_rate >= 0.3": "passed",
        "hit_rate >= 97%": "inconclusive",
        "visible.median < 45s": "passed",
        "max_miss_streak <= 2": "passed",
    }
    assert "hit_rate is 100.0% (interval " in final["why"]
    assert "more rounds (" in final["why"]


def test_an_abort_gate_ends_a_soak_that_only_misses(box: Box) -> None:
    """Exit status 4, the gate as cause, and nothing is left of the run."""
    box.install(outcomes=["miss"])
    run = box.start("600", "--gate", "abort max_miss_streak <= 3", **_FAST)
    final = box.wait(run, status=4)
    assert (final["result"], final["verdict"]) == ("aborted", "aborted")
    assert final["cause"]["code"] == "gate"
    assert final["why"] == "max_miss_streak is 4, wanted abort max_miss_streak <= 3"
    assert 4 <= final["rounds"]["miss"] <= 5
    events = [event["kind"] for event in box.records(run, "logs/events.ndjson")]
    assert events.count("gate_broken") == 1
    assert box.leftovers() == []


def test_an_abort_gate_remembers_the_rounds_before_a_crash_of_soakd(box: Box) -> None:
    """Its sums are read again from the records: three misses before it, one after."""
    box.install(outcomes=["miss"])
    run = box.start("600", "--gate", "abort max_miss_streak <= 12", **_SLOW)
    box.until_rounds(run, 3)
    box.leave(signal.SIGKILL)
    box.serve()
    final = box.wait(run, status=4)
    assert final["cause"]["code"] == "gate"
    assert final["rounds"]["miss"] in (13, 14)


def test_bad_gates_are_all_named_before_anything_starts(box: Box) -> None:
    """Exit status 78, each under the name that the user knows."""
    done = box.ctl(
        "start", "60", "--gate", "hits >= 3", "--gate", "rss.trend < 5% on node z",
        status=78, env=box.env | box.plan_env(),
    )  # fmt: skip
    assert done.err.count("--gate: cannot judge") == 2
