"""`run.list`: runs, newest first, as many as fit into one answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from soakd.handlers.context import Context
from soakd.handlers.status import public_run

MAX_LISTED = 256
MAX_LISTED_BYTES = 768 * 1024
"""Counted as JSON, which is longer than MessagePack: many gaps of a run must not break the list."""


async def handle(ctx: Context, params: dict[str, Any]) -> Mapping[str, Any]:
    """List the caller's runs, or everybody's."""
    runs = await ctx.scheduler.list_runs(ctx.peer, all_runs=params.get("all") is True)
    listed: list[dict[str, Any]] = []
    room_bytes = MAX_LISTED_BYTES
    for run in runs[:MAX_LISTED]:
        mine = ctx.peer.admin or run["owner"] == ctx.peer.name
        visible = run if mine else public_run(run)
        room_bytes -= len(json.dumps(visible))
        if room_bytes < 0:
            break
        listed.append(visible)
    return {"runs": listed, "truncated": len(listed) < len(runs)}
