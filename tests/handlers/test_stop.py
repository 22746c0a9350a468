"""Stopping."""

from __future__ import annotations

from tests.handlers.calls import call
from tests.handlers.fakes import OWNER, Caller


async def test_stop_asks_the_scheduler_and_returns_the_status() -> None:
    """It does not wait: whoever wants to see the end watches."""
    caller = Caller()
    assert (await call(caller, "run.stop"))["state"] == "stopping"
    assert caller.scheduler.calls == [("stop", 7, OWNER)]
