"""What users and admins do to a queue of real runs, and what outlives a soakd."""

from __future__ import annotations

import json
import signal
import sqlite3
from contextlib import closing
from datetime import datetime
from typing import Any

import pytest

from tests.e2e.box import Box

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

UNHURRIED = "1"
"""Between rounds of a soak that only has a slot."""


def _queue(box: Box) -> dict[str, dict[str, Any]]:
    return {entry["id"]: entry for entry in box.ctl("--json", "queue").json()}


def _audit(box: Box, run: str | None) -> list[str]:
    number = None if run is None else run[1:]
    with closing(sqlite3.connect(box.state / "soakd.db")) as store:
        rows = store.execute("SELECT what FROM audit WHERE run_id IS ? ORDER BY id", (number,))
        return [what for (what,) in rows]


def _shim_latest_end(box: Box, run: str) -> float:
    """What the shim has written down last of its latest end, in boot seconds."""
    lines = box.read(run, "shim.ndjson").splitlines()
    ends = [json.loads(line).get("latest_end_boot_s") for line in lines]
    return float([end for end in ends if end is not None][-1])


def test_hold_release_and_top_change_the_order_which_outlives_soakd(box: Box) -> None:
    """The head is promised a start; whoever takes its place is promised it then.

    The line and what was said of it stand to the second when another soakd takes over.
    """
    running = box.start("50", WAIT_BETWEEN=UNHURRIED)
    second, third = box.start("50", "--label", "second"), box.start("--rounds", "1")
    queue = _queue(box)
    assert [*queue] == [running, second, third]
    assert queue[running]["state"] != "queued"
    assert (queue[second]["promised"], queue[third]["promised"]) == (True, False)
    # What was promised first stands, also when staging took less than it might have.
    assert queue[second]["expected_start"] >= queue[running]["ends_by"]
    assert queue[third]["expected_start"] > queue[second]["expected_start"]
    assert queue[second]["owner"] == queue[running]["owner"]
    held = box.ctl("--json", "hold", second).json()
    assert (held["reason"], held["promised"], held["position"]) == ("held", False, 2)
    assert _queue(box)[third]["promised"]
    assert "held" in box.ctl("queue").out
    box.until_rounds(running, 1)
    promised = box.status(third)["expected_start"]
    box.leave(signal.SIGKILL)
    box.serve()
    assert (box.status(second)["reason"], box.status(second)["position"]) == ("held", 2)
    after = box.status(third)
    assert (after["promised"], after["position"]) == (True, 1)
    # Records are in milliseconds, and two clocks were read.
    assert abs(_seconds(after["expected_start"]) - _seconds(promised)) < 1.0
    assert not any("moved" in what for what in _audit(box, third))
    assert box.ctl("--json", "release", second).json()["position"] == 2
    first = box.ctl("--json", "top", second).json()
    assert (first["position"], first["promised"]) == (1, True)
    acts = [what for what in _audit(box, second) if "->" not in what and "moved" not in what]
    assert acts == ["created as queued", "hold", "release", "put first"]
    assert any("moved: " in what for what in _audit(box, third))
    box.ctl("stop", running)
    assert "is not in the queue" in box.ctl("hold", running, status=75).err
    box.until_rounds(second, 1)
    box.ctl("stop", second)
    box.wait(third)


def _seconds(time_text: str) -> float:
    return datetime.fromisoformat(time_text).timestamp()


def test_an_extension_moves_the_deadline_and_breaks_no_promise(box: Box) -> None:
    """Refused with the longest possible one while somebody was promised the slot."""
    # Long enough for four calls of soakctl on a box whose cores are busy.
    running = box.start("15", WAIT_BETWEEN=UNHURRIED)
    box.until_rounds(running, 1)
    ends_s = _shim_latest_end(box, running)
    deadline = box.status(running)["deadline_at"]
    waiting = box.start("50")
    refused = box.ctl("extend", running, "1h", "--yes", status=75).err
    assert f"{waiting} was promised to start by" in refused
    assert "no extension is possible" in refused
    box.ctl("hold", waiting)
    done = box.ctl("--json", "extend", running, "1h").json()
    assert (done["applied"], done["duration_s"]) == (True, 3615.0)
    assert _shim_latest_end(box, running) == pytest.approx(ends_s + 3600, abs=0.01)
    box.leave()
    box.serve()
    status = box.status(running)
    assert _seconds(status["deadline_at"]) == pytest.approx(_seconds(deadline) + 3600, abs=1)
    assert status["duration_s"] == 3615.0
    assert any(note.startswith("extended by 3600 s") for note in status["notes"])
    # It would have ended by now.
    box.until(running, lambda s: s["remaining_s"] < 3599, "time to pass")
    box.until_rounds(running, box.status(running)["rounds"]["total"] + 1)
    box.ctl("release", waiting)
    longer = box.ctl("--json", "extend", waiting, "1h", "--yes").json()
    assert longer["duration_s"] == 3650.0
    assert box.status(waiting)["duration_s"] == 3650.0
    box.ctl("stop", waiting)
    box.ctl("stop", running)
    said = box.ctl("extend", running, "1h", status=75).err
    assert f"soakctl start --again {running}" in said


