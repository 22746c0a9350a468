"""`run.flows`: the outcomes of a run by flow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from soakd.handlers.context import Context


async def handle(ctx: Context, _params: dict[str, Any]) -> Mapping[str, Any]:
    """Return a row for each flow of the run so far."""
    return await ctx.scheduler.flows(ctx.run)
