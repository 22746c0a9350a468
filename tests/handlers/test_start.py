"""Submitting a plan."""

from __future__ import annotations

from typing import Any

import pytest

from soakd.core.plan import parse_plan
from tests.handlers.calls import call, fail
from tests.handlers.fakes import OWNER, PLAN, Caller

DIGEST = "0123456789abcdef" * 4


async def test_a_plan_goes_to_the_scheduler_frozen() -> None:
    """The scheduler gets the parsed plan, the peer and the digests."""
    caller = Caller()
    result = await call(caller, "run.start", plan=PLAN, sha256={"a": DIGEST})
    assert result["id"] == "r7"
    assert caller.scheduler.calls == [("submit", OWNER, parse_plan(PLAN), {"a": DIGEST})]


async def test_digests_are_optional() -> None:
    """A foreign client may leave them out."""
    caller = Caller()
    await call(caller, "run.start", plan=PLAN)
    assert caller.scheduler.calls[0][3] == {}


async def test_a_bad_plan_lists_its_problems() -> None:
    """The client's own check is not trusted."""
    error = await fail(Caller(), "run.start", plan={**PLAN, "colour": "red"})
    assert error["code"] == "bad_plan"
    assert any("colour" in problem for problem in error["details"]["problems"])


async def test_a_driver_that_is_not_there_is_refused() -> None:
    """Nothing is queued of which nobody knows how it is to be run."""
    caller = Caller()
    error = await fail(caller, "run.start", plan={**PLAN, "driver": "gone"})
    assert error["code"] == "bad_plan"
    assert "the known ones are: rust_mule" in error["details"]["problems"][0]
    assert caller.scheduler.calls == []


@pytest.mark.parametrize(
    "sha256", [{"c": DIGEST}, {"a": "abc"}, {"a": DIGEST.upper()}, {"a": 5}, {"b": DIGEST + "\n"}]
)
async def test_wrong_digests_are_refused(sha256: dict[str, Any]) -> None:
    """Only nodes of the plan, only 64 hex digits."""
    error = await fail(Caller(), "run.start", plan=PLAN, sha256=sha256)
    assert error["code"] == "bad_plan"
    assert len(error["details"]["problems"]) == 1
