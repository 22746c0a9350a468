"""What few and dependent observations allow to say: intervals, effective numbers, first sight.

Accumulators take one observation after the other, keep a bounded amount whatever their number,
and can be joined: `early.join(late)` is as if all observations of `late` had followed those of
`early`. So a sliding window is a row of them. Used live and offline alike.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Final, NamedTuple

Z95: Final = 1.959963984540054
"""Quantile of the normal distribution for an interval of 95 %."""
Z999: Final = 3.2905267314918945
"""For 99.9 %: where the same gate is looked at again and again."""

_TENTH_S: Final = 0.1
# Products of many factors: S(t) = 1 - q must not be missed by the last bit.
_NEARLY: Final = 1e-9


class Interval(NamedTuple):
    """Where the true value lies, as far as the observations say."""

    low: float
    high: float


def wilson(successes: float, n: float, z: float = Z95) -> Interval:
    """Return Wilson's interval of a share; 0 to 1 without observations.

    Args:
        successes: How many of `n`; both may be fractions, as effective numbers are.
        n: Independent observations.
        z: Quantile of the normal distribution.
    """
    if n <= 0:
        return Interval(0.0, 1.0)
    share = min(1.0, max(0.0, successes / n))
    widen = 1 + z * z / n
    middle = (share + z * z / (2 * n)) / widen
    half = z / widen * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Exact at the ends, where the formula leaves the last bit.
    low = 0.0 if share == 0 else max(0.0, middle - half)
    high = 1.0 if share == 1 else min(1.0, middle + half)
    return Interval(low, high)


class LagOne:
    """Yes-or-no observations in their order, and how much each resembles the one before.

    Misses come in streaks, so a hundred rounds say less than a hundred independent ones would:
    with the lag-1 autocorrelation rho only as much as n (1 - rho) / (1 + rho) of them.
    """

    __slots__ = ("first", "last", "n", "pairs", "yes")

    def __init__(self) -> None:
        self.n = 0
        self.yes = 0
        self.pairs = 0
        """Neighbours that are both yes."""
        self.first = False
        self.last = False

    def add(self, value: bool) -> None:  # noqa: FBT001 - it is the observation
        """Take the next observation."""
        if self.n == 0:
            self.first = value
        self.pairs += self.last and value
        self.n += 1
        self.yes += value
        self.last = value

    def join(self, later: LagOne) -> None:
        """Append what another accumulator has seen."""
        if later.n == 0:
            return
        if self.n == 0:
            self.first = later.first
        self.pairs += later.pairs + (self.last and later.first)
        self.n += later.n
        self.yes += later.yes
        self.last = later.last

    @property
    def share(self) -> float | None:
        """Share of yes."""
        return None if self.n == 0 else self.yes / self.n

    @property
    def rho(self) -> float:
        """Lag-1 autocorrelation; 0 if all observations are the same."""
        if self.yes in (0, self.n):
            return 0.0
        mean = self.yes / self.n
        ends = 2 * self.yes - self.first - self.last
        covered = self.pairs - mean * ends + (self.n - 1) * mean * mean
        return covered / (self.yes * (1 - mean))

    @property
    def effective_n(self) -> float:
        """How many independent observations these are worth: n at most, 1 at least."""
        return effective_n(self.n, self.rho)

    def interval(self, z: float = Z95) -> Interval:
        """Return Wilson's interval of the share at the effective number."""
        worth = self.effective_n
        return wilson((self.share or 0.0) * worth, worth, z)


def effective_n(n: int, rho: float) -> float:
    """Return n (1 - rho) / (1 + rho), n at most and, of any observations, 1 at least.

    A negative rho would make more of the observations than there are.
    """
    if rho <= 0:
        return float(n)
    return max(min(1.0, float(n)), n * (1 - rho) / (1 + rho))


class Streak:
    """The longest row of misses."""

    __slots__ = ("_head", "_tail", "longest", "n")

    def __init__(self) -> None:
        self.n = 0
        self.longest = 0
        self._head = 0
        self._tail = 0

    def add(self, is_miss: bool) -> None:  # noqa: FBT001 - it is the observation
        """Take the next observation."""
        if is_miss and self._head == self.n:
            self._head += 1
        self.n += 1
        self._tail = self._tail + 1 if is_miss else 0
        self.longest = max(self.longest, self._tail)

    def join(self, later: Streak) -> None:
        """Append what another accumulator has seen; a streak may go on across the border."""
        self.longest = max(self.longest, later.longest, self._tail + later._head)
        if self._head == self.n:
            self._head += later._head
        self._tail = self._tail + later.n if later._tail == later.n else later._tail
        self.n += later.n


