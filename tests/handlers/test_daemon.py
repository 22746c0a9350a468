"""The daemon itself."""

from __future__ import annotations

from tests.handlers.calls import call
from tests.handlers.fakes import ADMIN, OTHER, Caller


async def test_info_is_for_members() -> None:
    """It is what the daemon says of itself."""
    assert (await call(Caller(peer=OTHER), "daemon.info"))["version"] == "0.1.0"


async def test_shutdown_is_asked_for_and_answered() -> None:
    """The answer comes before the end."""
    caller = Caller(peer=ADMIN)
    assert await call(caller, "daemon.shutdown") == {}
    assert caller.daemon.asked_by == ADMIN
