"""The measuring part of a run: round after round until deadline, round count, or a cut.

Straight-line on purpose: what a round is stands in the scenario's machine, what ends the run is
decided by the run's. Accounting: the deadline is the last instant at which a round may start; the
round under way is finished and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import trio

from soakd.core import rows, run_state
from soakd.core.errors import NodeError
from soakd.core.plan import Plan
from soakd.core.rounds import Cut, NodeDown, NodeIdle, RoundResult, RoundSpec
from soakd.edge.clock import boot_now, sleep_until_boot
from soakd.node import LiveNode
from soakd.records import Records
from soakd.scenarios.source_probe import Player, random_file

CHECKPOINT_EVERY_S = 5.0


def pair_columns(plan: Plan, *, cold: bool) -> rows.Pair:
    """The columns of a round that the plan knows: the first two with the roles."""
    publishers = [node.name for node in plan.nodes if "publisher" in node.roles]
    searchers = [node.name for node in plan.nodes if "searcher" in node.roles]
    # A node that may do both does not search for itself: that would prove nothing.
    pairs = ((one, other) for one in publishers for other in searchers if one != other)
    publisher, searcher = next(pairs)
    return rows.Pair("1", publisher, searcher, f"source:{publisher}>{searcher}", cold)


@dataclass(frozen=True, slots=True)
class Pair:
    """Who publishes, who searches, and everybody whose status is recorded."""

    publisher: LiveNode
    searcher: LiveNode
    everyone: Mapping[str, LiveNode]

    @classmethod
    def of(cls, plan: Plan, nodes: Mapping[str, LiveNode]) -> Pair:
        """The plan's pair among the live nodes."""
        columns = pair_columns(plan, cold=False)
        return cls(nodes[columns.publisher], nodes[columns.searcher], nodes)


class Hearer(Protocol):
    """Who hears of what measuring comes to."""

    def phase_changed(self, *, rests: bool) -> None:
        """The round has come to another step; `rests`: it will stay there for a while."""

    def round_failed(self, number: int, step: str, text: str) -> None:
        """A round became an error."""

    async def store_checkpoint(self) -> None:
        """Stores the counters, now and then."""


