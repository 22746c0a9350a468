"""Asking what a run was asked to do."""

from __future__ import annotations

from soakd.core.plan import parse_plan
from tests.handlers.calls import call, fail
from tests.handlers.fakes import ADMIN, OTHER, OWNER, PLAN, Caller


async def test_the_plan_of_ones_run_can_be_had_and_submitted_again() -> None:
    """One's latest run by default; an admin may see anybody's."""
    for peer in (OWNER, ADMIN):
        caller = Caller(peer=peer)
        answer = await call(caller, "run.plan")
        assert caller.scheduler.calls == [("plan", 7)]
        assert parse_plan(answer["plan"]) == parse_plan(PLAN)
        assert answer["sha256"] == {"a": "0" * 64}


async def test_nobody_elses_plan_is_shown() -> None:
    """It names folders of its owner."""
    caller = Caller(peer=OTHER)
    error = await fail(caller, "run.plan", run="r7")
    assert error["code"] == "not_allowed"
    assert error["message"].startswith("cannot read the plan of r7: it belongs to ")
    assert caller.scheduler.calls == []
