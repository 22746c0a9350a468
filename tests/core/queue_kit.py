"""A host in memory for tests of the queue: time, runs that hold slots, and what was promised."""

from __future__ import annotations

from dataclasses import replace

from soakd.core.queue import (
    Candidate,
    Capacity,
    Grant,
    Holder,
    Moved,
    Picked,
    Promise,
    Snapshot,
    pick,
)
from soakd.core.usage import later

PORTS = frozenset({17835, 17836})


def candidate(run_id: int, uid: int = 1000, hours: float = 1.0, **more: object) -> Candidate:
    """Return a queued run that takes `hours` at most and wants no port."""
    return replace(Candidate(run_id, uid, length_s=hours * 3600.0), **more)  # type: ignore[arg-type]


class Host:
    """Does what `pick` says, as the scheduler does, and lets time pass.

    Attributes:
        started: When each run started.
        moved: Every promise that was taken back.
        promises: Every promise made, by run: the latest counts.
    """

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.now_s = 0.0
        self.queued: dict[int, Candidate] = {}
        self.holders: dict[int, Holder] = {}
        self.usage: dict[int, float] = {}
        self.started: dict[int, float] = {}
        self.moved: list[Moved] = []
        self.promise: Promise | None = None
        self.picked = Picked((), {}, None, None)

    def snapshot(self) -> Snapshot:
        """Return what `pick` is given."""
        return Snapshot(
            tuple(self.queued.values()), tuple(self.holders.values()), self.usage, self.promise
        )

    def pick(self) -> Picked:
        """Ask, and start what may start."""
        self.picked = picked = pick(self.snapshot(), self.capacity, self.now_s)
        self.promise = picked.promise
        if picked.moved is not None:
            self.moved.append(picked.moved)
        for grant in picked.start:
            self._start(self.queued.pop(grant.id), grant)
        return picked

    def submit(self, run: Candidate) -> Picked:
        """Queue a run."""
        self.queued[run.id] = run
        return self.pick()

    def end(self, run_id: int) -> Picked:
        """End a run, early or at its latest end."""
        del self.holders[run_id]
        return self.pick()

    def pass_time(self, until_s: float) -> None:
        """Let time pass; who has reached its latest end is gone."""
        while self.now_s < until_s:
            ends = [h.ends_by_s for h in self.holders.values() if h.ends_by_s is not None]
            next_s = min([until_s, *(end_s for end_s in ends if end_s > self.now_s)])
            self.let_pass(next_s)
            over = [h.id for h in self.holders.values() if h.ends_by_s == self.now_s]
            for run_id in over:
                del self.holders[run_id]
            if over:
                self.pick()

    def let_pass(self, until_s: float) -> None:
        """Let time pass in which nothing ends."""
        soaking = [holder.uid for holder in self.holders.values()]
        self.usage = later(self.usage, soaking, until_s - self.now_s)
        self.now_s = until_s

    def _start(self, run: Candidate, grant: Grant) -> None:
        self.started[run.id] = self.now_s
        self.holders[run.id] = Holder(
            run.id,
            run.uid,
            run.ports.union(grant.auto_ports),
            run.keys,
            self.now_s + run.length_s,
            run.disk_bytes,
            run.priority,
        )
