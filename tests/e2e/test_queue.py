"""One slot: the runs behind it wait in line, each with its reason."""

from __future__ import annotations

import pytest

from tests.e2e.box import Box

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

UNHURRIED = "1"
"""Between rounds of a soak that only has the slot."""


def test_runs_wait_in_line_first_come_first_served(box: Box) -> None:
    """Position and reason are told."""
    first = box.start("50", WAIT_BETWEEN=UNHURRIED)
    queued = box.ctl("--json", "start", "--rounds", "1", env=box.plan_env()).json()
    second, third = queued["id"], box.start("--rounds", "1", "--label", "third")
    assert (queued["state"], queued["position"]) == ("queued", 1)
    assert queued["reason"]
    assert queued["promised"] is True
    assert queued["expected_start"] > box.status(first)["started_at"]
    status = box.status(third)
    assert (status["state"], status["position"]) == ("queued", 2)
    shown = box.ctl("status", third).out
    assert "queued" in shown
    assert "2 in the queue" in shown
    box.until_rounds(first, 1)
    assert box.status(second)["state"] == "queued"
    box.ctl("stop", first)
    before = box.wait(second)
    assert box.wait(third)["started_at"] > before["ended_at"]


def test_a_queued_run_can_be_cancelled(box: Box) -> None:
    """It ends as stopped without having touched anything; those behind it move up."""
    first = box.start("50", WAIT_BETWEEN=UNHURRIED)
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
    first = box.start("50", WAIT_BETWEEN=UNHURRIED)
    strict, latest = box.start("--rounds", "1"), box.start("--rounds", "1", "--latest")
    with (box.soaks[0] / "rust-mule").open("ab") as program:
        program.write(b"\0")
    box.ctl("stop", first)
    refused = box.wait(strict, status=5)
    assert "rust-mule changed since you queued it" in refused["cause"]["text"]
    assert refused["cause"]["node"] == "a"
    assert box.wait(latest)["verdict"] == "passed"