def test_a_drain_outlives_soakd_and_ends_with_resume(box: Box) -> None:
    """Runs that have a slot go on; new ones are queued with the reason."""
    running = box.start("50", WAIT_BETWEEN=UNHURRIED)
    assert "no run is started; 1 running, 0 queued" in box.ctl("daemon", "drain").out
    waiting = box.ctl("--json", "start", "--rounds", "1", env=box.plan_env()).json()
    assert (waiting["state"], waiting["reason"], waiting["expected_start"]) == (
        "queued", "drain", None,
    )  # fmt: skip
    box.ctl("stop", running)
    box.leave()
    box.serve()
    assert box.call("daemon.info")["draining"] is True
    assert "draining" in box.ctl("queue").err
    assert box.status(waiting["id"])["reason"] == "drain"
    box.ctl("daemon", "resume")
    box.wait(waiting["id"])
    assert _audit(box, None) == ["drain", "resume"]


def test_a_run_is_started_again(box: Box) -> None:
    """Same plan and label, another tag; the label may change at any time."""
    first = box.start("--rounds", "1", "--label", "one")
    before = box.wait(first)
    assert box.ctl("label", first, "two").out == f"{first} is labelled two\n"
    assert box.status(first)["label"] == "two"
    assert "label" in box.ctl("label", first, "x" * 65, status=78).err
    again = box.ctl("--json", "start", "--again", first, env=box.env).json()["id"]
    after = box.wait(again)
    assert (after["label"], after["rounds_wanted"]) == ("two", 1)
    assert after["run_tag"] != before["run_tag"]
    assert after["verdict"] == "passed"
    box.ctl("start", "--again", "r999", status=66)


@pytest.fixture
def roomy_box(bare_box: Box) -> Box:
    """Return a box with slots for two runs, and narrow limits."""
    (bare_box.folder / "soakd.toml").write_text(
        "max_running = 2\nrunning_per_user = 2\nqueued_per_user = 1\nsubmissions_per_minute = 4\n"
        "max_duration_s = 7200\n"
    )
    bare_box.install(outcomes=["hit"])
    bare_box.serve()
    return bare_box


def test_limits_of_a_user_say_what_to_do(roomy_box: Box) -> None:
    """In the queue, per minute, and in length."""
    box = roomy_box
    env = box.plan_env(WAIT_BETWEEN=UNHURRIED)
    assert "max_duration_s" in box.ctl("start", "3h", env=env, status=78).err
    running, waiting = box.start("50", WAIT_BETWEEN=UNHURRIED), box.start("50")
    assert box.status(waiting)["reason"] == f"port {min(box.ports)} leased by {running}"
    full = box.ctl("start", "50", env=env, status=75).err
    assert "queued_per_user is 1" in full
    assert "soakctl stop RUN" in full
    box.ctl("stop", waiting)
    for _ in range(2):
        box.ctl("stop", box.start("50"))
    fast = box.ctl("start", "50", env=env, status=75).err
    assert "submissions_per_minute is 4; try again in" in fast
    assert "max_duration_s" in box.ctl("extend", running, "3h", "--yes", status=75).err


def test_two_runs_with_auto_ports_live_side_by_side(roomy_box: Box) -> None:
    """Of the same folders; each node listens on the port that it was given."""
    box = roomy_box
    runs = [box.start("50", "--ports", "auto", WAIT_BETWEEN=UNHURRIED) for _ in range(2)]
    for run in runs:
        box.until_rounds(run, 1)
    with closing(sqlite3.connect(box.state / "soakd.db")) as store:
        leased = store.execute("SELECT key, run_id FROM leases WHERE kind = 'port'").fetchall()
    ports = {int(key) for key, _ in leased}
    assert len(leased) == len(ports) == 4
    assert ports <= set(range(28000, 29000))
    for run in runs:
        edits = " ".join(box.status(run)["edits"])
        assert all(f"api.port = {key}" in edits for key, run_id in leased if f"r{run_id}" == run)
    box.leave(signal.SIGKILL)
    box.serve()
    for run in runs:
        box.until_rounds(run, box.status(run)["rounds"]["total"] + 1)
