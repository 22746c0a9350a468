"""What the queue decides from and what it says. Import them from `soakd.core.queue`.

All times are seconds of the boot clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Candidate:
    """A queued run.

    Attributes:
        id: Its number; a lower one came earlier.
        uid: Its owner.
        ports: The fixed ports it wants.
        auto_ports: How many ports of the range it wants besides.
        keys: What else it must have to itself, as `session NAME` or `identity HASH`.
        length_s: Its latest end after its start, everything included.
        disk_bytes: What it may write.
        priority: An admin's word; higher goes first.
        held: Its owner or an admin keeps it back.
    """

    id: int
    uid: int
    ports: frozenset[int] = frozenset()
    auto_ports: int = 0
    keys: frozenset[str] = frozenset()
    length_s: float = 0.0
    disk_bytes: int = 0
    priority: int = 0
    held: bool = False


@dataclass(frozen=True, slots=True)
class Holder:
    """A run that holds a slot: executing, ending, or ended with processes left.

    Attributes:
        ends_by_s: Its latest end; None, or a time that is past, means that nobody knows.
        growth_bytes: What it may still write.
        blocked_pids: Processes that nothing could kill.
    """

    id: int
    uid: int
    ports: frozenset[int] = frozenset()
    keys: frozenset[str] = frozenset()
    ends_by_s: float | None = None
    growth_bytes: int = 0
    priority: int = 0
    blocked_pids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the host gives.

    Attributes:
        max_running: Slots.
        running_per_user: Slots that one user may hold at a time.
        auto_range: The ports that are leased to runs which do not mind.
        foreign_ports: Ports of that range in which a process that is not ours listens.
        draining: Nothing starts.
        free_disk_bytes: Free now; None: not looked at.
    """

    max_running: int = 1
    running_per_user: int = 1
    auto_range: range = range(0)
    foreign_ports: frozenset[int] = frozenset()
    draining: bool = False
    free_disk_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Promise:
    """Run `id` starts by `start_by_s`."""

    id: int
    start_by_s: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The queue at one instant; the order of its parts says nothing.

    Attributes:
        usage: Recent soak-hours by user (`core.usage`); whoever is not in it has none.
        promise: What the pick before this one promised.
    """

    queued: Sequence[Candidate] = ()
    holders: Sequence[Holder] = ()
    usage: Mapping[int, float] = field(default_factory=dict)
    promise: Promise | None = None


class Grant(NamedTuple):
    """A run that starts now, with the ports that were found for it."""

    id: int
    auto_ports: tuple[int, ...] = ()


class Place(NamedTuple):
    """Where a run stands that does not start now.

    Attributes:
        position: From 1.
        reason: What keeps it.
        start_s: By when it starts: a promise, or else an estimate; None: nobody can say.
    """

    position: int
    reason: str
    start_s: float | None = None
    is_promised: bool = False


class Moved(NamedTuple):
    """A promise that is not kept, and why; the same run may have a new one."""

    broken: Promise
    why: str


class Picked(NamedTuple):
    """The decision.

    Attributes:
        start: Runs to start now, in order.
        waiting: The others.
        promise: To be given to the next pick.
        moved: A promise that had to be taken back.
    """

    start: tuple[Grant, ...]
    waiting: Mapping[int, Place]
    promise: Promise | None = None
    moved: Moved | None = None


class Extension(NamedTuple):
    """What making a run longer means.

    Attributes:
        longest_s: As far as it may go, at most what was wanted.
        promise: The promise that allows no more; None if all is allowed.
        effect: By how many seconds each waiting run would start later (or, below 0, earlier) if
            it went as far as wanted.
    """

    longest_s: float
    promise: Promise | None
    effect: Mapping[int, float]
