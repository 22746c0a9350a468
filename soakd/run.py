"""One run, from its slot to its verdict.

One task owns it (`live`). Everything that happens to it (a stop, a dead node, a time-out, progress
of its own work) arrives as an event in one queue; the owner alone makes transitions, each one a
transaction of the store. The work (`soakd.work`) proceeds beside it and is cut politely when the
run begins to stop; the shim walks the ladder; the verdict is made last.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import trio

from soakd import leases, moves
from soakd.core import run_state
from soakd.core.errors import HostError, NodeError, first_known
from soakd.core.model import Cause
from soakd.core.plan import Plan
from soakd.core.run_state import Limits
from soakd.crew import Crew
from soakd.drivers import registry
from soakd.edge.clock import boot_now, rfc3339, sleep_until_boot, wall_now
from soakd.ending import Ending
from soakd.host import Host
from soakd.hub import Hub
from soakd.ledger import Ledger
from soakd.log import get_logger
from soakd.observer import Observer
from soakd.work import Work

CUT_ROUND_S = 5.0
PROGRESS_EVERY_S = 0.2
NEWS_BACKLOG = 256
MAX_NOTES = 100
"""A run may be extended by a second as often as somebody likes."""

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
        self.soak_turn = trio.Lock()
        """Whoever asks kept nodes for rounds has it."""
        self.settled = trio.Event()
        """The run's present is known: a slot was granted, or an earlier soakd's run taken over."""
        self._limits = Limits.of(plan)
        names = tuple(node.name for node in plan.nodes)
        self.crew = Crew(host, run_id, plan)
        words = registry.of_stored(plan).words
        self.observer = Observer(host, run_id, names, hub, self.tell_soon, words)
        self.work = Work(self, host, run_id, self.observer)
        self._ledger = Ledger(host, run_id, plan, self.work, self.observer)
        self._ending = Ending(plan, self.crew, self.observer)
        self._news_in, self._news = trio.open_memory_channel[_News](NEWS_BACKLOG)
        self._over = False
        self._moved = trio.Event()
        self._work_done = trio.Event()
        self._work_scope = trio.CancelScope()
        self._progress_due_s = 0.0
        self._nursery: trio.Nursery | None = None

    @property
    def is_over(self) -> bool:
        """Its end is stored."""
        return isinstance(self.state, run_state.Finished)

    @property
    def left(self) -> tuple[leases.Process, ...]:
        """What could not be ended of it."""
        return self._ending.left

    # -- from outside --------------------------------------------------------------------------

    async def ask_stop(self, who: str, uid: int | None) -> None:
        """Asks the run to stop; returns when that is stored. Too late, it changes nothing."""
        await self.tell(run_state.StopAsked(who), uid)

    def status(self) -> Status:
        """The run as `status` shows it now."""
        state = self.state
        cause = getattr(state, "cause", None)
        status = {
            **self._ledger.base,
            "state": run_state.name(state),
            "remaining_s": self._remaining_s(),
            "cause": None if cause is None else cause.to_dict(),
            **self.work.measuring.status(state),
            **self.observer.status(),
        }
        if not self.is_over:
            return status
        pids = sorted(pid for pid, _ in self.left)
        return leases.with_blocked(status | {"rung": None}, self.plan, pids)

    async def extend(self, by_s: float, uid: int) -> None:
        """Lets rounds start for so much longer; returns when that is stored.

        Raises:
            UserError: the run has no deadline, or is ending.
            HostError: its shim cannot be told.
        """
        await self.settled.wait()
        if self.plan.duration_s is None or isinstance(
            self.state, run_state.Stopping | run_state.Finished
        ):
            raise moves.not_longer(self.id, run_state.name(self.state))
        # First the shim: with more time than the run it does no harm, with less it would end it.
        await self.crew.extend(moves.longer(self.plan, by_s), by_s)
        state = await self.tell(run_state.Extended(by_s), uid)
        if isinstance(state, run_state.Stopping | run_state.Finished):
            raise moves.not_longer(self.id, run_state.name(state))

    def relabel(self, label: str | None) -> None:
        """Shows another label; the store has it already."""
        self._ledger.base["label"] = label

    @property
    def written_bytes(self) -> int | None:
        """How large its records are, once it is over."""
        return self._ledger.written_bytes

    # -- the owner -----------------------------------------------------------------------------

    async def live(self) -> None:
        """Takes the run from the state in the store to the end; cancelled, it leaves the shim be.

        Raises:
            Exception: anything, such as a store that fails; `bury` then ends the run.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await self._take_up()
                self.settled.set()
                nursery.start_soon(self._keep_time)
                if isinstance(self.state, run_state.Stopping):
                    self._work_done.set()
                    nursery.start_soon(self._wind_down)
                else:
                    nursery.start_soon(self._do_work)
                await self._take_news(nursery)
                nursery.cancel_scope.cancel()
        finally:
            self._close_news()

    async def bury(self, error: Exception) -> None:
        """After a crash of `live`: stops what still runs and writes the end down as our fault.

        Raises:
            SoakError: the end could not be written.
        """
        if isinstance(self.state, run_state.Finished):
            return
        await self._ending.force()
        known = first_known(error)
        text = f"internal error of soakd: {error!r}"[:500] if known is None else known.message
        cause = Cause("internal", text, None, rfc3339(wall_now()))
        for event in (run_state.Failed(cause), run_state.LadderDone("harness_error", text)):
            if isinstance(self.state, run_state.Finished):
                break
            new = run_state.advance(self.state, event, boot_now(), self._limits)
            if new is not self.state:
                await self._ledger.write(self.state, new, event, None, self.left)
                self.state = new
        self.hub.publish("end", self.status())
        self.hub.close()

    def note_once(self, text: str) -> None:
        """Adds a note to what `status` shows, while there is room: events have it all."""
        notes = self.observer.notes
        if text not in notes and len(notes) < MAX_NOTES:
            notes.append(text)

    async def let_go(self) -> None:
        """Closes connections, files and watches; processes are not touched."""
        await self.work.let_go()
        self.settled.set()
        self.hub.close()

    async def _take_up(self) -> None:
        row, self.state = await self._ledger.read()
        if isinstance(self.state, run_state.Queued):
            await self._move(_News(run_state.SlotGranted(), None))
            return
        self.state = moves.with_time_left(self.state, boot_now(), self._limits)
        if isinstance(self.state, run_state.Stopping):
            self.observer.ending()
            self._ending.was_announced = True
        await self.work.rejoin(row)
        # What came about while soakd was away comes first: no round must begin on a dead node.
        while True:
            try:
                await self._move(self._news.receive_nowait())
            except trio.WouldBlock:
                return

    async def _take_news(self, nursery: trio.Nursery) -> None:
        async for news in self._news:
            was_stopping = isinstance(self.state, run_state.Stopping)
            await self._move(news)
            if isinstance(self.state, run_state.Finished):
                return
            if isinstance(self.state, run_state.Stopping) and not was_stopping:
                nursery.start_soon(self._wind_down)

    def _close_news(self) -> None:
        """Nobody takes news any more: whoever waits for an answer gets it now."""
        self._over = True
        while True:
            try:
                self._news.receive_nowait().taken.set()
            except trio.WouldBlock:
                return

    def spawn(self, task: Callable[..., Awaitable[object]], *args: object) -> None:
        """Starts a task that lives until the run ends."""
        assert self._nursery is not None, "a task was started before the run lived"
        self._nursery.start_soon(task, *args)

    async def tell(self, event: run_state.Event, uid: int | None = None) -> run_state.State:
        """Hands an event to the owner and returns the state after it."""
        if not self._over:
            news = _News(event, uid)
            await self._news_in.send(news)
            if self._over:
                self._close_news()
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
        try:
            new = await self._next_state(news.event)
            if new is not self.state:
                if isinstance(new, run_state.Running):
                    self.observer.running_since(new.since_s)
                if isinstance(new, run_state.Stopping):
                    self.observer.ending()
                if isinstance(news.event, run_state.Extended):
                    self._ledger.lengthen(moves.longer(self.plan, news.event.by_s))
                    self.note_once(f"extended by {news.event.by_s:g} s at {rfc3339(wall_now())}")
                    self.observer.event("extended", None, {"by_s": news.event.by_s})
                with trio.CancelScope(shield=True):
                    await self._ledger.write(self.state, new, news.event, news.uid, self.left)
                self._enter(new, news.event)
        finally:
            news.taken.set()

    async def _next_state(self, event: run_state.Event) -> run_state.State:
        old = self.state
        if isinstance(event, run_state.TimedOut):
            until_s = run_state.deadline_of(old)
            if until_s is None or boot_now() < until_s:
                # The timer of a state that was left before its news was read.
                return old
            if isinstance(old, run_state.Stopping):
                with trio.CancelScope(shield=True):
                    await self._ending.put_down()
        try:
            return moves.dated(run_state.advance(old, event, boot_now(), self._limits))
        except run_state.IllegalTransition:
            if isinstance(old, run_state.Stopping):
                # Late news of work that did not know yet that the run is ending.
                return old
            raise

    def _enter(self, new: run_state.State, event: run_state.Event) -> None:
        self.state = new
        if isinstance(event, run_state.SoakAsked) and isinstance(new, run_state.Running):
            self.work.measuring.ask(event.soak)
        if isinstance(event, run_state.Extended):
            self.plan = moves.longer(self.plan, event.by_s)
            self._limits = Limits.of(self.plan)
            self.work.lengthen(self.plan, getattr(new, "deadline_s", None))
        name = run_state.name(new)
        if self.work.records is not None:
            self.work.records.soak_log(f"run state {name}")
        self._moved.set()
        self._moved = trio.Event()
        if isinstance(new, run_state.Finished):
            # Nothing comes behind the end, even while leftovers still keep the slot.
            self.hub.publish("end", self.status())
            self.hub.close()
        else:
            self.hub.publish("state", self.status())
        _log.info("run_state", run=self.id, state=name, news=type(event).__name__)

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
            await self.tell(run_state.TimedOut(self.work.last_answers))

    async def _do_work(self) -> None:
        """Does the work; whatever is raised in it ends this run, and nothing else."""
        try:
            with self._work_scope:
                await self.work.run()
        except Exception as error:  # noqa: BLE001 - the run's own place for all that goes wrong
            self.tell_soon(run_state.Failed(self._cause(error)))
        finally:
            self._work_done.set()

    async def _wind_down(self) -> None:
        """From the decision to stop until nothing is left."""
        assert isinstance(self.state, run_state.Stopping)
        stopping = self.state
        self.observer.ending()
        self.work.measuring.cut(moves.interruption(stopping))
        if self.work.measuring.can_be_cut:
            with trio.move_on_after(CUT_ROUND_S):
                await self._work_done.wait()
        self._work_scope.cancel()
        await self._work_done.wait()
        self.work.measuring.settle(stopping)
        verdict, why = await self._ending.walk(stopping)
        await self.tell(run_state.LadderDone(verdict, why))

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

    def _cause(self, error: Exception) -> Cause:
        known = first_known(error)
        at = rfc3339(wall_now())
        if known is None:
            _log.error("work_crashed", run=self.id, exc_info=error)
            return Cause("internal", f"internal error of soakd: {error!r}"[:500], None, at)
        node = known.details.get("node")
        code = known.code if isinstance(known, NodeError) else "refused"
        code = "host" if isinstance(known, HostError) else code
        code = str(known.details.get("cause", code))
        return Cause(code, known.message, None if node is None else str(node), at)
