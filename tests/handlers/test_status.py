"""One run's status."""

from __future__ import annotations

from soakd.wire.messages import PUBLIC_RUN_KEYS
from tests.handlers.calls import call
from tests.handlers.fakes import ADMIN, OTHER, Caller


async def test_owner_and_admin_see_everything() -> None:
    """Without a name it is one's own run."""
    for caller in (Caller(), Caller(peer=ADMIN)):
        assert await call(caller, "run.status") == caller.scheduler.full_status()


async def test_others_see_the_allow_list_only() -> None:
    """Even when the scheduler says more, a foreigner gets the public keys."""
    status = await call(Caller(peer=OTHER), "run.status", run="r7")
    assert set(status) == set(PUBLIC_RUN_KEYS)
    assert (status["id"], status["state"], status["started_at"]) == ("r7", "running", None)
