"""What a timed run counts, and that every record says the same."""

from __future__ import annotations

import json
import time

import pytest

from tests.e2e.box import Box
from tests.e2e.records import check_sums, count, epoch, markers

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

_LOOK_EVERY_S = 0.2
_MIXED = {
    "hit_rate": 0.6,
    "prestored_rate": 0.1,
    "late_rate": 0.15,
    "late_secs": 0.45,
}


@pytest.mark.parametrize("length_s", [6, pytest.param(300, marks=pytest.mark.campaign)])
def test_every_sum_of_a_timed_soak_agrees(box: Box, length_s: int) -> None:
    """Deadline, remaining time, round under way, records, verdict; nothing is left behind."""
    box.install(**_MIXED)
    run = box.start(
        str(length_s),
        WAIT_SEARCH="0.3",
        WAIT_BETWEEN="0",
        MISS_RECHECK_DELAY="0.4",
        READ_EVERY="0.1",
    )
    running = box.until(run, lambda s: s["state"] == "running", "running")
    remaining_s = running["remaining_s"]
    assert 0 < remaining_s <= length_s
    while (status := box.status(run))["state"] == "running":
        assert status["remaining_s"] <= remaining_s
        remaining_s = status["remaining_s"]
        assert status["deadline_at"] == running["deadline_at"]
        # Durable before it is reported.
        if status["rounds"]["total"]:
            assert len(box.records(run)) >= status["rounds"]["total"]
        time.sleep(_LOOK_EVERY_S)
    final = box.wait(run)
    assert (final["result"], final["verdict"], final["cause"]) == ("completed", "passed", None)
    assert final["rounds"]["total"] >= length_s
    check_sums(box, run, final)
    _check_deadline(box, run, final["deadline_at"], length_s)
    gates = json.loads(box.read(run, "run.json"))["gates"]
    assert {gate["gate"]: gate["status"] for gate in gates} == dict.fromkeys(
        ("rounds >= 1", "node_exits == 0", "panics == 0", "errors <= 5%", "measured >= 90%"),
        "passed",
    )
    assert box.read(run, "runner.state") == "completed\n"
    assert box.processes() == {}
    assert box.leftovers() == []


def _check_deadline(box: Box, run: str, deadline_at: str, length_s: float) -> None:
    """The deadline is the last instant at which a round starts; that one is finished."""
    records, deadline = box.records(run), epoch(deadline_at)
    assert epoch(records[0]["started_at"]) == pytest.approx(deadline - length_s, abs=0.5)
    # Without a pause between rounds one is always under way.
    assert epoch(records[-1]["started_at"]) <= deadline < epoch(records[-1]["ended_at"])
    assert records[-1]["outcome"] in {"hit", "late", "miss"}
    lines = markers(box, run)
    assert [name for name, _ in lines][-3:] == [
        "deadline reached", "soak-finished", "node stop requested",
    ]  # fmt: skip
    begin = next(text for name, text in lines if name == "soak-start")
    assert begin == f"soak-start duration_secs={length_s} deadline_epoch={int(deadline)}"
    timers = [int(text.split("=")[1].split()[0]) for name, text in lines if name == "timer"]
    assert timers == sorted(timers, reverse=True)


def test_a_gate_of_the_plan_decides_the_exit_status(box: Box) -> None:
    """`hit_rate >= 0.5` of a soak that only misses: failed, exit status 1."""
    box.install(outcomes=["miss"])
    nodes = "".join(
        f'[[nodes]]\nname = "{name}"\nsource = "{folder}"\nhost = "127.0.0.1"\nport = {port}\n'
        f'roles = ["{role}"]\n'
        for name, folder, port, role in zip(
            "ab", box.soaks, box.ports, ("publisher", "searcher"), strict=True
        )
    )
    plan = box.folder / "plan.toml"
    waits = "wait_publish_s = 0\nwait_search_s = 0.1\nwait_between_s = 0\nmiss_recheck_attempts = 0"
    plan.write_text(f'rounds = 6\n{waits}\ngates = ["hit_rate >= 0.5"]\n{nodes}')
    done = box.ctl("start", "--plan", str(plan), "--wait", env={"A_SRC": "/ignored"}, status=1)
    assert "failed: hit_rate is 0.0% (interval 0.0% to" in done.out
    assert "wanted hit_rate >= 0.5" in done.out
    assert "ignored" in done.err
    assert "A_SRC" in done.err


def test_rechecks_tell_late_from_miss(box: Box) -> None:
    """Each configured fate becomes its outcome, with the markers of its rechecks."""
    box.install(outcomes=["hit", "prestored", "late", "miss"], late_secs=0.8)
    run = box.start(
        *("--rounds", "4"),
        WAIT_PUBLISH="0.3",
        WAIT_SEARCH="0.4",
        READ_EVERY="0.1",
        MISS_RECHECK_ATTEMPTS="2",
        MISS_RECHECK_DELAY="1",
    )
    final = box.wait(run)
    check_sums(box, run, final)
    records = box.records(run)
    assert [record["outcome"] for record in records] == ["hit", "hit", "late", "miss"]
    assert [record["prestored"] for record in records] == [False, True, False, False]
    assert [record["rechecks"] for record in records] == [0, 0, 1, 2]
    assert final["search_hit_rate"] == {"value": 2 / 3, "n": 3}
    seen = [record["first_seen_s"] for record in records]
    assert seen[3] is None
    # Dated by a read before the deciding one, by the early one, by the recheck.
    assert 0.3 <= seen[0] < 0.7
    assert 0.3 <= seen[1] < seen[2]
    assert seen[2] >= 1.7
    assert [record["publisher_listed"] for record in records] == [True, True, True, False]
    late, miss = records[2], records[3]
    recheck = "miss_recheck attempt={} delay_secs=1 file={}"
    assert [text for name, text in markers(box, run) if name.startswith("miss")] == [
        f"round=3 {recheck.format(1, late['file_id'])}",
        f"round=3 miss_recheck_hit attempt=1 file={late['file_id']}",
        f"round=4 {recheck.format(1, miss['file_id'])}",
        f"round=4 {recheck.format(2, miss['file_id'])}",
    ]


def test_without_rechecks_a_late_answer_is_a_miss(box: Box) -> None:
    """MISS_RECHECK_ATTEMPTS=0: no marker, no wait; and misses are shown, not judged."""
    box.install(outcomes=["late", "hit"], late_secs=3.0)
    run = box.start("--rounds", "2", MISS_RECHECK_ATTEMPTS="0", WAIT_SEARCH="0.5")
    final = box.wait(run)
    check_sums(box, run, final)
    assert [record["outcome"] for record in box.records(run)] == ["miss", "hit"]
    assert [record["rechecks"] for record in box.records(run)] == [0, 0]
    assert count(box, run)["miss_recheck"] == 0
    assert final["verdict"] == "passed"
    assert final["hit_rate"] == {"value": 0.5, "n": 2}
