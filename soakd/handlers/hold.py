"""`queue.hold`: a queued run is kept back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from soakd.handlers.context import Context


async def handle(ctx: Context, _params: dict[str, Any]) -> Mapping[str, Any]:
    """Hold it and return where it stands."""
    return await ctx.scheduler.desk.hold(ctx.run, ctx.peer)