class Seen(NamedTuple):
    """Which share is seen within a time.

    Attributes:
        share: Kaplan and Meier's estimate.
        n: The number of fully watched observations that would be as certain (Rothman).
        is_watched: Somebody was watched for so long, or all were seen before.
    """

    share: float
    n: float
    is_watched: bool


class Survival:
    """Times to the first sight, some of them cut short: Kaplan and Meier's estimate.

    A miss is not a late sight but one that was watched for in vain up to a certain time
    (right-censored). Times are rounded up to a tenth of a second, and exact to that up to
    `max_times` different ones; beyond, the steps are doubled until there are fewer again.
    """

    def __init__(self, max_times: int = 4096) -> None:
        self.step = 1
        """Resolution, in tenths of a second."""
        self._max_times = max_times
        self._seen: Counter[int] = Counter()
        self._watched: Counter[int] = Counter()

    def add(self, seconds: float, *, seen: bool) -> None:
        """Take one observation: seen after so long, or watched for so long in vain."""
        # To the millisecond first: 10.3 / 0.1 is a little more than 103.
        tenths = math.ceil(round(max(0.0, seconds) / _TENTH_S, 2))
        self._put(self._seen if seen else self._watched, tenths, 1)

    def join(self, other: Survival) -> None:
        """Take everything that another accumulator has seen; its order does not matter."""
        while self.step < other.step:
            self._coarsen()
        for mine, others in ((self._seen, other._seen), (self._watched, other._watched)):
            for tenths, count in others.items():
                self._put(mine, tenths, count)

    @property
    def n(self) -> int:
        """All observations."""
        return self._seen.total() + self._watched.total()

    @property
    def longest_s(self) -> float | None:
        """The longest time that anything was watched or took; None without observations."""
        times = [*self._seen, *self._watched]
        return max(times) * _TENTH_S if times else None

    def quantile_s(self, share: float) -> float | None:
        """Return after which time this share is seen; None if misses keep it from being known."""
        for tenths, unseen, _variance in self._curve():
            if unseen <= 1 - share + _NEARLY:
                return round(tenths * _TENTH_S, 1)
        return None

    def within(self, seconds: float, *, inclusive: bool = True) -> Seen:
        """Return which share is seen within `seconds`, and how certain that is."""
        # The last step that belongs to the time, unless the time itself does not.
        limit = round(seconds / _TENTH_S, 2)
        unseen, variance = 1.0, 0.0
        for tenths, value, spread in self._curve():
            if tenths > limit or (tenths == limit and not inclusive):
                break
            unseen, variance = value, spread
        share = 1 - unseen
        longest_s = self.longest_s
        watched = longest_s is not None and (longest_s >= seconds - _NEARLY or unseen <= _NEARLY)
        if variance > 0:
            # Greenwood's variance, as if it came of n plain observations.
            return Seen(share, unseen * share / variance, watched)
        whole = self.n if share else self._watched_for(limit)
        return Seen(share, float(whole), watched)

    def _watched_for(self, limit: float) -> int:
        counts = (self._seen, self._watched)
        return sum(n for counter in counts for tenths, n in counter.items() if tenths >= limit)

    def _curve(self) -> list[tuple[int, float, float]]:
        """Return time, share not seen by then, and Greenwood's variance of it, at each sight."""
        left = self.n
        unseen, summed = 1.0, 0.0
        curve = []
        for tenths in sorted({*self._seen, *self._watched}):
            seen = self._seen[tenths]
            if seen:
                unseen *= 1 - seen / left
                # Once everything is seen, nothing is uncertain any more.
                summed += seen / (left * (left - seen)) if seen < left else 0.0
                curve.append((tenths, unseen, unseen * unseen * summed))
            # Who was watched up to this very time was still watched at it.
            left -= seen + self._watched[tenths]
        return curve

    def _put(self, counter: Counter[int], tenths: int, count: int) -> None:
        counter[-(-tenths // self.step) * self.step] += count
        while len(self._seen) + len(self._watched) > self._max_times:
            self._coarsen()

    def _coarsen(self) -> None:
        self.step *= 2
        for counter in (self._seen, self._watched):
            old = dict(counter)
            counter.clear()
            for tenths, count in old.items():
                counter[-(-tenths // self.step) * self.step] += count
