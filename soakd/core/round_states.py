"""The states of a round; only `soakd.core.rounds` makes them.

Each carries the `Record` of the round so far as one value: a round may be cut anywhere, and
its record has the same columns whatever was reached.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from soakd.core.model import Outcome
    from soakd.core.round_types import RoundResult, RoundSpec


@dataclass(frozen=True, slots=True)
class Record:
    """What a round has gathered so far."""

    spec: RoundSpec
    started_at_s: float
    publish_at_s: float | None = None
    publish_body: str = ""
    search_body: str = ""
    final_body: str = ""
    prestored: bool = False
    source_ids: tuple[str, ...] = ()
    first_seen_s: float | None = None
    rechecks: int = 0
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Publishing:
    """The publish call is under way."""

    record: Record


@dataclass(frozen=True, slots=True)
class WaitingPublish:
    """The network is given time to carry the publish."""

    record: Record
    until_s: float


@dataclass(frozen=True, slots=True)
class EarlyReading:
    """The read before the search is under way."""

    record: Record


@dataclass(frozen=True, slots=True)
class Searching:
    """The search call is under way."""

    record: Record


@dataclass(frozen=True, slots=True)
class WaitingSearch:
    """Answers are given time to come; `dating_at_s` is None when no dating read is due."""

    record: Record
    until_s: float
    dating_at_s: float | None


@dataclass(frozen=True, slots=True)
class DatingReading:
    """A dating read is under way within the wait for the search."""

    record: Record
    until_s: float


@dataclass(frozen=True, slots=True)
class DecidingReading:
    """The deciding read is under way."""

    record: Record


@dataclass(frozen=True, slots=True)
class WaitingRecheck:
    """The read showed nothing; recheck number `attempt` follows."""

    record: Record
    attempt: int
    until_s: float


@dataclass(frozen=True, slots=True)
class Rechecking:
    """Recheck number `attempt` is under way."""

    record: Record
    attempt: int


@dataclass(frozen=True, slots=True)
class Snapshotting:
    """The outcome stands; the nodes' status is being read."""

    record: Record
    outcome: Outcome
    error: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class Done:
    """The round is over."""

    result: RoundResult


OpenRound: TypeAlias = (
    Publishing
    | WaitingPublish
    | EarlyReading
    | Searching
    | WaitingSearch
    | DatingReading
    | DecidingReading
    | WaitingRecheck
    | Rechecking
    | Snapshotting
)
RoundState: TypeAlias = OpenRound | Done
