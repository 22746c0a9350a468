"""`run.watch`: numbered events of a run until its end, resumable by number.

A foreigner gets only changes of state, and of them only the public keys.
"""

from __future__ import annotations

from typing import Any

from soakd.handlers.context import Context, Event
from soakd.handlers.status import visible_status
from soakd.wire.messages import format_run_id
from soakd.wire.results import WatchResult

_PUBLIC_KINDS = ("state", "gap", "end")


async def handle(ctx: Context, params: dict[str, Any]) -> WatchResult:
    """Send `run.event` for every event after `after`, then return the last number.

    A client that reads slowly is waited for; what the scheduler drops meanwhile, it marks as gap.
    """
    run = format_run_id(ctx.run)
    last_seq = params.get("after") or 0
    allowed = await ctx.scheduler.allowed(ctx.run, ctx.peer)
    async with ctx.scheduler.watch(ctx.run, params.get("after")) as events:
        async for event in events:
            last_seq = event["seq"]
            data = event["data"] if allowed else await _public_data(ctx, event)
            if data is not None:
                message = {"run": run, "seq": last_seq, "kind": event["kind"], "data": data}
                await ctx.notify("run.event", message)
    return {"run": run, "last_seq": last_seq}


async def _public_data(ctx: Context, event: Event) -> dict[str, Any] | None:
    if event["kind"] not in _PUBLIC_KINDS:
        return None
    if event["kind"] == "gap":
        return dict(event["data"])
    return await visible_status(ctx)
