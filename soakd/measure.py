"""The measuring part of a run: round after round until deadline, round count, or a cut.

Straight-line on purpose: what a round is stands in the scenario's machine, what ends the run is
decided by the run's. Accounting: the deadline is the last instant at which a round may start; the
round under way is finished and counted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Protocol

import trio

from soakd.core import rows, run_state
from soakd.core.errors import NodeError
from soakd.core.flows import SELFTEST, Flow
from soakd.core.rounds import Cut, NodeDown, NodeIdle, RoundResult, RoundSpec
from soakd.core.section import Section
from soakd.edge.clock import boot_now, sleep_until_boot
from soakd.node import LiveNode
from soakd.records import Records
from soakd.scenarios.dht_selftest import Looks
from soakd.scenarios.making import CallsMaker
from soakd.scenarios.player import Player, unheard
from soakd.scenarios.source_probe import File

CHECKPOINT_EVERY_S = 5.0


class Hearer(Protocol):
    """Who hears of what measuring comes to."""

    def phase_changed(self, *, rests: bool) -> None:
        """The round has come to another step; `rests`: it will stay there for a while."""

    def round_failed(self, number: int, step: str, text: str) -> None:
        """A round became an error."""

    async def store_checkpoint(self) -> None:
        """Stores the counters, now and then."""


class Measure:
    """Plays the rounds of one measurement; `phase`, `round_number` and `flow` show where it is.

    Attributes:
        deadline_s: the last instant at which a round may start; may be moved while it plays.
    """

    def __init__(
        self, section: Section, nodes: Mapping[str, LiveNode], records: Records, hearer: Hearer
    ) -> None:
        """Prepares; `run` starts.

        Args:
            section: waits, rechecks, the round target, and who measures with whom.
            nodes: the live nodes by name.
            records: where rounds go; its last round number is continued.
            hearer: hears of phases and failures, stores checkpoints.
        """
        self.phase: str | None = None
        self.round_number: int | None = records.last_round or None
        self.flow: str | None = None
        self._section = section
        self._plan = section.plan
        self._nodes = nodes
        self._records = records
        self._hearer = hearer
        self._checkpoint_due_s = boot_now() + CHECKPOINT_EVERY_S
        self.deadline_s: float | None = None
        self._cut: Cut | NodeDown | None = None
        self._player: Player | None = None
        self._pause: trio.CancelScope | None = None
        self._rechecks = 0
        self._is_selftest = section.plan.scenario == SELFTEST
        hear = self.answer if self._is_selftest else unheard
        self._maker = CallsMaker(section.plan, nodes, hear)
        self._looks = Looks(section.plan, nodes, self)
        # Without waits thousands of phases pass in a second: nobody needs to see each.
        self._hurries = section.plan.wait_between_s == 0

    def interrupt(self, event: Cut | NodeDown) -> None:
        """Ends measuring at once; the round under way is recorded with the event as its cause."""
        if self._cut is None:
            self._cut = event
            if self._player is not None:
                self._player.interrupt(event)
            if self._pause is not None:
                self._pause.cancel()

    async def run(
        self, deadline_s: float | None, *, cold: bool
    ) -> run_state.DeadlineReached | run_state.RoundsDone | None:
        """Plays rounds and returns the event that ended them; None when it was interrupted.

        Args:
            deadline_s: no round starts from then on (boot clock); None: the number of rounds ends
                it.
            cold: the warm-up timed out.

        Raises:
            HostError: a record could not be written.
        """
        self.deadline_s = deadline_s
        while self._cut is None:
            if self.deadline_s is not None and boot_now() >= self.deadline_s:
                self._records.marker(rows.deadline_reached())
                await self._finish()
                return run_state.DeadlineReached()
            if self._section.has_all(self._records.last_round):
                await self._finish()
                return run_state.RoundsDone()
            flow = self._section.flow(self._records.last_round + 1)
            await self._one_round(flow, cold=cold)
            if self._is_selftest and self._cut is None:
                await self._interruptible(self._looks.after(flow))
            if (
                self._cut is None
                and flow.rests
                and not self._section.has_all(self._records.last_round)
            ):
                await self._wait_between()
        return None

    async def _finish(self) -> None:
        if self._is_selftest:
            await self._interruptible(self._looks.at_end())

    async def _one_round(self, flow: Flow, *, cold: bool) -> None:
        number = self._records.last_round + 1
        file, calls, published_s = self._maker.make(flow)
        spec = self._spec(self._section.columns(number, cold=cold), number, file, published_s)
        self.round_number, self.flow, self._rechecks = spec.number, spec.flow, 0
        remaining_s = None if self.deadline_s is None else self.deadline_s - boot_now()
        self._records.marker(rows.timer(remaining_s, spec.number))
        self._records.marker(rows.round_begin(spec.number, spec.file_id, spec.file_size))
        self._player = Player(spec, calls, self._snapshots, self._phase_changed)
        try:
            result = await self._player.play()
        finally:
            self._player = None
        self._maker.published(result.publish_at_s)
        if result.outcome == "late":
            self._records.marker(rows.miss_recheck_hit(spec.number, result.rechecks, spec.file_id))
        await self._records.round(result, self._nodes[flow.publisher].kad_id)
        self._note_failures(result)
        self._set_phase("wait_between")
        if boot_now() >= self._checkpoint_due_s:
            self._checkpoint_due_s = boot_now() + CHECKPOINT_EVERY_S
            await self._hearer.store_checkpoint()

    def _spec(
        self, columns: rows.Pair, number: int, file: File, published_s: float | None
    ) -> RoundSpec:
        plan = self._plan
        is_keyword = columns.flow.startswith("keyword:")
        in_selftest = self._is_selftest and not is_keyword
        return RoundSpec(
            number=number,
            measurement=columns.measurement,
            publisher=columns.publisher,
            searcher=columns.searcher,
            flow=columns.flow,
            file_id=file.file_id,
            file_size=file.size_bytes,
            cold=columns.cold,
            wait_publish_s=plan.wait_publish_s,
            wait_search_s=plan.wait_sources_s if in_selftest else plan.wait_search_s,
            read_every_s=plan.read_every_s,
            recheck_attempts=plan.miss_recheck_attempts,
            recheck_delay_s=plan.miss_recheck_delay_s,
            published_s=published_s,
            first_sight_decides=is_keyword,
        )

    async def _snapshots(self, doubts: bool) -> NodeIdle | None:  # noqa: FBT001 (a step's argument)
        player = self._player
        assert player is not None, "snapshots are taken within a round"
        idle = None
        if doubts:
            # Before the snapshots: in them it shows whether a loop began anew.
            idle = await self._silent(player)
        failures = await self._all_status()
        if doubts:
            idle = idle or self._idle(player)
            if idle is not None:
                return idle
        publisher = self._nodes[player.spec.publisher]
        if publisher.kad_id is None and player.spec.flow.startswith("source:"):
            await publisher.learn_kad_id(player.spec.file_id)
        if failures:
            raise NodeError(
                "no_snapshot", f"cannot take the status snapshots: {'; '.join(failures)}"
            )
        return None

    async def _all_status(self) -> list[str]:
        """Records the status of every node, asked all at once; returns what failed."""
        answers: dict[str, str] = {}
        failed: dict[str, str] = {}

        async def ask(name: str, node: LiveNode) -> None:
            try:
                answers[name] = await node.status()
            except NodeError as error:
                failed[name] = error.message

        async with trio.open_nursery() as nursery:
            for name, node in self._nodes.items():
                nursery.start_soon(ask, name, node)
        for name in self._nodes:
            if name in answers:
                self._records.round_status(name, answers[name])
        return [f"{name}: {failed[name]}" for name in self._nodes if name in failed]

    async def _silent(self, player: Player) -> NodeIdle | None:
        """Whether the publisher does not answer for its own part.

        One whose service loop stands says `queued` all the same: its table tells the truth.
        """
        try:
            await player.calls.ask_publisher()
        except NodeError as error:
            return NodeIdle(player.spec.publisher, error.message)
        return None

    def _idle(self, player: Player) -> NodeIdle | None:
        """Whether the service loop of a node stood still during the round."""
        for name in dict.fromkeys((player.spec.publisher, player.spec.searcher)):
            if self._nodes[name].was_idle(player.began_s):
                text = f"the service loop of node {name} stood still or began anew meanwhile"
                return NodeIdle(name, text)
        return None

    # -- what a self-test hears ----------------------------------------------------------------

    def answer(self, node: str, step: str, body: str) -> None:
        """Keeps a raw answer of a self-test."""
        self._records.answer(node, step, self.round_number, body)

    def event(self, kind: str, node: str | None, data: Mapping[str, Any]) -> None:
        """Notes a look that failed."""
        self._records.event(kind, node, data)

    # -- inner ---------------------------------------------------------------------------------

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
        await self._interruptible(sleep_until_boot(until_s))

    async def _interruptible(self, what: Awaitable[object]) -> None:
        """Does what no round waits for; `interrupt` ends it."""
        with trio.CancelScope() as self._pause:
            await what
        self._pause = None
