"""`queue.top`: a queued run goes before all others; that may move a promise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from soakd.handlers.context import Context


async def handle(ctx: Context, _params: dict[str, Any]) -> Mapping[str, Any]:
    """Put it first and return where it stands."""
    return await ctx.scheduler.desk.top(ctx.run, ctx.peer)
