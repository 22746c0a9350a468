"""Asking for the outcomes of a run by flow."""

from __future__ import annotations

from tests.handlers.calls import call, fail
from tests.handlers.fakes import OTHER, OWNER, Caller


async def test_the_flows_of_ones_run_can_be_had() -> None:
    """One's latest run by default."""
    caller = Caller(peer=OWNER)
    assert await call(caller, "run.flows") == {"id": "r7", "flows": []}
    assert caller.scheduler.calls == [("flows", 7)]


async def test_nobody_elses_flows_are_shown() -> None:
    """They are results."""
    error = await fail(Caller(peer=OTHER), "run.flows", run="r7")
    assert error["code"] == "not_allowed"
    assert error["message"].startswith("cannot read the flows of r7: it belongs to ")
