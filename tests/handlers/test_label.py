"""Labelling a run."""

from __future__ import annotations

from tests.handlers.calls import call, fail
from tests.handlers.fakes import OTHER, OWNER, Caller


async def test_a_label_is_given_and_taken_away() -> None:
    """Without one the run has none afterwards."""
    caller = Caller()
    await call(caller, "run.label", run="r7", label="night")
    await call(caller, "run.label", run="r7")
    assert caller.scheduler.calls == [("label", 7, OWNER, "night"), ("label", 7, OWNER, None)]


async def test_another_user_may_not_label() -> None:
    """A label is what the owner finds the run by."""
    error = await fail(Caller(peer=OTHER), "run.label", run="r7", label="mine")
    assert error["code"] == "not_allowed"
