"""Forgetting a blocked lease."""

from __future__ import annotations

from soakd.core.errors import UserError
from tests.handlers.calls import call, fail
from tests.handlers.fakes import ADMIN, OWNER, Caller


async def test_forget_asks_the_scheduler_and_returns_what_is_left() -> None:
    """For an admin, by name."""
    caller = Caller(peer=ADMIN)
    assert await call(caller, "run.forget", run="r7") == {"id": "r7", "pids": [4711, 4712]}
    assert caller.scheduler.calls == [("forget", 7, ADMIN)]


async def test_the_owner_may_not_forget() -> None:
    """The slot belongs to the host, and the ports are still taken: that is an admin's risk."""
    caller = Caller(peer=OWNER)
    error = await fail(caller, "run.forget", run="r7")
    assert error["code"] == "not_allowed"
    assert caller.scheduler.calls == []


async def test_the_run_must_be_named() -> None:
    """Never one's latest run by default: it would be somebody's evidence."""
    error = await fail(Caller(peer=ADMIN), "run.forget")
    assert (error["code"], error["details"]) == ("bad_params", {"problems": ["run: missing"]})


async def test_a_refusal_is_told() -> None:
    """With the scheduler's words."""
    caller = Caller(peer=ADMIN)
    caller.scheduler.failure = UserError("refused", "cannot forget r7: no process of it is left")
    error = await fail(caller, "run.forget", run="r7")
    assert (error["code"], error["message"]) == (
        "refused",
        "cannot forget r7: no process of it is left",
    )
