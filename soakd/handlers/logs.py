"""`run.logs`: the log of a run or of one of its nodes, followed until the run has ended.

Nothing is polled: inotify tells of new bytes, the run's own events tell that the file appeared and
that nothing will write it any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import trio

from soakd.core.errors import UserError
from soakd.edge.follow import Follower, open_follower
from soakd.handlers.context import Context
from soakd.wire.messages import format_run_id
from soakd.wire.results import LogsResult


class _RunProgress:
    """What the run's events mean for a reader of its files."""

    def __init__(self, *, ended: bool) -> None:
        self.tick = trio.Event()
        self.ended = trio.Event()
        if ended:
            self.ended.set()

    async def follow(self, ctx: Context) -> None:
        """Turn events into ticks, the end of the events into `ended`."""
        async with ctx.scheduler.watch(ctx.run, None) as events:
            async for _event in events:
                self._tick()
        self.ended.set()
        self._tick()

    def _tick(self) -> None:
        self.tick.set()
        self.tick = trio.Event()


async def handle(ctx: Context, params: dict[str, Any]) -> LogsResult:
    """Send the file in `run.log` pieces.

    Raises:
        UserError: `refused`, there is no such log (yet).
    """
    live = params.get("follow") is True and not ctx.scheduler.is_finished(ctx.run)
    progress = _RunProgress(ended=not live)
    async with trio.open_nursery() as nursery:
        if live:
            nursery.start_soon(progress.follow, ctx)
        sent_bytes = await _send_log(ctx, params, progress)
        nursery.cancel_scope.cancel()
    return {"run": format_run_id(ctx.run), "bytes": sent_bytes}


async def _send_log(ctx: Context, params: dict[str, Any], progress: _RunProgress) -> int:
    with ExitStack() as stack:
        follower = await _open(ctx, params, progress, stack)
        tail = params.get("tail")
        if tail is not None:
            await follower.seek_tail(tail)
        seq = sent_bytes = 0
        while True:
            # Read after asking: what was written before the end is still sent.
            last_time = progress.ended.is_set()
            while piece := await follower.read():
                seq += 1
                sent_bytes += len(piece)
                await ctx.notify("run.log", {"seq": seq, "data": piece})
            if last_time:
                return sent_bytes
            await _wait_for_more(follower, progress)


async def _open(
    ctx: Context, params: Mapping[str, Any], progress: _RunProgress, stack: ExitStack
) -> Follower:
    while True:
        tick, last_time = progress.tick, progress.ended.is_set()
        answers = params.get("answers") is True
        path = ctx.scheduler.log_path(ctx.run, params.get("node"), answers=answers)
        try:
            return stack.enter_context(open_follower(path))
        except FileNotFoundError:
            if last_time:
                raise UserError(
                    "refused",
                    f"cannot read the log of {format_run_id(ctx.run)}: {path.name} does not exist"
                    f" (yet); `soakctl status {format_run_id(ctx.run)}` names its nodes and state",
                ) from None
        await tick.wait()


async def _wait_for_more(follower: Follower, progress: _RunProgress) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_until_ended, progress, nursery.cancel_scope)
        await follower.wait_changed()
        nursery.cancel_scope.cancel()


async def _until_ended(progress: _RunProgress, scope: trio.CancelScope) -> None:
    await progress.ended.wait()
    scope.cancel()
