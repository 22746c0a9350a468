"""One run, from its slot to its verdict.

One task owns it (`live`). Everything that happens to it (a stop, a dead node, a time-out, progress
of its own work) arrives as an event in one queue; the owner alone makes transitions, each one a
transaction of the store. The work (`soakd.work`) proceeds beside it and is cut politely when the
run begins to stop; the shim walks the ladder; the verdict is made last.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import trio

from soakd.core import run_state
from soakd.core.errors import HostError, NodeError, SoakError
from soakd.core.model import Cause
from soakd.core.plan import Plan
from soakd.core.rounds import Cut, NodeDown
from soakd.core.run_state import Limits
from soakd.crew import Crew
from soakd.edge.clock import boot_now, rfc3339, sleep_until_boot, wall_now
from soakd.edge.pidfds import wait_for_end
from soakd.ending import Ending
from soakd.host import Host
from soakd.hub import Hub
from soakd.log import get_logger
from soakd.observer import Observer
from soakd.view import from_row
from soakd.work import Work

CUT_ROUND_S = 5.0
LET_GO_S = 1.0
PROGRESS_EVERY_S = 0.2
NEWS_BACKLOG = 256
RUNNER_STATES = {
    "completed": "completed",
    "failed": "failed",
    "stopped": "stopped",
    "aborted": "failed",
}
"""The words of the scripts' `runner.state`, which know no abort."""

_log = get_logger()


class _News:
    """An event on its way to the owner; `taken` is set when its transition is stored."""

    def __init__(self, event: run_state.Event, uid: int | None) -> None:
        self.event = event
        self.uid = uid
        self.taken = trio.Event()


Status: TypeAlias = dict[str, Any]


