"""Showing the queue."""

from __future__ import annotations

from tests.handlers.calls import call, fail
from tests.handlers.fakes import OTHER, STRANGER, Caller


async def test_every_member_sees_the_whole_queue() -> None:
    """Also whether anything is started at all."""
    caller = Caller(peer=OTHER)
    caller.scheduler.is_draining = True
    assert await call(caller, "queue.list") == {
        "runs": [{"id": "r7", "owner": "ann"}, {"id": "r8", "owner": "bob"}],
        "draining": True,
    }


async def test_a_stranger_sees_nothing() -> None:
    """Who is no member may not even look."""
    assert (await fail(Caller(peer=STRANGER), "queue.list"))["code"] == "not_allowed"
