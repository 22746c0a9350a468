"""Nodes that are kept: rounds are asked for while they live, one soak after the other.

Each soak has a plan, a number and a verdict of its own; round numbers go on. What a soak comes to
is told to the run's owner and written down as an event, from which a later soakd knows it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import trio

from soakd.core import gates, run_state, stats
from soakd.core.gates import Facts
from soakd.core.model import Cause, Result
from soakd.core.plan import Plan, flows_per_round
from soakd.core.rounds import Cut, NodeDown
from soakd.core.run_state import Soak
from soakd.core.section import Section
from soakd.core.soak_plan import soak_plan
from soakd.edge.clock import boot_now, sleep_until_boot
from soakd.measure import Hearer, Measure
from soakd.node import LiveNode
from soakd.observer import Observer
from soakd.records import Records
from soakd.warming import Warmer


class Owner(Protocol):
    """What measuring needs of its run."""

    plan: Plan
    state: run_state.State

    async def tell(self, event: run_state.Event, uid: int | None = None) -> run_state.State:
        """Hands over an event and returns the state after it."""

    def progress(self, *, rests: bool = False) -> None:
        """Shows watchers where the run is; `rests`: it stays there for a while."""


class Keeper:
    """Keeps the nodes of one run until its deadline; `ask` gives it something to do.

    Attributes:
        measure: the rounds under way; None: the nodes idle, or are warmed up for a soak.
        is_soaking: a soak is under way; cut, it is judged and written down.
        deadline_s: when the nodes are kept no longer (boot clock); may be moved.
    """

    def __init__(
        self,
        owner: Owner,
        nodes: Mapping[str, LiveNode],
        records: Records,
        observer: Observer,
        hearer: Hearer,
    ) -> None:
        """Does nothing before `run`."""
        self.measure: Measure | None = None
        self.is_soaking = False
        self.deadline_s: float | None = None
        self._owner = owner
        self._nodes = nodes
        self._records = records
        self._observer = observer
        self._hearer = hearer
        self._soak: Soak | None = None
        self._cut: Cut | NodeDown | None = None
        self._news = trio.Event()

    def ask(self, soak: Soak) -> None:
        """Begins a soak, as soon as `run` comes to it."""
        self._soak = soak
        self._wake()

    def cut(self, event: Cut | NodeDown) -> None:
        """Ends everything at once; the round under way is recorded with the event as its cause."""
        self._cut = event
        if self.measure is not None:
            self.measure.interrupt(event)
        self._wake()

    def lengthen(self, deadline_s: float | None) -> None:
        """Keeps the nodes until another time; a soak that this would have cut goes on as well."""
        self.deadline_s = deadline_s
        state = self._owner.state
        if (
            self.measure is not None
            and isinstance(state, run_state.Running)
            and state.soak is not None
        ):
            self.measure.deadline_s = state.soak.deadline_s
        self._wake()

    async def run(self, running: run_state.Running) -> None:
        """Plays soaks until the deadline, or until it is cut."""
        self.deadline_s = running.deadline_s
        if running.soak is not None:
            self.ask(running.soak)
        while self._cut is None:
            soak, self._soak = self._soak, None
            if soak is not None:
                ended = await self._ended(soak)
                if ended is None:
                    return
                if not isinstance(await self._owner.tell(ended), run_state.Running):
                    return
            elif self._is_over:
                await self._owner.tell(run_state.DeadlineReached())
                return
            else:
                await self._wait(self.deadline_s)

    @property
    def _is_over(self) -> bool:
        return self.deadline_s is not None and boot_now() >= self.deadline_s

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def _wait(self, until_s: float | None) -> None:
        """Until something is asked for or changed, or a time has come."""
        async with trio.open_nursery() as nursery:
            if until_s is not None:
                nursery.start_soon(_sleep_then_cancel, until_s, nursery.cancel_scope)
            await self._news.wait()
            nursery.cancel_scope.cancel()

    async def _ended(self, soak: Soak) -> run_state.DeadlineReached | run_state.RoundsDone | None:
        """Plays a soak and returns what ended it; None when it was cut."""
        if is_booked(soak, self._records):
            return run_state.RoundsDone()
        return await self._play(soak)

    async def _play(self, soak: Soak) -> run_state.DeadlineReached | run_state.RoundsDone | None:
        plan = soak_plan(self._owner.plan, soak.keys)
        self.is_soaking = True
        is_new = self._records.last_round == soak.base
        windows_s = gates.windows_of(plan.gates)
        await self._records.begin_part(soak.number, windows_s, is_new=is_new)
        if self._records.begun_soak != soak.number:
            self._observer.event("soak_begun", None, _begun(soak, plan))
        if is_new and (plan.warmup or plan.scenario == "dht_selftest"):
            await self._warm_up(soak, plan)
        section = Section(soak.number, plan, soak.base)
        measure = self.measure = Measure(section, self._nodes, self._records, self._hearer)
        if self._cut is not None:
            measure.interrupt(self._cut)
        ended = await measure.run(self._soak_deadline_s(soak), cold=self._records.is_cold)
        self.measure = None
        book(soak, plan, self._observer, *self._result())
        self.is_soaking = False
        return ended

    async def _warm_up(self, soak: Soak, plan: Plan) -> None:
        """Waits until the nodes are warm, for no longer than rounds of the soak may start."""
        # An earlier soakd may have found them cold and was killed before the first round.
        self._records.is_cold = False
        warmer = Warmer(plan, self._nodes, self._observer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_over, soak, nursery.cancel_scope)
            await warmer.run(self._owner.progress)
            nursery.cancel_scope.cancel()

    async def _cancel_when_over(self, soak: Soak, scope: trio.CancelScope) -> None:
        while self._cut is None:
            until_s = self._soak_deadline_s(soak)
            if until_s is not None and boot_now() >= until_s:
                break
            await self._wait(until_s)
        scope.cancel()

    def _soak_deadline_s(self, soak: Soak) -> float | None:
        """Until when its rounds may start by now: its run may have been extended."""
        state = self._owner.state
        if isinstance(state, run_state.Running) and state.soak is not None:
            return state.soak.deadline_s
        return soak.deadline_s

    def _result(self) -> tuple[Result, Cause | None]:
        match self._cut:
            case None:
                return "completed", None
            case NodeDown(node=node):
                return "failed", Cause("node_exited", f"node {node} ended by itself", node)
            case Cut(why=why):
                return "stopped", Cause("stop_asked", f"the run was ended: {why}")


def book(
    soak: Soak, plan: Plan, observer: Observer, result: Result, cause: Cause | None = None
) -> None:
    """Judges a soak by its own rounds and writes down what came of it, unless that is done.

    Args:
        soak: what has ended.
        plan: the soak's.
        observer: where it is written down.
        result: how it ended: `completed`, or what cut it off.
        cause: why, unless it was completed.
    """
    records = observer.records
    if records is None or is_booked(soak, records):
        return
    if records.part is None:
        # An earlier soakd has played it, or nobody has come to it.
        records.resume_part(soak.number, gates.windows_of(plan.gates))
    series, records.part = records.part, None
    assert series is not None, "a soak has no sums"
    whole_s = boot_now() - soak.since_s
    lost_s = max(0.0, observer.gap_s - soak.gap_s)
    measured = 1.0 if whole_s <= 0 else max(0.0, 1 - lost_s / whole_s)
    # One is all there can be: it ends the run.
    exits = 1 if cause is not None and cause.code == "node_exited" else 0
    facts = Facts(series, exits, records.panics - soak.panics, measured)
    results = gates.judge(plan.gates, facts)
    verdict, why = gates.verdict(result, cause, results)
    observer.event(
        "soak_ended",
        None,
        {
            **_begun(soak, plan),
            "rounds": stats.public_counts(series.rounds.counters),
            "verdict": verdict,
            "why": why,
            "gates": [item.to_dict() for item in results],
        },
    )


def is_booked(soak: Soak, records: Records) -> bool:
    """Whether it has its verdict: an earlier soakd may have been killed just behind it."""
    return any(known.get("number") == soak.number for known in records.soaks)


def _begun(soak: Soak, plan: Plan) -> dict[str, Any]:
    """What is known of a soak from its beginning on."""
    wanted = None if plan.rounds is None else plan.rounds * flows_per_round(plan)
    return {
        "number": soak.number,
        "scenario": plan.scenario,
        "first_round": soak.base + 1,
        "rounds_wanted": wanted,
    }


def shown(soak: Soak | None, plan: Plan) -> dict[str, Any] | None:
    """A soak under way as `status` shows it."""
    if soak is None:
        return None
    left_s = None if soak.deadline_s is None else max(0.0, round(soak.deadline_s - boot_now(), 3))
    return {**_begun(soak, soak_plan(plan, soak.keys)), "remaining_s": left_s}


def without_gates(ended: Mapping[str, Any]) -> dict[str, Any]:
    """A soak that has ended as `status` shows it."""
    return {key: value for key, value in ended.items() if key != "gates"}


async def _sleep_then_cancel(until_s: float, scope: trio.CancelScope) -> None:
    await sleep_until_boot(until_s)
    scope.cancel()
