"""What is taken, by whom and until when. Part of `soakd.core.queue`, used by nothing else.

A board only grows fuller by `add` and emptier by `remove`; whatever fits on it also fits after
more has been removed. Promises rest on that: a holder that ends early never delays anybody.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from soakd.core.queue_types import Candidate, Capacity, Holder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Board:
    """The holders of slots and leases at one instant.

    Disk space that a run has taken is not given back by its end: its records stay.
    """

    def __init__(self, holders: Iterable[Holder], capacity: Capacity, now_s: float) -> None:
        self.now_s = now_s
        self._capacity = capacity
        self._reach = frozenset(capacity.auto_range) - capacity.foreign_ports
        self._holders: dict[int, Holder] = {}
        self._room_bytes = math.inf
        if capacity.free_disk_bytes is not None:
            self._room_bytes = capacity.free_disk_bytes
        for holder in sorted(holders, key=lambda holder: holder.id):
            self.add(holder, holder.growth_bytes)

    # -- changes -------------------------------------------------------------------------------

    def add(self, holder: Holder, disk_bytes: int) -> None:
        """Let a run hold what it has."""
        self._holders[holder.id] = holder
        self._room_bytes -= disk_bytes

    def undo(self, holder: Holder, disk_bytes: int) -> None:
        """Take an `add` back."""
        self.remove(holder.id)
        self._room_bytes += disk_bytes

    def remove(self, run_id: int) -> None:
        """Free slot, ports and names of a run that has ended."""
        del self._holders[run_id]

    def go_to(self, now_s: float) -> None:
        """Let time pass, and everybody end who ends by then at the latest."""
        for run_id in [h.id for h in self._holders.values() if self.end_s(h) <= now_s]:
            self.remove(run_id)
        self.now_s = now_s

    # -- questions -----------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """No slot is free."""
        return len(self._holders) >= self._capacity.max_running

    @property
    def soaking(self) -> list[int]:
        """The user of each holder, once per run."""
        return [holder.uid for holder in self._holders.values()]

    def next_end_s(self) -> float | None:
        """Return when the next holder is gone at the latest; None: nobody knows of any."""
        ends = [end_s for end_s in map(self.end_s, self._holders.values()) if end_s < math.inf]
        return min(ends, default=None)

    def fits(self, run: Candidate) -> bool:
        """Return whether nothing is in the way of a run now."""
        return (
            not self.is_full
            and not self.is_shut_to_user(run.uid)
            and not self.are_ports_taken(run.ports)
            and all(holder.keys.isdisjoint(run.keys) for holder in self._holders.values())
            and self._room_bytes >= run.disk_bytes
            and (not run.auto_ports or len(self.free_ports(run)) == run.auto_ports)
        )

    def is_shut_to_user(self, uid: int) -> bool:
        """Return whether a user has as many slots as one may have."""
        own = sum(holder.uid == uid for holder in self._holders.values())
        return own >= self._capacity.running_per_user

    def are_ports_taken(self, ports: frozenset[int]) -> bool:
        """Return whether any of the ports is leased."""
        return not all(holder.ports.isdisjoint(ports) for holder in self._holders.values())

    def fits_from_s(self, run: Candidate, *, mind_user: bool = True) -> float:
        """Return from when a run fits at the latest, if nothing else starts before; inf: unknown.

        Args:
            run: Any run that does not hold anything.
            mind_user: Whether the limit of its user counts.
        """
        holders = self._holders.values()
        ends = sorted(map(self.end_s, holders))
        times = [self.now_s, _freed(ends, len(ends) - self._capacity.max_running)]
        if mind_user:
            own = sorted(self.end_s(holder) for holder in holders if holder.uid == run.uid)
            times.append(_freed(own, len(own) - self._capacity.running_per_user))
        times += [self.end_s(holder) for holder in holders if not self._are_apart(holder, run)]
        if self._room_bytes < run.disk_bytes:
            times.append(math.inf)
        if run.auto_ports:
            times.append(self._auto_ports_from_s(run))
        return max(times)

    def free_ports(self, run: Candidate, wanted: frozenset[int] = frozenset()) -> tuple[int, ...]:
        """Return the ports of the range that a run would get: fewer than it wants if they lack.

        Args:
            run: Its own fixed ports are left out.
            wanted: Ports that others in the queue have fixed: taken last.
        """
        taken = self._capacity.foreign_ports.union(
            run.ports, *(holder.ports for holder in self._holders.values())
        )
        found: list[int] = []
        second_choice: list[int] = []
        for port in self._capacity.auto_range:
            if len(found) == run.auto_ports:
                break
            if port not in taken:
                (second_choice if port in wanted else found).append(port)
        return tuple((found + second_choice)[: run.auto_ports])

    def reason(self, run: Candidate) -> str | None:
        """Return what is in the way of a run now, in words; None: nothing.

        Of several holders the one that came first is named, whenever it is asked.
        """
        holders = self._by_id()
        own = [holder for holder in holders if holder.uid == run.uid]
        if self.is_shut_to_user(run.uid) and self.is_user_limited(run):
            return _blocked(own) or f"user limit {self._capacity.running_per_user} running"
        if self.is_full:
            return self._no_slot()
        for holder in holders:
            if not self._are_apart(holder, run):
                return _blocked([holder]) or _clash(holder, run)
        if len(self.free_ports(run)) < run.auto_ports:
            return "auto ports all leased"
        return "disk forecast" if self._room_bytes < run.disk_bytes else None

    def is_user_limited(self, run: Candidate) -> bool:
        """Return whether a run would fit earlier if its user had no limit."""
        return self.fits_from_s(run, mind_user=False) < self.fits_from_s(run)

    def why_later(self, run: Candidate, than_s: float) -> str:
        """Return why a run does not fit by a time at which it was to fit."""
        late = [holder for holder in self._holders.values() if self._is_late(holder)]
        if self.fits_from_s(run) == math.inf:
            if late:
                return f"r{late[0].id} is past its latest end"
            return self.reason(run) or "no slot"
        lasting = [holder for holder in self._holders.values() if self.end_s(holder) > than_s]
        first = min(lasting, key=lambda holder: (self._are_apart(holder, run), self.end_s(holder)))
        return f"r{first.id} holds on beyond that time"

    def end_s(self, holder: Holder) -> float:
        """Return the latest end of a holder; inf: unknown."""
        ends_by_s = holder.ends_by_s
        return math.inf if ends_by_s is None or self._is_late(holder) else ends_by_s

    # -- inner ---------------------------------------------------------------------------------

    def _by_id(self) -> list[Holder]:
        return sorted(self._holders.values(), key=lambda holder: holder.id)

    def _is_late(self, holder: Holder) -> bool:
        return holder.ends_by_s is not None and holder.ends_by_s < self.now_s

    def _are_apart(self, holder: Holder, run: Candidate) -> bool:
        return holder.ports.isdisjoint(run.ports) and holder.keys.isdisjoint(run.keys)

    def _no_slot(self) -> str:
        # With a slot that frees itself the blocked ones are not what is waited for.
        holders = self._by_id()
        surplus = len(holders) - self._capacity.max_running
        is_stuck = _freed(sorted(map(self.end_s, holders)), surplus) == math.inf
        return (is_stuck and _blocked(holders)) or "slots"

    def _auto_ports_from_s(self, run: Candidate) -> float:
        """Return when enough ports of the range are free at the latest; inf: unknown."""
        lasting = sorted(self._holders.values(), key=self.end_s)
        for gone in range(len(lasting) + 1):
            taken = run.ports.union(*(holder.ports for holder in lasting[gone:]))
            if len(self._reach - taken) >= run.auto_ports:
                return self.now_s if gone == 0 else self.end_s(lasting[gone - 1])
        return math.inf


def _freed(ends: Sequence[float], surplus: int) -> float:
    """Return when enough of those that end have ended: `surplus` of them and one more."""
    if surplus < 0:
        return -math.inf
    return ends[surplus] if surplus < len(ends) else math.inf


def _blocked(holders: Iterable[Holder]) -> str | None:
    for holder in holders:
        if holder.blocked_pids:
            return f"blocked lease pid {holder.blocked_pids[0]} of r{holder.id}"
    return None


def _clash(holder: Holder, run: Candidate) -> str:
    ports = sorted(holder.ports & run.ports)
    keys = sorted(holder.keys & run.keys)
    return (
        f"port {ports[0]} leased by r{holder.id}" if ports else f"{keys[0]} leased by r{holder.id}"
    )
