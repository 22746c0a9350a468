"""The part of a run in which a plan's rounds are played: one measurement."""

from __future__ import annotations

from dataclasses import dataclass

from soakd.core.flows import Flow, flow_at
from soakd.core.plan_shape import Plan, flows_per_round
from soakd.core.rows import Pair


@dataclass(frozen=True, slots=True)
class Section:
    """One measurement.

    Attributes:
        number: From 1; rounds of a run go on through all its measurements.
        plan: What is measured, and how.
        base: The number of the last round before it.
    """

    number: int
    plan: Plan
    base: int = 0

    def flow(self, round_number: int) -> Flow:
        """What a round of this measurement is about."""
        return flow_at(self.plan, round_number - self.base - 1)

    def columns(self, round_number: int, *, cold: bool) -> Pair:
        """The columns of a round that do not come from the round itself."""
        flow = self.flow(round_number)
        return Pair(str(self.number), flow.publisher, flow.searcher, flow.name, cold)

    def has_all(self, last_round: int) -> bool:
        """Whether that was its last round."""
        wanted = self.plan.rounds
        return wanted is not None and last_round - self.base >= wanted * flows_per_round(self.plan)
