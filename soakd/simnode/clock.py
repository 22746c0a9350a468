"""The two clocks of the simulated node; it may not import `soakd.edge.clock`."""

from __future__ import annotations

import time


def now() -> float:
    """Seconds of a clock that only goes forward: durations and timers."""
    return time.monotonic()


def wall() -> float:
    """Seconds since 1970: log lines and dates."""
    return time.clock_gettime(time.CLOCK_REALTIME)
