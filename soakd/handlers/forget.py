"""`run.forget`: gives slot and ports of a run back although processes of it are left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from soakd.handlers.context import Context


async def handle(ctx: Context, _params: dict[str, Any]) -> Mapping[str, Any]:
    """Forget, and return the processes that are left."""
    return await ctx.scheduler.forget(ctx.run, ctx.peer)
