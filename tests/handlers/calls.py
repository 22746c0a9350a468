"""Calls through the dispatcher, as the server makes them, but without a connection."""

from __future__ import annotations

from typing import Any

from soakd.handlers.dispatch import answer
from soakd.wire.frames import Request
from tests.handlers.fakes import Caller


async def call(caller: Caller, method: str, **params: Any) -> dict[str, Any]:
    """Return the result of a call that must succeed."""
    error, result = await answer(caller.context, Request(1, method, params))
    assert error is None, error
    assert result is not None
    return dict(result)


async def fail(caller: Caller, method: str, **params: Any) -> dict[str, Any]:
    """Return the error map of a call that must fail."""
    error, result = await answer(caller.context, Request(1, method, params))
    assert result is None
    assert error is not None
    return error
