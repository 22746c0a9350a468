"""Which queued runs may start now, and why the others may not.

First come, first served: nobody overtakes. The scheduler calls `pick` whenever a run is
queued or ends, then acts on what it says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run in the eyes of the queue; ports are those it wants or holds."""

    id: int
    ports: frozenset[int] = frozenset()


class Picked(NamedTuple):
    """The decision.

    Attributes:
        start: Runs to start now, in order.
        reasons: Why each of the others waits.
        positions: Their places in the queue, from 1.
    """

    start: tuple[int, ...]
    reasons: dict[int, str]
    positions: dict[int, int]


def pick(queued: Sequence[Candidate], running: Sequence[Candidate], capacity: int) -> Picked:
    """Decide for all queued runs.

    Args:
        queued: In order of arrival.
        running: Runs that hold a slot, those still stopping and blocked leases included.
        capacity: How many runs may hold a slot at once.
    """
    start: list[int] = []
    reasons: dict[int, str] = {}
    holders = {port: run.id for run in running for port in run.ports}
    free = capacity - len(running)
    for run in queued:
        reason = _reason(run, next(iter(reasons), None), holders, free)
        if reason is not None:
            reasons[run.id] = reason
            continue
        start.append(run.id)
        holders.update(dict.fromkeys(run.ports, run.id))
        free -= 1
    positions = {run_id: place for place, run_id in enumerate(reasons, 1)}
    return Picked(tuple(start), reasons, positions)


def _reason(run: Candidate, head: int | None, holders: dict[int, int], free: int) -> str | None:
    if free <= 0:
        return "slots"
    taken = sorted(port for port in run.ports if port in holders)
    if taken:
        return f"port {taken[0]} leased by r{holders[taken[0]]}"
    return None if head is None else f"behind r{head}"
