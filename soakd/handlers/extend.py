"""`run.extend`: the rounds of a run may start for longer, as far as no promise is broken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from soakd.handlers.context import Context


async def handle(ctx: Context, params: dict[str, Any]) -> Mapping[str, Any]:
    """Extend it, or only say what that would mean."""
    return await ctx.scheduler.desk.extend(
        ctx.run, params["by_s"], ctx.peer, dry_run=bool(params.get("dry_run"))
    )
