"""A month of five users, played through the queue: what they wait, and who gets how much.

`python -m tests.core.queue_month` prints the table of docs/design/queue.md; a test holds its
bounds. The dice are seeded: the same month every time.
"""

from __future__ import annotations

import heapq
import random
import sys
from dataclasses import dataclass, field
from statistics import median

from soakd.core.queue import Candidate, Capacity
from tests.core.queue_kit import Host

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
OVERHEAD_S = 300.0
"""Staging, warm-up and the stop of a run that goes well ..."""
RESERVED_S = 2000.0
"""... and what the plan sets aside for them."""


@dataclass(frozen=True)
class User:
    """How someone uses the box.

    Attributes:
        every_h: Mean hours between two visits; 0: has something queued all the time.
        runs: How many runs each visit queues.
        hours: The shortest and the longest soak.
        ports: Users of different ports meet at the slots only.
    """

    name: str
    every_h: float
    runs: int
    hours: tuple[float, float]
    ports: frozenset[int] = frozenset({17835, 17836})


MIXED = (
    User("nightly", 24, 1, (5, 7)),
    User("hoarder", 60, 5, (2, 5)),
    User("tinkerer", 8, 1, (0.5, 1), frozenset({18000, 18001})),
    User("weekly", 168, 1, (20, 30)),
    User("bursts", 72, 4, (1, 3), frozenset({18002, 18003})),
)
GREEDY = tuple(
    User(name, 0, 1, hours)
    for name, hours in (
        ("short", (0.5, 1.0)),
        ("hours", (2.0, 5.0)),
        ("nights", (8.0, 12.0)),
        ("mixed", (0.5, 12.0)),
        ("days", (20.0, 30.0)),
    )
)


@dataclass
class Month:
    """What came of it; times in hours."""

    users: tuple[User, ...]
    waits_h: dict[int, list[float]] = field(default_factory=dict)
    soaked_h: dict[int, float] = field(default_factory=dict)
    promises: int = 0
    broken: int = 0
    busy: float = 0.0

    @property
    def jain(self) -> float:
        """Jain's index of the soak-hours: 1 is equal shares, 1/5 is all for one of five."""
        shares = [self.soaked_h.get(uid, 0.0) for uid in range(len(self.users))]
        return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


class _Play:
    """The month while it is played."""

    def __init__(self, users: tuple[User, ...], slots: int, seed: int, *, is_fair: bool) -> None:
        self.host, self.month = Host(Capacity(slots, 1)), Month(users)
        self._dice = random.Random(seed)
        self._is_fair = is_fair
        self._soaks_h: dict[int, float] = {}
        self._submitted: dict[int, tuple[float, int]] = {}
        self.promised: dict[int, float] = {}
        # Time, run that ends (0: a visit), user.
        self.events = [(self._pause_s(user), 0, uid) for uid, user in enumerate(users)]
        heapq.heapify(self.events)

    def step(self) -> None:
        """Take the next event and all that follows at that time."""
        at_s, run_id, uid = heapq.heappop(self.events)
        self.host.let_pass(at_s)
        user = self.month.users[uid]
        if run_id:
            del self.host.holders[run_id]
        elif user.every_h:
            for _ in range(user.runs):
                self._queue(uid)
            heapq.heappush(self.events, (at_s + self._pause_s(user), 0, uid))
        for other, greedy in enumerate(self.month.users):
            if not greedy.every_h and all(run.uid != other for run in self.host.queued.values()):
                self._queue(other)
        if not self._is_fair:
            self.host.usage = {}
        for grant in self.host.pick().start:
            self._book(grant.id)
        if self.host.promise is not None:
            self.promised.setdefault(self.host.promise.id, self.host.promise.start_by_s)

    def _pause_s(self, user: User) -> float:
        return self._dice.expovariate(1 / user.every_h) * HOUR_S if user.every_h else 0.0

    def _queue(self, uid: int) -> None:
        run_id, user = len(self._submitted) + 1, self.month.users[uid]
        self._soaks_h[run_id] = self._dice.uniform(*user.hours)
        self._submitted[run_id] = self.host.now_s, uid
        length_s = self._soaks_h[run_id] * HOUR_S + RESERVED_S
        self.host.queued[run_id] = Candidate(run_id, uid, user.ports, length_s=length_s)

    def _book(self, run_id: int) -> None:
        now_s, month = self.host.now_s, self.month
        since_s, uid = self._submitted[run_id]
        month.waits_h.setdefault(uid, []).append((now_s - since_s) / HOUR_S)
        month.soaked_h[uid] = month.soaked_h.get(uid, 0.0) + self._soaks_h[run_id]
        month.broken += now_s > self.promised.get(run_id, now_s)
        ends_s = now_s + self._soaks_h[run_id] * HOUR_S + OVERHEAD_S
        heapq.heappush(self.events, (ends_s, run_id, uid))


def play(
    users: tuple[User, ...], slots: int, *, seed: int = 1, days: int = 30, is_fair: bool = True
) -> Month:
    """Play a month.

    Args:
        users: Who comes.
        slots: Runs at a time; each user has one of them at most.
        seed: For another month.
        days: How long.
        is_fair: False forgets who used how much: first come, first served.
    """
    played = _Play(users, slots, seed, is_fair=is_fair)
    while played.events and played.events[0][0] < days * DAY_S:
        played.step()
    month = played.month
    month.promises = len(played.promised)
    month.broken += len(played.host.moved)
    month.busy = sum(month.soaked_h.values()) / (slots * days * 24)
    return month


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value that at least this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(share * 100) // 100) - 1)]


def table(title: str, month: Month) -> str:
    """Return a table in Markdown."""
    head = (
        f"{title}: {month.busy:.0%} of the slots soaked, {month.promises} promises,"
        f" {month.broken} broken, Jain's index {month.jain:.2f}"
    )
    lines = [head, "", "| user | runs | soak-hours | share | wait: median | p95 | max |"]
    lines.append("|---|---|---|---|---|---|---|")
    total = sum(month.soaked_h.values())
    for uid, user in enumerate(month.users):
        waits, hours = month.waits_h[uid], month.soaked_h[uid]
        lines.append(
            f"| {user.name} | {len(waits)} | {hours:.0f} | {hours / total:.0%} |"
            f" {median(waits):.1f} h | {percentile(waits, 0.95):.1f} h | {max(waits):.1f} h |"
        )
    return "\n".join([*lines, ""])


def report() -> str:
    """Return all tables."""
    return "\n".join(
        table(title, play(users, slots, is_fair=is_fair))
        for title, users, slots, is_fair in (
            ("Greedy, one slot", GREEDY[:4], 1, True),
            ("Greedy with soaks of a day, one slot", GREEDY, 1, True),
            ("Greedy, one slot, first come first served", GREEDY[:4], 1, False),
            ("Mixed, one slot", MIXED, 1, True),
            ("Mixed, one slot, first come first served", MIXED, 1, False),
            ("Mixed, two slots", MIXED, 2, True),
        )
    )


if __name__ == "__main__":
    sys.stdout.write(report())
