"""One slot: the runs behind it wait in line, each with its reason."""

from __future__ import annotations

import pytest

from tests.e2e.box import Box

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_runs_wait_in_line_first_come_first_served(own_box: Box) -> None:
    """Position and reason are told; the line outlives a soakd."""
    box = own_box
    first = box.start("50")
    queued = box.ctl("--json", "start", "--rounds", "1", env=box.plan_env()).json()
    third = box.start("--rounds", "1", "--label", "third")
    assert (queued["id"], queued["state"], queued["position"]) == ("r2", "queued", 1)
    assert queued["reason"]
    assert queued["promised"] is True
    assert queued["expected_start"] > box.status(first)["started_at"]
    status = box.status(third)
    assert (status["state"], status["position"]) == ("queued", 2)
    shown = box.ctl("status", third).out
    assert "queued" in shown
    assert "2 in the queue" in shown
    box.until_rounds(first, 1)
    assert box.status("r2")["state"] == "queued"
    box.leave()
    box.serve()
    assert [box.status(run)["position"] for run in ("r2", third)] == [1, 2]
    box.ctl("stop", first)
    second = box.wait("r2")
    assert box.wait(third)["started_at"] > second["ended_at"]


def test_a_queued_run_can_be_cancelled(box: Box) -> None:
    """It ends as stopped without having touched anything; those behind it move up."""
    first = box.start("50")
    second, third = box.start("50"), box.start("--rounds", "1")
    watch = box.ctl_spawn("wait", second)
    assert "aborted" in box.ctl("stop", second).out
    assert watch.wait(20) == 4
    final = box.status(second)
    assert (final["state"], final["result"], final["verdict"]) == ("finished", "stopped", "aborted")
    assert final["started_at"] is None
    assert not box.run_folder(second).exists()
    assert box.status(third)["position"] == 1
    assert box.status(first)["state"] != "finished"


def test_a_program_that_changed_while_its_run_was_queued_is_not_run(box: Box) -> None:
    """Refused with a way out; `--latest` takes the new one."""
    first = box.start("50")
    strict, latest = box.start("--rounds", "1"), box.start("--rounds", "1", "--latest")
    with (box.soaks[0] / "rust-mule").open("ab") as program:
        program.write(b"\0")
    box.ctl("stop", first)
    refused = box.wait(strict, status=5)
    assert "rust-mule changed since you queued it" in refused["cause"]["text"]
    assert refused["cause"]["node"] == "a"
    assert box.wait(latest)["verdict"] == "passed"
