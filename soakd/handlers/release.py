"""`queue.release`: a held run goes on waiting for its turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from soakd.handlers.context import Context


async def handle(ctx: Context, _params: dict[str, Any]) -> Mapping[str, Any]:
    """Release it and return where it stands."""
    return await ctx.scheduler.desk.release(ctx.run, ctx.peer)
