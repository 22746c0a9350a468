"""One instant of the queue: who starts, and who is promised what.

Part of `soakd.core.queue`, used by nothing else: once for the present, and for every end of a run
in the forecast.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from soakd.core.queue_types import Candidate, Grant, Holder, Moved, Promise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from soakd.core.queue_board import Board
    from soakd.core.queue_line import Line

LATE_S: Final = 1.0
"""Ends and starts this much behind their time are no news: timers are not exact."""

ABSENT: Final = "soakd was not there in time"


class Moment:
    """The instant of a board.

    Attributes:
        granted: Runs that start, in order; they are on the board and out of the line.
        promise: The one that stands after it.
        moved: The one that was taken back.
    """

    def __init__(
        self, board: Board, wanted: frozenset[int], line: Line, promise: Promise | None
    ) -> None:
        self.granted: list[Grant] = []
        self.promise = promise
        self._told = promise
        self.moved: Moved | None = None
        self._board = board
        self._wanted = wanted
        self._line = line
        self._promised: Candidate | None = None
        self._shut_users: set[int] = set()
        self._shut_ports: set[frozenset[int]] = set()

    def pass_through(self, usage: Mapping[int, float]) -> None:
        """Start what may start, and keep, make or break the promise."""
        self._check_promise()
        # Whoever started may have made a run promisable that was looked at before: one that only
        # its user's limit kept now waits for a slot as well.
        while self._look_through(usage):
            pass

    def _look_through(self, usage: Mapping[int, float]) -> bool:
        """Look at everybody in turn; returns whether anybody started."""
        leader = None if self._promised is None else self._promised.id
        before = len(self.granted)
        for run in self._line.in_turn(usage, leader, self._is_hopeless):
            outranks = self._outranks(run)
            if self._promised is not None and self._board.is_full and not outranks:
                break
            if self._board.fits(run):
                self._try_to_start(run, outranks=outranks)
            elif (self._promised is None or outranks) and self._can_be_promised(run):
                self._break(f"r{run.id} goes first: higher priority")
                self._make(run)
        started = self.granted[before:]
        for grant in started:
            self._line.remove(grant.id)
        return bool(started)

    def _check_promise(self) -> None:
        """See whether the earlier promise still stands; made anew for a later time if it can be."""
        promise = self.promise
        run = None if promise is None else self._line.get(promise.id)
        if promise is None or run is None:
            self.promise = None
            return
        self._promised = run
        by_s = promise.start_by_s
        if self._board.fits_from_s(run) > by_s + LATE_S:
            is_free = self._board.fits(run)
            self._break(ABSENT if is_free else self._board.why_later(run, by_s))
            self._make(run)

    def _try_to_start(self, run: Candidate, *, outranks: bool) -> None:
        ports = self._board.free_ports(run, self._wanted) if run.auto_ports else ()
        holder = Holder(
            run.id,
            run.uid,
            run.ports.union(ports),
            run.keys,
            self._board.now_s + run.length_s,
            run.disk_bytes,
            run.priority,
        )
        self._board.add(holder, run.disk_bytes)
        if run is self._promised:
            self.promise = self._promised = None
        elif (harmed := self._harmed()) is not None:
            if not outranks:
                self._board.undo(holder, run.disk_bytes)
                return
            self._break(f"r{run.id} goes first: higher priority")
            self._make(harmed)
        self.granted.append(Grant(run.id, ports))

    def _outranks(self, run: Candidate) -> bool:
        return self._promised is not None and run.priority > self._promised.priority

    def _is_hopeless(self, run: Candidate) -> bool:
        """Return whether neither a start nor a promise can come of looking at a run.

        Remembered by user and by ports: at one instant the board only grows fuller, and hundreds
        of runs may want the same ports.
        """
        if self._promised is None or self._outranks(run):
            return False
        if run.uid in self._shut_users or run.ports in self._shut_ports:
            return True
        if self._board.is_shut_to_user(run.uid):
            self._shut_users.add(run.uid)
            return True
        if self._board.are_ports_taken(run.ports):
            self._shut_ports.add(run.ports)
            return True
        return False

    def _harmed(self) -> Candidate | None:
        """Return the promised run if it would start too late by what is on the board."""
        run, promise = self._promised, self.promise
        if run is None or promise is None or self._board.fits_from_s(run) <= promise.start_by_s:
            return None
        return run

    def _can_be_promised(self, run: Candidate) -> bool:
        known = self._board.fits_from_s(run) < math.inf
        return known and not self._board.is_user_limited(run)

    def _break(self, why: str) -> None:
        # One that was made at this instant nobody has heard of.
        if self.promise is not None and self.promise is self._told and self.moved is None:
            self.moved = Moved(self.promise, why)

    def _make(self, run: Candidate) -> None:
        self.promise = self._promised = None
        if self._can_be_promised(run):
            self.promise = Promise(run.id, self._board.fits_from_s(run))
            self._promised = run
