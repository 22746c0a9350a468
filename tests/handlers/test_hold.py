"""Keeping a queued run back."""

from __future__ import annotations

from soakd.core.errors import UserError
from tests.handlers.calls import call, fail
from tests.handlers.fakes import OTHER, OWNER, Caller


async def test_hold_asks_the_queue_for_its_owner() -> None:
    """And returns where the run stands now."""
    caller = Caller()
    answer = await call(caller, "queue.hold", run="r7")
    assert answer == {"id": "r7", "state": "queued", "position": 1}
    assert caller.scheduler.calls == [("hold", 7, OWNER)]


async def test_another_user_may_not_hold() -> None:
    """Nor does the queue hear of it."""
    caller = Caller(peer=OTHER)
    assert (await fail(caller, "queue.hold", run="r7"))["code"] == "not_allowed"
    assert caller.scheduler.calls == []


async def test_a_refusal_is_told() -> None:
    """With the words of the queue; the run must be named."""
    caller = Caller()
    caller.scheduler.desk.failure = UserError("refused", "cannot hold r7: it is not in the queue")
    error = await fail(caller, "queue.hold", run="r7")
    assert (error["code"], error["message"]) == (
        "refused",
        "cannot hold r7: it is not in the queue",
    )
    assert (await fail(caller, "queue.hold"))["details"] == {"problems": ["run: missing"]}
