"""`run.plan`: what a run was asked to do, so that it can be run again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from soakd.handlers.context import Context


async def handle(ctx: Context, _params: dict[str, Any]) -> Mapping[str, Any]:
    """Return the plan with all its defaults filled in."""
    return await ctx.scheduler.plan(ctx.run)