class Measure:
    """Plays the rounds of one run; `phase` and `round_number` show where it is.

    Attributes:
        deadline_s: the last instant at which a round may start; may be moved while it plays.
    """

    def __init__(self, plan: Plan, pair: Pair, records: Records, hearer: Hearer) -> None:
        """Prepares; `run` starts.

        Args:
            plan: waits, rechecks and the round target.
            pair: the live nodes.
            records: where rounds go; its last round number is continued.
            hearer: hears of phases and failures, stores checkpoints.
        """
        self.phase: str | None = None
        self.round_number: int | None = records.last_round or None
        self._plan = plan
        self._pair = pair
        self._records = records
        self._hearer = hearer
        self._checkpoint_due_s = boot_now() + CHECKPOINT_EVERY_S
        self.deadline_s: float | None = None
        self._cut: Cut | NodeDown | None = None
        self._player: Player | None = None
        self._pause: trio.CancelScope | None = None
        self._rechecks = 0
        # Without waits thousands of phases pass in a second: nobody needs to see each.
        self._hurries = plan.wait_between_s == 0

    def interrupt(self, event: Cut | NodeDown) -> None:
        """Ends measuring at once; the round under way is recorded with the event as its cause."""
        if self._cut is None:
            self._cut = event
            if self._player is not None:
                self._player.interrupt(event)
            if self._pause is not None:
                self._pause.cancel()

    async def run(self, running: run_state.Running) -> run_state.Event | None:
        """Plays rounds and returns the event that ended them; None when it was interrupted.

        Raises:
            HostError: a record could not be written.
        """
        self.deadline_s = running.deadline_s
        while self._cut is None:
            if self.deadline_s is not None and boot_now() >= self.deadline_s:
                self._records.marker(rows.deadline_reached())
                return run_state.DeadlineReached()
            if self._has_all_rounds:
                return run_state.RoundsDone()
            await self._one_round(running)
            if self._cut is None and not self._has_all_rounds:
                await self._wait_between()
        return None

    @property
    def _has_all_rounds(self) -> bool:
        wanted = self._plan.rounds
        return wanted is not None and self._records.last_round >= wanted

    async def _one_round(self, running: run_state.Running) -> None:
        spec = self._spec(running)
        self.round_number, self._rechecks = spec.number, 0
        remaining_s = None if self.deadline_s is None else self.deadline_s - boot_now()
        self._records.marker(rows.timer(remaining_s, spec.number))
        self._records.marker(rows.round_begin(spec.number, spec.file_id, spec.file_size))
        self._player = Player(
            spec, self._pair.publisher, self._pair.searcher, self._snapshots, self._phase_changed
        )
        try:
            result = await self._player.play()
        finally:
            self._player = None
        if result.outcome == "late":
            self._records.marker(rows.miss_recheck_hit(spec.number, result.rechecks, spec.file_id))
        await self._records.round(result, self._pair.publisher.kad_id)
        self._note_failures(result)
        self._set_phase("wait_between")
        if boot_now() >= self._checkpoint_due_s:
            self._checkpoint_due_s = boot_now() + CHECKPOINT_EVERY_S
            await self._hearer.store_checkpoint()

    def _spec(self, running: run_state.Running) -> RoundSpec:
        plan = self._plan
        file_id, size = random_file()
        pair = pair_columns(plan, cold=running.cold)
        return RoundSpec(
            number=self._records.last_round + 1,
            measurement=pair.measurement,
            publisher=pair.publisher,
            searcher=pair.searcher,
            flow=pair.flow,
            file_id=file_id,
            file_size=size,
            cold=pair.cold,
            wait_publish_s=plan.wait_publish_s,
            wait_search_s=plan.wait_search_s,
            read_every_s=plan.read_every_s,
            recheck_attempts=plan.miss_recheck_attempts,
            recheck_delay_s=plan.miss_recheck_delay_s,
        )

    async def _snapshots(self, doubts: bool) -> NodeIdle | None:  # noqa: FBT001 (a step's argument)
        player = self._player
        idle = None
        if doubts and player is not None:
            # Before the snapshots: in them it shows whether a loop began anew.
            idle = await self._silent(player.spec.file_id)
        failures = []
        for name, node in self._pair.everyone.items():
            try:
                self._records.round_status(name, await node.status())
            except NodeError as error:
                failures.append(f"{name}: {error.message}")
        if doubts and player is not None:
            idle = idle or self._idle(player.began_s)
            if idle is not None:
                return idle
        publisher = self._pair.publisher
        if publisher.kad_id is None and player is not None:
            await publisher.learn_kad_id(player.spec.file_id)
        if failures:
            raise NodeError(
                "no_snapshot", f"cannot take the status snapshots: {'; '.join(failures)}"
            )
        return None

    async def _silent(self, file_id: str) -> NodeIdle | None:
        """Whether the publisher does not answer for its own table.

        One whose service loop stands says `queued` all the same: its table tells the truth.
        """
        try:
            await self._pair.publisher.sources(file_id)
        except NodeError as error:
            return NodeIdle(self._pair.publisher.name, error.message)
        return None

    def _idle(self, since_s: float) -> NodeIdle | None:
        """Whether the service loop of a node stood still during the round."""
        for node in (self._pair.publisher, self._pair.searcher):
            if node.was_idle(since_s):
                text = f"the service loop of node {node.name} stood still or began anew meanwhile"
                return NodeIdle(node.name, text)
        return None

    def _note_failures(self, result: RoundResult) -> None:
        if result.error is not None:
            step, text = result.error
            self._records.marker(rows.warn(f"round={result.spec.number} {step} failed: {text}"))
            self._hearer.round_failed(result.spec.number, step, text)
        for step, text in result.notes:
            self._records.event(
                "step_failed", None, {"round": result.spec.number, "step": step, "text": text}
            )

    def _phase_changed(self, phase: str) -> None:
        # Without a delay the recheck follows at once, and its wait is not to be seen.
        begins = phase == "wait_recheck" or (phase == "recheck" and self.phase != "wait_recheck")
        if begins and self._player is not None:
            self._rechecks += 1
            spec = self._player.spec
            self._records.marker(
                rows.miss_recheck(spec.number, self._rechecks, spec.recheck_delay_s, spec.file_id)
            )
        self._set_phase(phase)

    def _set_phase(self, phase: str) -> None:
        if phase != self.phase:
            self.phase = phase
            self._hearer.phase_changed(rests=phase.startswith("wait_") and not self._hurries)

    async def _wait_between(self) -> None:
        until_s = boot_now() + self._plan.wait_between_s
        if self.deadline_s is not None:
            until_s = min(until_s, self.deadline_s)
        with trio.CancelScope() as self._pause:
            await sleep_until_boot(until_s)
        self._pause = None
