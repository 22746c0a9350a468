"""Whether a value grows: a straight line through samples, kept as a few sums.

The line is fitted by least squares; its slope is told in percent of the mean value per day, so
that 5 %/day means the same for 50 MB and for 5 GB. Neighbouring samples of a process are alike,
so the interval is that of the effective number of samples, by the lag-1 autocorrelation of what
the line leaves over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from soakd.core.estimates import Z95, Interval, effective_n

DAY_S: Final = 86400.0
MIN_SAMPLES: Final = 3
# Of a line that fits to the last bit the rest is noise of the arithmetic.
_NOISE: Final = 1e-18


@dataclass(slots=True)
class _Sums:
    """Sums over samples (t, v), and over neighbours (t, v), (t2, v2)."""

    n: int = 0
    t: float = 0.0
    v: float = 0.0
    tt: float = 0.0
    tv: float = 0.0
    vv: float = 0.0
    next_tt: float = 0.0
    next_vv: float = 0.0
    next_tv: float = 0.0
    """Of neighbours both ways: t v2 + v t2."""


@dataclass(frozen=True, slots=True)
class Line:
    """A fitted line, in percent of the mean value per day.

    Attributes:
        interval: Where the true slope lies; None if too few samples say so.
    """

    percent_per_day: float
    interval: Interval | None
    span_s: float
    n: int
    effective_n: float


class Trend:
    """Samples of one value over time, in their order.

    Args:
        origin_s: A time near the samples; those that are to be joined must share it.
        scale: A value of about their size, likewise.
    """

    def __init__(self, origin_s: float, scale: float) -> None:
        self._origin_s = origin_s
        # Squares of epochs and of bytes would leave no digits for what matters.
        self._scale = scale or 1.0
        self._sums = _Sums()
        self._first = (0.0, 0.0)
        self._last = (0.0, 0.0)

    def add(self, at_s: float, value: float) -> None:
        """Take the next sample."""
        t, v = (at_s - self._origin_s) / DAY_S, value / self._scale - 1
        sums = self._sums
        if sums.n == 0:
            self._first = (t, v)
        else:
            self._neighbours(self._last, (t, v))
        sums.n += 1
        sums.t += t
        sums.v += v
        sums.tt += t * t
        sums.tv += t * v
        sums.vv += v * v
        self._last = (t, v)

    def join(self, later: Trend) -> None:
        """Append what another accumulator has seen."""
        if later._sums.n == 0:
            return
        if self._sums.n == 0:
            self._first = later._first
        else:
            self._neighbours(self._last, later._first)
        for name in _Sums.__slots__:
            total = getattr(self._sums, name) + getattr(later._sums, name)
            setattr(self._sums, name, total)
        self._last = later._last

    @property
    def n(self) -> int:
        """Samples."""
        return self._sums.n

    @property
    def span_s(self) -> float:
        """Time from the first sample to the last."""
        return (self._last[0] - self._first[0]) * DAY_S

    def line(self, z: float = Z95) -> Line | None:
        """Fit the line; None before there are samples of two times, or if all values are 0."""
        sums = self._sums
        n = sums.n
        spread = sums.tt - sums.t * sums.t / max(n, 1)
        level = 1 + sums.v / max(n, 1)
        if n < MIN_SAMPLES or spread <= 0 or level <= 0:
            return None
        slope = (sums.tv - sums.t * sums.v / n) / spread
        start = (sums.v - slope * sums.t) / n
        rest = max(0.0, sums.vv - sums.v * sums.v / n - slope * slope * spread)
        worth = effective_n(n, self._rho(slope, start, rest))
        percent = 100 / level
        interval = None
        if worth >= MIN_SAMPLES:
            error = math.sqrt(rest / (n - 2) / spread * n / worth)
            half = _student(z, worth - 2) * error
            interval = Interval((slope - half) * percent, (slope + half) * percent)
        return Line(slope * percent, interval, self.span_s, n, worth)

    def _rho(self, slope: float, start: float, rest: float) -> float:
        """Return the lag-1 autocorrelation of what the line leaves over."""
        sums = self._sums
        if rest <= _NOISE * sums.n:
            return 0.0
        pairs = sums.n - 1
        v_both = 2 * sums.v - self._first[1] - self._last[1]
        t_both = 2 * sums.t - self._first[0] - self._last[0]
        covered = (
            sums.next_vv
            - start * v_both
            - slope * sums.next_tv
            + pairs * start * start
            + start * slope * t_both
            + slope * slope * sums.next_tt
        )
        return covered / rest

    def _neighbours(self, one: tuple[float, float], other: tuple[float, float]) -> None:
        self._sums.next_tt += one[0] * other[0]
        self._sums.next_vv += one[1] * other[1]
        self._sums.next_tv += one[0] * other[1] + one[1] * other[0]


def _student(z: float, freedom: float) -> float:
    """Return Student's quantile from the normal one (Cornish and Fisher's expansion)."""
    cubic = (z**3 + z) / 4
    quintic = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + cubic / freedom + quintic / freedom**2
