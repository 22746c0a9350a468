"""How long each state of a run may last. Import from `soakd.core.run_state`."""

from __future__ import annotations

from dataclasses import dataclass

from soakd.core.plan_shape import Plan, ladder_s, longest_round_s, running_s, warmup_s

CLEAN_UP_S = 60.0
"""What the end of a run may take besides its ladder: a cut round, the shim's end, forced kills."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long each state may last, in seconds.

    Attributes:
        duration_s: From the first round to the deadline; None: the round count decides.
        running_s: The longest that `Running` can take, its last round included.
        stopping_s: The ladder and the clean-up behind it.
        needs_warmth: Without a warm-up in time there are no rounds.
        keeps: The nodes are kept for rounds that are asked for.
    """

    staging_s: float
    ready_s: float
    warmup_s: float
    duration_s: float | None
    running_s: float
    stopping_s: float
    needs_warmth: bool = False
    keeps: bool = False

    @classmethod
    def of(cls, plan: Plan) -> Limits:
        """Return the limits that a plan sets."""
        return cls(
            staging_s=plan.staging_timeout_s,
            ready_s=plan.ready_timeout_s,
            warmup_s=warmup_s(plan),
            duration_s=plan.duration_s,
            running_s=running_s(plan) + longest_round_s(plan),
            stopping_s=ladder_s(plan) + CLEAN_UP_S,
            needs_warmth=bool(plan.warmup) and plan.warmup_on_timeout == "end",
            keeps=plan.no_rounds,
        )

    @property
    def all_s(self) -> float:
        """The longest that a run can take from its slot to its end."""
        return self.staging_s + self.ready_s + self.warmup_s + self.running_s + self.stopping_s
