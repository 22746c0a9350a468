"""`run.status`: everything about one's own run, an allow-list about another's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from soakd.handlers.context import Context
from soakd.wire.messages import PUBLIC_RUN_KEYS


async def handle(ctx: Context, _params: dict[str, Any]) -> Mapping[str, Any]:
    """Return the status of a run as far as the caller may see it."""
    return await visible_status(ctx)


async def visible_status(ctx: Context) -> dict[str, Any]:
    """Return the status of the context's run, cut to the public keys for anyone but its owner."""
    status = await ctx.scheduler.status(ctx.run, ctx.peer)
    if await ctx.scheduler.allowed(ctx.run, ctx.peer):
        return dict(status)
    return public_run(status)


def public_run(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return what anyone may see: an allow-list, so that a new key is private until it is named."""
    return {key: status.get(key) for key in PUBLIC_RUN_KEYS}