class Run:
    """A run that holds a slot."""

    def __init__(self, host: Host, run_id: int, plan: Plan, hub: Hub) -> None:
        """Knows the run's plan; the rest is read from the store by `live`."""
        self.id = run_id
        self.plan = plan
        self.hub = hub
        self.state: run_state.State = run_state.Queued()
        self.settled = trio.Event()
        """The run's present is known: a slot was granted, or an earlier soakd's run taken over."""
        self._host = host
        self._limits = Limits.of(plan)
        names = tuple(node.name for node in plan.nodes)
        self.crew = Crew(host, run_id, plan)
        self.observer = Observer(host, run_id, names, hub, self.tell_soon)
        self.work = Work(self, host, run_id, self.observer)
        self._ending = Ending(plan, self.crew, self.observer)
        self._base: Status = {}
        self._news_in, self._news = trio.open_memory_channel[_News](NEWS_BACKLOG)
        self._moved = trio.Event()
        self._work_done = trio.Event()
        self._work_scope = trio.CancelScope()
        self._progress_due_s = 0.0
        self._nursery: trio.Nursery | None = None

    # -- from outside --------------------------------------------------------------------------

    async def ask_stop(self, who: str, uid: int | None) -> None:
        """Asks the run to stop; returns when that is stored. Too late, it changes nothing."""
        if not isinstance(self.state, run_state.Finished):
            await self.tell(run_state.StopAsked(who), uid)

    def status(self) -> Status:
        """The run as `status` shows it now."""
        state = self.state
        cause = getattr(state, "cause", None)
        return {
            **self._base,
            "state": run_state.name(state),
            "remaining_s": self._remaining_s(),
            "cause": None if cause is None else cause.to_dict(),
            "phase": self.work.phase if isinstance(state, run_state.Running) else None,
            "round": self.work.round_number,
            **self.observer.status(),
        }

    # -- the owner -----------------------------------------------------------------------------

    async def live(self) -> None:
        """Takes the run from the state in the store to the end; cancelled, it lets go of the shim.

        Raises:
            SoakError: the store or the disk failed so that not even the end could be written.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await self._read_row()
                nursery.start_soon(self._keep_time)
                nursery.start_soon(self._do_work)
                if isinstance(self.state, run_state.Stopping):
                    nursery.start_soon(self._wind_down)
                await self._take_news(nursery)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(LET_GO_S):
                await self.work.let_go()
            self.settled.set()
            self.hub.close()

    async def bury(self, error: Exception) -> None:
        """After a crash of `live`: stops what still runs and writes the end down as our fault."""
        text = f"internal error of soakd: {error!r}"
        if isinstance(self.state, run_state.Finished):
            return
        await self._ending.force()
        self.work.reopen()
        now_s = boot_now()
        cause = Cause("internal", text[:500], None, rfc3339(wall_now()))
        for event in (run_state.Failed(cause), run_state.LadderDone("harness_error", text[:500])):
            old = self.state
            self.state = run_state.advance(old, event, now_s, self._limits)
            await self._store(old, self.state, _News(event, None))

    async def wait_until_gone(self) -> None:
        """Waits until nothing that survived the ladder is left."""
        for pid in self.observer.left:
            await wait_for_end(pid)

    async def _read_row(self) -> None:
        row = await self._host.db(self._host.store.get_run, self.id)
        assert row is not None, "a run without a row was given a slot"
        self._base = from_row(row, self.plan, (), (), None)
        self.state = run_state.from_dict(json.loads(row.state_json))
        if isinstance(self.state, run_state.Queued):
            await self._move(_News(run_state.SlotGranted(), None))
        else:
            await self.work.rejoin(row)
        self.settled.set()

    async def _take_news(self, nursery: trio.Nursery) -> None:
        async for news in self._news:
            was_stopping = isinstance(self.state, run_state.Stopping)
            await self._move(news)
            if isinstance(self.state, run_state.Finished):
                return
            if isinstance(self.state, run_state.Stopping) and not was_stopping:
                nursery.start_soon(self._wind_down)

    def spawn(self, task: Callable[..., Awaitable[object]], *args: object) -> None:
        """Starts a task that lives until the run ends."""
        assert self._nursery is not None, "a task was started before the run lived"
        self._nursery.start_soon(task, *args)

    async def tell(self, event: run_state.Event, uid: int | None = None) -> run_state.State:
        """Hands an event to the owner and returns the state after it."""
        news = _News(event, uid)
        await self._news_in.send(news)
        await news.taken.wait()
        return self.state

    def tell_soon(self, event: run_state.Event) -> None:
        """Hands over an event without waiting for what comes of it."""
        try:
            self._news_in.send_nowait(_News(event, None))
        except trio.WouldBlock:
            # So many unread events mean that the owner is busy ending the run: one more is no news.
            _log.warning("news_dropped", run=self.id, news=type(event).__name__)

    def progress(self, *, rests: bool = False) -> None:
        """Shows watchers where the run is, a few times a second at most.

        Args:
            rests: the run stays there for a while, so that watchers must not miss it.
        """
        if self.hub.watched and (rests or boot_now() >= self._progress_due_s):
            self._progress_due_s = boot_now() + PROGRESS_EVERY_S
            self.hub.publish("progress", self.status())

    async def _move(self, news: _News) -> None:
        old = self.state
        if isinstance(news.event, run_state.TimedOut) and not self._is_overdue():
            # The timer of a state that was left before its news was read.
            news.taken.set()
            return
        try:
            new = run_state.advance(old, news.event, boot_now(), self._limits)
        except run_state.IllegalTransition:
            if not isinstance(old, run_state.Stopping):
                raise
            # Late news of work that did not know yet that the run is ending.
            new = old
        if new is not old:
            with trio.CancelScope(shield=True):
                await self._store(old, new, news)
            self.state = new
            if self.work.records is not None:
                self.work.records.soak_log(f"run state {run_state.name(new)}")
            self._moved.set()
            self._moved = trio.Event()
            ended = isinstance(new, run_state.Finished)
            self.hub.publish("end" if ended else "state", self.status())
            _log.info(
                "run_state", run=self.id, state=run_state.name(new), news=type(news.event).__name__
            )
        news.taken.set()

    def _is_overdue(self) -> bool:
        until_s = run_state.deadline_of(self.state)
        return until_s is not None and boot_now() >= until_s

    async def _store(self, old: run_state.State, new: run_state.State, news: _News) -> None:
        at = wall_now()
        columns: dict[str, Any] = {}
        if isinstance(new, run_state.Staging):
            columns["started_at"] = at
            self._base["started_at"] = rfc3339(at)
        if isinstance(new, run_state.Running) and new.deadline_s is not None:
            self._base["deadline_at"] = rfc3339(at + new.deadline_s - boot_now())
        if isinstance(new, run_state.Finished):
            cause = new.cause
            self._base |= {
                "ended_at": rfc3339(at),
                "result": new.result,
                "verdict": new.verdict,
                "why": new.why,
            }
            columns |= {
                "ended_at": at,
                "result": new.result,
                "verdict": new.verdict,
                "why": new.why,
                "cause_json": None if cause is None else json.dumps(cause.to_dict()),
            }
            columns |= await self._write_end(new)
        await self._host.db(
            self._host.store.transition,
            self.id,
            run_state.name(old),
            run_state.name(new),
            json.dumps(run_state.to_dict(new)),
            news.uid,
            type(news.event).__name__,
            at=at,
            **columns,
        )

    # -- tasks ---------------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        while True:
            moved = self._moved
            until_s = run_state.deadline_of(self.state)
            async with trio.open_nursery() as nursery:
                if until_s is not None:
                    nursery.start_soon(self._time_out, until_s, moved)
                await moved.wait()
                nursery.cancel_scope.cancel()

    async def _time_out(self, until_s: float, moved: trio.Event) -> None:
        await sleep_until_boot(until_s)
        if not moved.is_set():
            await self.tell(run_state.TimedOut())

    async def _do_work(self) -> None:
        try:
            with self._work_scope:
                await self.work.run()
        except NodeError as error:
            self.tell_soon(run_state.Failed(self._cause(error.code, error)))
        except SoakError as error:
            code = "host" if isinstance(error, HostError) else "refused"
            self.tell_soon(
                run_state.Failed(self._cause(str(error.details.get("cause", code)), error))
            )
        finally:
            self._work_done.set()

    async def _wind_down(self) -> None:
        """From the decision to stop until nothing is left."""
        assert isinstance(self.state, run_state.Stopping)
        stopping = self.state
        self.observer.ending()
        self.work.cut(_interruption(stopping))
        if self.work.is_measuring:
            with trio.move_on_after(CUT_ROUND_S):
                await self._work_done.wait()
        self._work_scope.cancel()
        await self._work_done.wait()
        verdict, why = await self._ending.walk(stopping)
        await self.tell(run_state.LadderDone(verdict, why))

    async def _write_end(self, end: run_state.Finished) -> dict[str, Any]:
        """Writes the last files of the run folder; the columns that go with them."""
        records = self.work.records
        if records is None:
            return {}
        summary = {**self.status(), "state": "finished", **self._ending.summary()}
        summary |= {"cause": None if end.cause is None else end.cause.to_dict(), "phase": None}
        await records.write_json("run.json", summary)
        await records.state_file(RUNNER_STATES[end.result])
        measured = {key: summary.get(key) for key in ("simulation", "notes", "deadline_at")}
        return {"measured_json": json.dumps(measured), **self.work.checkpoint()}

    # -- inner ---------------------------------------------------------------------------------

    def _remaining_s(self) -> float | None:
        match self.state:
            case run_state.Running(deadline_s=float(deadline_s)):
                return max(0.0, round(deadline_s - boot_now(), 3))
            case (
                run_state.Queued()
                | run_state.Staging()
                | run_state.Starting()
                | run_state.Warming()
            ):
                return self.plan.duration_s
            case _:
                return None

    def _cause(self, code: str, error: SoakError) -> Cause:
        node = error.details.get("node")
        return Cause(code, error.message, None if node is None else str(node), rfc3339(wall_now()))


def _interruption(stopping: run_state.Stopping) -> Cut | NodeDown:
    cause = stopping.cause
    if cause is not None and cause.code == "node_exited" and cause.node is not None:
        return NodeDown(cause.node)
    return Cut("stop" if stopping.result == "stopped" else stopping.result)
