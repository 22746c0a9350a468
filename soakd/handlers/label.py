"""`run.label`: a run gets another label, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from soakd.handlers.context import Context


async def handle(ctx: Context, params: dict[str, Any]) -> Mapping[str, Any]:
    """Label it, in any state of it."""
    return await ctx.scheduler.desk.label(ctx.run, ctx.peer, params.get("label"))
