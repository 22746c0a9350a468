"""When failing calls to a node become news: a pure judge of one node's answers in a row.

One failed call is noise that its round already records. Fed with every call's end, this says when a
failure begins to matter, when the API counts as dead, and when it is back, each once per streak.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

DEAD_AFTER_CALLS: Final = 3
DEAD_AFTER_S: Final = 10.0

News = Literal["api_trouble", "api_dead", "api_back"]


@dataclass(frozen=True, slots=True)
class Streak:
    """Failures of one node's calls since the last good answer.

    Attributes:
        calls: How many in a row.
        since_s: When the first of them ended, in the caller's clock.
        dead: Whether the API was declared dead in this streak.
    """

    calls: int = 0
    since_s: float = 0.0
    dead: bool = False


def failed(streak: Streak, now_s: float) -> tuple[Streak, News | None]:
    """Take a failed call; return the new streak and what is news about it.

    Dead means several calls on end over some seconds: a restart of the node's API, which takes
    a moment, must not count.
    """
    if streak.calls == 0:
        return Streak(1, now_s), "api_trouble"
    longer = replace(streak, calls=streak.calls + 1)
    lasts_s = now_s - streak.since_s
    if not streak.dead and longer.calls >= DEAD_AFTER_CALLS and lasts_s >= DEAD_AFTER_S:
        return replace(longer, dead=True), "api_dead"
    return longer, None


def answered(streak: Streak) -> tuple[Streak, News | None]:
    """Take a good answer; it ends the streak."""
    return Streak(), "api_back" if streak.calls else None
