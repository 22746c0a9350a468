"""Counting rounds: what came of them and the two rates that follow.

Called by the run after each recorded round and by readers of old records. The counters are
the only thing about rounds that is kept in memory, so memory does not grow with them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from soakd.core.model import Outcome


@dataclass(frozen=True, slots=True)
class Counters:
    """Rounds by outcome.

    `prestored` counts rounds of any outcome; the last two single out those of them that
    were classified, without which `search_hit_rate` could not leave out exactly these.
    """

    hit: int = 0
    late: int = 0
    miss: int = 0
    error: int = 0
    skipped: int = 0
    prestored: int = 0
    prestored_hit: int = 0
    prestored_miss: int = 0

    @property
    def total(self) -> int:
        """All recorded rounds, the skipped ones too."""
        return self.hit + self.late + self.miss + self.error + self.skipped

    @property
    def classified(self) -> int:
        """Rounds that say something about the network: the n of the hit rate."""
        return self.hit + self.late + self.miss


def add(counters: Counters, outcome: Outcome, prestored: bool) -> Counters:  # noqa: FBT001
    """Return the counters with one more round."""
    changes: dict[str, int] = {outcome: getattr(counters, outcome) + 1}
    if prestored:
        changes["prestored"] = counters.prestored + 1
        if outcome in ("hit", "late"):
            changes["prestored_hit"] = counters.prestored_hit + 1
        elif outcome == "miss":
            changes["prestored_miss"] = counters.prestored_miss + 1
    return replace(counters, **changes)


def joined(one: Counters, other: Counters) -> Counters:
    """Return the counters of both."""
    return Counters(
        **{name: getattr(one, name) + getattr(other, name) for name in Counters.__slots__}
    )


def hit_rate(counters: Counters) -> float | None:
    """Return (hit + late) / (hit + late + miss), or None before the first such round."""
    if counters.classified == 0:
        return None
    return (counters.hit + counters.late) / counters.classified


def search_hit_rate(counters: Counters) -> float | None:
    """Return the hit rate of the rounds whose file was not there before the search."""
    hits = counters.hit + counters.late - counters.prestored_hit
    misses = counters.miss - counters.prestored_miss
    if hits + misses == 0:
        return None
    return hits / (hits + misses)


def counters_to_dict(counters: Counters) -> dict[str, int]:
    """Return every field, for the store's checkpoint."""
    return {name: getattr(counters, name) for name in Counters.__slots__}


def counters_from_dict(data: Mapping[str, int]) -> Counters:
    """Read what `counters_to_dict` wrote; a field that an older release lacked is 0."""
    return Counters(**{name: int(data.get(name, 0)) for name in Counters.__slots__})


def public_counts(counters: Counters) -> dict[str, int]:
    """Return the `rounds` map of `soakctl status --json`."""
    return {
        "total": counters.total,
        "hit": counters.hit,
        "late": counters.late,
        "miss": counters.miss,
        "error": counters.error,
        "skipped": counters.skipped,
        "prestored": counters.prestored,
    }
