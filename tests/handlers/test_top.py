"""Putting a run before all others."""

from __future__ import annotations

from tests.handlers.calls import call, fail
from tests.handlers.fakes import ADMIN, OWNER, Caller


async def test_an_admin_puts_a_run_first() -> None:
    """The answer says where it stands now."""
    caller = Caller(peer=ADMIN)
    answer = await call(caller, "queue.top", run="r7")
    assert answer == {"id": "r7", "state": "queued", "position": 1}
    assert caller.scheduler.calls == [("top", 7, ADMIN)]


async def test_the_owner_may_not() -> None:
    """It would be at the cost of all others."""
    caller = Caller(peer=OWNER)
    assert await fail(caller, "queue.top", run="r7") == {
        "code": "not_allowed",
        "message": "cannot top: only root and members of soak-admin may; ask one of them",
        "details": {},
    }
    assert caller.scheduler.calls == []
