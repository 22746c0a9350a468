"""Which queued runs may start now, why the others may not, and when they will.

The scheduler calls `pick` whenever something changed and does what it says. Runs go by admin
priority, then to the user with the least recent soak-hours, then first come. The first one that
fits at a known time, but not now, is the head: it gets a *promise*, the time by which it fits if
every holder ends as late as it may. Others may start before it only if it still fits by then
(backfill), so nothing but a higher priority, a drain, a holder that does not end, or soakd's own
absence moves a promise. Runs that only their own owner keeps (held, user limit) and those that
wait for something of unknown end are passed over. docs/design/queue.md argues all of this.

Nothing here looks at a clock: `now_s` is boot time in seconds, like all times.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from soakd.core.queue_board import Board
from soakd.core.queue_line import Line
from soakd.core.queue_moment import Moment
from soakd.core.queue_types import (
    Candidate,
    Capacity,
    Extension,
    Grant,
    Holder,
    Moved,
    Picked,
    Place,
    Promise,
    Snapshot,
)
from soakd.core.usage import later

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "Candidate",
    "Capacity",
    "Extension",
    "Grant",
    "Holder",
    "Moved",
    "Picked",
    "Place",
    "Promise",
    "Snapshot",
    "extension",
    "pick",
]


def pick(snapshot: Snapshot, capacity: Capacity, now_s: float) -> Picked:
    """Decide for all queued runs.

    Args:
        snapshot: The queue now; its promise is the one of the pick before.
        capacity: What the host gives.
        now_s: Never before that of the pick before, unless the host was started anew.
    """
    board = Board(snapshot.holders, capacity, now_s)
    line = Line(run for run in snapshot.queued if not run.held)
    held = sorted((run for run in snapshot.queued if run.held), key=lambda run: run.id)
    if capacity.draining:
        reasons = {run.id: "drain" for run in line.in_turn(snapshot.usage, None)}
        places = _places(reasons | {run.id: "held" for run in held}, {}, None)
        return Picked((), places, None, _withdrawn(snapshot, held, is_drained=True))
    moment = Moment(board, _fixed_ports(snapshot.queued), line, snapshot.promise)
    moment.pass_through(snapshot.usage)
    started = {grant.id for grant in moment.granted}
    wanted = _fixed_ports(run for run in snapshot.queued if run.id not in started)
    promise = moment.promise
    promised = None if promise is None else promise.id
    reasons = {
        run.id: board.reason(run) or f"behind r{promised}"
        for run in line.in_turn(snapshot.usage, promised)
    }
    starts = _forecast(board, wanted, line, snapshot.usage, promise)
    places = _places(reasons | {run.id: "held" for run in held}, starts, promised)
    moved = moment.moved or _withdrawn(snapshot, held, is_drained=False)
    return Picked(tuple(moment.granted), places, promise, moved)


def extension(
    snapshot: Snapshot, capacity: Capacity, now_s: float, run_id: int, wanted_s: float
) -> Extension:
    """Say how far a run may be made longer without moving a promise, and whom that delays.

    A run of a higher priority than the promised one may go as far as it likes.

    Args:
        snapshot: The queue as the latest `pick` left it.
        capacity: What the host gives.
        now_s: Boot time.
        run_id: A run that is queued or holds a slot.
        wanted_s: By how many seconds; 0 or more.
    """
    longer = replace(
        snapshot,
        queued=[
            replace(run, length_s=run.length_s + wanted_s) if run.id == run_id else run
            for run in snapshot.queued
        ],
        holders=[
            replace(run, ends_by_s=run.ends_by_s + wanted_s)
            if run.id == run_id and run.ends_by_s is not None
            else run
            for run in snapshot.holders
        ],
    )
    before = pick(snapshot, capacity, now_s).waiting
    after = pick(longer, capacity, now_s)
    starts = {run: place.start_s for run, place in after.waiting.items()}
    starts |= {grant.id: now_s for grant in after.start}
    effect = {
        other: later_s - place.start_s
        for other, place in before.items()
        if place.start_s is not None
        and (later_s := starts[other]) is not None
        and later_s != place.start_s
    }
    longest_s = _longest_s(snapshot, longer, capacity, now_s, run_id)
    if longest_s is None:
        return Extension(wanted_s, None, effect)
    return Extension(longest_s, snapshot.promise, effect)


def _longest_s(
    snapshot: Snapshot, longer: Snapshot, capacity: Capacity, now_s: float, run_id: int
) -> float | None:
    """Return how far a holder may go where the promise does not allow all; None: it does."""
    promise = snapshot.promise
    runs = {run.id: run for run in snapshot.queued}
    held = next((run for run in snapshot.holders if run.id == run_id), None)
    promised = None if promise is None else runs.get(promise.id)
    if promise is None or promised is None or held is None or held.ends_by_s is None:
        return None
    fits_from_s = Board(longer.holders, capacity, now_s).fits_from_s(promised)
    if held.priority > promised.priority or fits_from_s <= promise.start_by_s:
        return None
    return max(0.0, promise.start_by_s - held.ends_by_s)


def _fixed_ports(queued: Iterable[Candidate]) -> frozenset[int]:
    return frozenset[int]().union(*(run.ports for run in queued))


def _places(
    reasons: Mapping[int, str], starts: Mapping[int, float], promised: int | None
) -> dict[int, Place]:
    return {
        run_id: Place(position, reason, starts.get(run_id), is_promised=run_id == promised)
        for position, (run_id, reason) in enumerate(reasons.items(), 1)
    }


def _withdrawn(snapshot: Snapshot, held: list[Candidate], *, is_drained: bool) -> Moved | None:
    """Return the promise that a hold or a drain took back; a cancelled run needs none."""
    promise = snapshot.promise
    if promise is None or promise.id not in {run.id for run in snapshot.queued}:
        return None
    if promise.id in {run.id for run in held}:
        return Moved(promise, "held")
    return Moved(promise, "drain") if is_drained else None


def _forecast(
    board: Board,
    wanted: frozenset[int],
    line: Line,
    usage: Mapping[int, float],
    promise: Promise | None,
) -> dict[int, float]:
    """Play on with every holder ending as late as it may; uses up the board and the line."""
    starts = {} if promise is None else {promise.id: promise.start_by_s}
    while line and (end_s := board.next_end_s()) is not None:
        usage = later(usage, board.soaking, end_s - board.now_s)
        board.go_to(end_s)
        moment = Moment(board, wanted, line, promise)
        moment.pass_through(usage)
        for grant in moment.granted:
            starts.setdefault(grant.id, end_s)
        promise = moment.promise
    return starts
