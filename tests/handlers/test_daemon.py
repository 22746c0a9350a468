"""The daemon itself."""

from __future__ import annotations

from tests.handlers.calls import call, fail
from tests.handlers.fakes import ADMIN, OTHER, OWNER, Caller


async def test_info_is_for_members() -> None:
    """It is what the daemon says of itself."""
    assert (await call(Caller(peer=OTHER), "daemon.info"))["version"] == "0.1.0"


async def test_shutdown_is_asked_for_and_answered() -> None:
    """The answer comes before the end."""
    caller = Caller(peer=ADMIN)
    assert await call(caller, "daemon.shutdown") == {}
    assert caller.daemon.asked_by == ADMIN


async def test_an_admin_drains_and_resumes() -> None:
    """The answer says what goes on all the same."""
    caller = Caller(peer=ADMIN)
    drained = await call(caller, "daemon.drain")
    assert drained == {"draining": True, "running": 1, "queued": 2}
    assert (await call(caller, "daemon.resume"))["draining"] is False
    assert caller.scheduler.calls == [("drain", ADMIN, True), ("drain", ADMIN, False)]


async def test_others_may_not_drain() -> None:
    """It stops everybody's queue."""
    for method in ("daemon.drain", "daemon.resume"):
        assert (await fail(Caller(peer=OWNER), method))["code"] == "not_allowed"
