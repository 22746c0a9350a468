"""The measuring of one run: the plan's own rounds, or those that are asked for while it lives.

Knows what is played now; decides nothing about the run. While it lasts every node's status and
process are sampled.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import trio

from soakd.core import rows, run_state
from soakd.core.plan import Plan
from soakd.core.rounds import Cut, NodeDown
from soakd.core.section import Section
from soakd.core.soak_plan import soak_plan
from soakd.edge.clock import boot_now, wall_now
from soakd.keeping import Keeper, Owner, book, shown, without_gates
from soakd.measure import Measure
from soakd.node import LiveNode
from soakd.observer import Observer
from soakd.records import Records


def section_of(plan: Plan, state: run_state.State) -> Section:
    """What is measured in a state, or was when an earlier soakd ended."""
    soak = state.soak if isinstance(state, run_state.Running | run_state.Stopping) else None
    if soak is None:
        return Section(1, plan)
    return Section(soak.number, soak_plan(plan, soak.keys), soak.base)


class Measuring:
    """What is measured of one run, once `run` plays it."""

    def __init__(
        self, owner: Owner, observer: Observer, store_checkpoint: Callable[[], Awaitable[None]]
    ) -> None:
        """Nothing is measured yet."""
        self._store_checkpoint = store_checkpoint
        self._owner = owner
        self._observer = observer
        self._measure: Measure | None = None
        self._keeper: Keeper | None = None
        self._cut: Cut | NodeDown | None = None

    @property
    def playing(self) -> Measure | None:
        """The rounds under way."""
        return self._measure if self._keeper is None else self._keeper.measure

    @property
    def can_be_cut(self) -> bool:
        """Whether something goes on that comes to its end by itself once it is cut."""
        is_soaking = self._keeper is not None and self._keeper.is_soaking
        return is_soaking or self.playing is not None

    def status(self, state: run_state.State) -> dict[str, object]:
        """Where it is, as `status` shows it."""
        playing, records = self.playing, self._observer.records
        is_running = isinstance(state, run_state.Running)
        last = None if records is None else records.last_round or None
        soak = state.soak if isinstance(state, run_state.Running) else None
        return {
            "phase": playing.phase if playing is not None and is_running else None,
            "round": last if playing is None else playing.round_number,
            "flow": None if playing is None else playing.flow,
            "soak": shown(soak, self._owner.plan),
            "soaks": [] if records is None else list(map(without_gates, records.soaks)),
        }

    def cut(self, event: Cut | NodeDown) -> None:
        """Ends the rounds now; the one under way is recorded with the event as its cause."""
        self._cut = event
        if self._measure is not None:
            self._measure.interrupt(event)
        if self._keeper is not None:
            self._keeper.cut(event)

    def settle(self, stopping: run_state.Stopping) -> None:
        """Judges the soak that the end of the run has cut off, if nobody could do it then."""
        soak = stopping.soak
        if soak is not None:
            plan = soak_plan(self._owner.plan, soak.keys)
            book(soak, plan, self._observer, stopping.result, stopping.cause)

    def ask(self, soak: run_state.Soak) -> None:
        """Begins rounds on kept nodes."""
        assert self._keeper is not None, "rounds were asked of nodes that are not kept"
        self._keeper.ask(soak)

    def lengthen(self, deadline_s: float | None) -> None:
        """Lets rounds start, or keeps the nodes, until another time."""
        if self._measure is not None:
            self._measure.deadline_s = deadline_s
        if self._keeper is not None:
            self._keeper.lengthen(deadline_s)

    async def run(
        self, running: run_state.Running, nodes: Mapping[str, LiveNode], records: Records
    ) -> None:
        """Measures to the end, which it tells the owner, or until it is cut."""
        plan = self._owner.plan
        if records.last_round == 0:
            left_s = None if running.deadline_s is None else running.deadline_s - boot_now()
            deadline = None if left_s is None else wall_now() + left_s
            records.marker(rows.soak_start(plan.duration_s, deadline))
        async with trio.open_nursery() as nursery:
            for node in nodes.values():
                nursery.start_soon(node.watch_status)
                nursery.start_soon(node.watch_resources)
            if plan.no_rounds:
                await self._keep(running, nodes, records)
            else:
                await self._play(running, nodes, records)
            nursery.cancel_scope.cancel()

    async def _keep(
        self, running: run_state.Running, nodes: Mapping[str, LiveNode], records: Records
    ) -> None:
        keeper = self._keeper = Keeper(self._owner, nodes, records, self._observer, self)
        if self._cut is not None:
            keeper.cut(self._cut)
        await keeper.run(running)

    async def _play(
        self, running: run_state.Running, nodes: Mapping[str, LiveNode], records: Records
    ) -> None:
        section = section_of(self._owner.plan, running)
        measure = self._measure = Measure(section, nodes, records, self)
        if self._cut is not None:
            measure.interrupt(self._cut)
        ended = await measure.run(running.deadline_s, cold=running.cold)
        if ended is not None:
            await self._owner.tell(ended)

    # -- what measuring hears ------------------------------------------------------------------

    def phase_changed(self, *, rests: bool) -> None:
        """The round has come to another step."""
        self._owner.progress(rests=rests)

    def round_failed(self, number: int, step: str, text: str) -> None:
        """A round became an error."""
        self._observer.round_error(number, step, text)

    async def store_checkpoint(self) -> None:
        """Stores the counters, now and then."""
        await self._store_checkpoint()
