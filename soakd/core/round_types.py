"""What goes into a round and what comes out: spec, events, orders, result.

Plain values only. The machine that connects them is `soakd.core.rounds`, which also
re-exports all of them: import from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from soakd.core.model import NodeName, Outcome


@dataclass(frozen=True, slots=True)
class RoundSpec:
    """One round as it is to be made.

    Attributes:
        number: From 1, without holes within a run.
        flow: Which pairing this is, such as `source:a>b`.
        file_id: 32 hex digits.
        cold: The warm-up timed out, so the round is judged apart.
        wait_publish_s: 0 means no wait; so do the other waits.
        read_every_s: Distance of dating reads while waiting for the search, 0 = off.
        recheck_attempts: Further reads after a miss, 0 = none.
        published_s: When the round before has published what this one looks for; None: it
            publishes itself.
        first_sight_decides: A dating read that finds it ends the wait, as polls do.
    """

    number: int
    measurement: str
    publisher: NodeName
    searcher: NodeName
    flow: str
    file_id: str
    file_size: int
    cold: bool
    wait_publish_s: float
    wait_search_s: float
    read_every_s: float
    recheck_attempts: int
    recheck_delay_s: float
    published_s: float | None = None
    first_sight_decides: bool = False


@dataclass(frozen=True, slots=True)
class RoundResult:
    """What came of a round.

    Attributes:
        cause: `cut:<why>` or `node_down:<node>` if the round was ended from outside.
        prestored: The searcher had the file before it searched.
        source_ids: Sources of the last read that showed any.
        first_seen_s: Seconds from the publish answer to the first read with a source.
        rechecks: Rechecks begun.
        error: Step and text of what made the round an `error`.
        notes: Step and text of failures that decide nothing.
        final_body: Body of the last deciding read, empty if there was none.
        publish_at_s: When publish was answered, in the caller's clock.
    """

    spec: RoundSpec
    outcome: Outcome
    cause: str | None
    prestored: bool
    source_ids: tuple[str, ...]
    first_seen_s: float | None
    rechecks: int
    error: tuple[str, str] | None
    notes: tuple[tuple[str, str], ...]
    publish_body: str
    search_body: str
    final_body: str
    publish_at_s: float | None
    started_at_s: float
    ended_at_s: float


@dataclass(frozen=True, slots=True)
class Answered:
    """The call was answered; `sources` are the source ids in it (reads only)."""

    body: str
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CallFailed:
    """The call got no usable answer; `body` is what came instead, if anything."""

    text: str
    body: str = ""


@dataclass(frozen=True, slots=True)
class Woke:
    """The sleep ended; waking early is harmless."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The round is ended from outside, such as by a stop."""

    why: str


@dataclass(frozen=True, slots=True)
class NodeDown:
    """A node of the round is gone."""

    node: NodeName


@dataclass(frozen=True, slots=True)
class NodeIdle:
    """A node has not done its part of a round that looks like a miss."""

    node: NodeName
    text: str


Event: TypeAlias = Answered | CallFailed | Woke | Cut | NodeDown | NodeIdle


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish the file on the publisher."""


@dataclass(frozen=True, slots=True)
class EarlyRead:
    """Read the searcher's sources before it searches."""


@dataclass(frozen=True, slots=True)
class Search:
    """Search the file on the searcher."""


@dataclass(frozen=True, slots=True)
class DatingRead:
    """Read the searcher's sources to date the first sight; decides nothing."""


@dataclass(frozen=True, slots=True)
class DecidingRead:
    """Read the searcher's sources to classify the round; `attempt` > 0 is a recheck."""

    attempt: int = 0


@dataclass(frozen=True, slots=True)
class TakeSnapshots:
    """Read the status of both nodes; one event answers for the pair.

    Attributes:
        doubts: The round looks like a miss: did both nodes do their part?
    """

    doubts: bool = False


@dataclass(frozen=True, slots=True)
class SleepUntil:
    """Sleep until this instant of the caller's clock."""

    t_s: float


@dataclass(frozen=True, slots=True)
class Finished:
    """Nothing is left to do but to record the result."""

    result: RoundResult


Do: TypeAlias = (
    Publish | EarlyRead | Search | DatingRead | DecidingRead | TakeSnapshots | SleepUntil | Finished
)
