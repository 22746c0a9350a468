"""`daemon.info` and `daemon.shutdown`: the daemon itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from soakd.handlers.context import Context


async def info(ctx: Context, _params: dict[str, Any]) -> Mapping[str, Any]:
    """Describe this daemon."""
    return await ctx.daemon.info()


async def shutdown(ctx: Context, _params: dict[str, Any]) -> Mapping[str, Any]:
    """Ask the daemon to stop all runs and end; answered before it does."""
    await ctx.daemon.shutdown(ctx.peer)
    return {}
