"""`daemon.info`, `drain`, `resume` and `shutdown`: the daemon itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from soakd.handlers.context import Context


async def info(ctx: Context, _params: dict[str, Any]) -> Mapping[str, Any]:
    """Describe this daemon."""
    return await ctx.daemon.info()


async def drain(ctx: Context, _params: dict[str, Any]) -> Mapping[str, Any]:
    """Start no run any more; those that have a slot go on."""
    return await ctx.scheduler.desk.drain(ctx.peer, is_draining=True)


async def resume(ctx: Context, _params: dict[str, Any]) -> Mapping[str, Any]:
    """Start runs again."""
    return await ctx.scheduler.desk.drain(ctx.peer, is_draining=False)


async def shutdown(ctx: Context, _params: dict[str, Any]) -> Mapping[str, Any]:
    """Ask the daemon to stop all runs and end; answered before it does."""
    await ctx.daemon.shutdown(ctx.peer)
    return {}
