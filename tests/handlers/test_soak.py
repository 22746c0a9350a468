"""Asking kept nodes for rounds."""

from __future__ import annotations

from soakd.core.errors import UserError
from tests.handlers.calls import call, fail
from tests.handlers.fakes import OTHER, OWNER, Caller


async def test_a_soak_is_asked_of_the_queue_s_desk() -> None:
    """Of one's active run by default, with what is to be measured."""
    caller = Caller()
    await call(caller, "run.soak", soak={"rounds": 500})
    assert caller.scheduler.calls == [("soak", 7, {"rounds": 500}, OWNER)]


async def test_a_busy_run_refuses() -> None:
    """For now: one soak after the other."""
    caller = Caller()
    caller.scheduler.desk.failure = UserError("refused", "cannot soak r7: soak 1 is under way")
    assert (await fail(caller, "run.soak", soak={}))["code"] == "refused"


async def test_nobody_soaks_on_another_s_nodes() -> None:
    """It would change what they measure."""
    error = await fail(Caller(peer=OTHER), "run.soak", run="r7", soak={})
    assert error["code"] == "not_allowed"
