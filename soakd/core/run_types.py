"""States and events of a run. Import them from `soakd.core.run_state`.

All times are seconds of the caller's clock, which must not stop while the host sleeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from soakd.core.model import Cause, NodeName, Result, Verdict


@dataclass(frozen=True, slots=True)
class Queued:
    """Waiting for a slot: the only state that may wait without a time."""


@dataclass(frozen=True, slots=True)
class Staging:
    """The node folders are being copied, edited and checked."""

    until_s: float


@dataclass(frozen=True, slots=True)
class Starting:
    """The nodes are launched; readiness is awaited."""

    until_s: float


@dataclass(frozen=True, slots=True)
class Warming:
    """All nodes are ready; the plan's warm-up conditions are awaited."""

    until_s: float


@dataclass(frozen=True, slots=True)
class Soak:
    """Rounds that were asked for while the nodes are kept.

    Attributes:
        number: From 1; `measurement` in the records of its rounds.
        base: The number of the last round before it.
        keys: The keys of the plan that were asked for.
        since_s: When it was asked for.
        deadline_s: Last instant at which a round of it may start; None: their number ends it.
        gap_s: For how long nobody had measured before it.
        panics: How many panics there had been before it.
    """

    number: int
    base: int
    keys: Mapping[str, Any]
    since_s: float
    deadline_s: float | None = None
    gap_s: float = 0.0
    panics: int = 0


@dataclass(frozen=True, slots=True)
class Running:
    """Rounds are being made, or the nodes are kept for rounds that are asked for.

    Attributes:
        since_s: The duration counts from here.
        deadline_s: Last instant at which a round may start; None: the round count decides.
        until_s: The end even if no event comes.
        cold: Warm-up timed out, so rounds are judged apart.
        soak: What kept nodes are used for now; None: they idle, or rounds are the plan's own.
    """

    since_s: float
    deadline_s: float | None
    until_s: float
    cold: bool = False
    soak: Soak | None = None


@dataclass(frozen=True, slots=True)
class Stopping:
    """The ladder is being walked; the result stands already.

    Attributes:
        soak: What kept nodes were used for when the end was decided; it is owed a verdict.
    """

    result: Result
    cause: Cause | None
    until_s: float
    soak: Soak | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """Over, and never overwritten."""

    result: Result
    cause: Cause | None
    verdict: Verdict
    why: str


State: TypeAlias = Queued | Staging | Starting | Warming | Running | Stopping | Finished


@dataclass(frozen=True, slots=True)
class SlotGranted:
    """The queue let the run go."""


@dataclass(frozen=True, slots=True)
class Staged:
    """All node folders are in place and checked."""


@dataclass(frozen=True, slots=True)
class AllReady:
    """Every node answers 200."""


@dataclass(frozen=True, slots=True)
class Warmed:
    """The warm-up conditions hold, or there are none."""


@dataclass(frozen=True, slots=True)
class NotWarm:
    """The warm-up conditions did not hold in the plan's time; `text` says what was seen last."""

    text: str


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """The deadline is past and no round is under way any more."""


@dataclass(frozen=True, slots=True)
class RoundsDone:
    """The plan's number of rounds is made."""


@dataclass(frozen=True, slots=True)
class SoakAsked:
    """Somebody wants rounds of kept nodes that idle."""

    soak: Soak


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Someone asked for the end."""

    who: str


@dataclass(frozen=True, slots=True)
class Extended:
    """Rounds may start for so much longer."""

    by_s: float


@dataclass(frozen=True, slots=True)
class NodeExited:
    """A node ended by itself; `text` says how."""

    node: NodeName
    text: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The run cannot go on."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class Aborted:
    """The run was taken away, such as by a reboot."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The state's own end (`deadline_of`) is past; `detail` says what was still waited for."""

    detail: str = ""


@dataclass(frozen=True, slots=True)
class LadderDone:
    """No process of the run is left, and the verdict is known."""

    verdict: Verdict
    why: str


Event: TypeAlias = (
    SlotGranted
    | Staged
    | AllReady
    | Warmed
    | NotWarm
    | DeadlineReached
    | RoundsDone
    | SoakAsked
    | StopAsked
    | Extended
    | NodeExited
    | Failed
    | Aborted
    | TimedOut
    | LadderDone
)
