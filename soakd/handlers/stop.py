"""`run.stop`: asks a run to stop; whoever wants to see the end watches it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from soakd.handlers.context import Context


async def handle(ctx: Context, _params: dict[str, Any]) -> Mapping[str, Any]:
    """Ask and return the status; a finished run stays as it is."""
    return await ctx.scheduler.stop(ctx.run, ctx.peer)
