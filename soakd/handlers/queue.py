"""`queue.list`: who has a slot and who waits, for how long and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from soakd.handlers.context import Context


async def handle(ctx: Context, _params: dict[str, Any]) -> Mapping[str, Any]:
    """Return all entries; anyone may see them, as an allow-list."""
    return {
        "runs": await ctx.scheduler.desk.entries(),
        "draining": ctx.scheduler.is_draining,
    }
