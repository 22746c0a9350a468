"""`run.soak`: rounds on nodes that are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from soakd.handlers.context import Context


async def handle(ctx: Context, params: dict[str, Any]) -> Mapping[str, Any]:
    """Begin them; whoever wants to see their end watches the run."""
    return await ctx.scheduler.desk.soak(ctx.run, params["soak"], ctx.peer)
