"""The two clocks of the simulated node; it may not import `soakd.edge.clock`."""

from __future__ import annotations

import time


def now() -> float:
    """Seconds of a clock that only goes forward: durations and timers."""
    return time.monotonic()


def wall() -> float:
    """Seconds since 1970: log lines and dates."""
    return time.clock_gettime(time.CLOCK_REALTIME)


class _DateCache:
    """The Date header of the current second."""

    def __init__(self) -> None:
        self.second = -1
        self.text = ""

    def __call__(self) -> str:
        second = int(wall())
        if second != self.second:
            self.second = second
            self.text = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(second))
        return self.text


http_date = _DateCache()
