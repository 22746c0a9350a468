"""Recent soak-hours: how much of the host each user had lately.

The queue lets the user with the fewest go first. An hour of soaking counts in full while it
happens and half as much with every day that has passed since, so nobody pays for last month.
All times are seconds of one clock; hours of a run count once, however many nodes it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

HALF_LIFE_S: Final = 86_400.0
_MEAN_LIFE_H: Final = HALF_LIFE_S / 3600.0 / 0.6931471805599453


class Spell(NamedTuple):
    """One run of a user: from its slot to its end, or until now while `to_s` is None."""

    uid: int
    from_s: float
    to_s: float | None = None


def recent_hours(spells: Iterable[Spell], now_s: float) -> dict[int, float]:
    """Return the soak-hours of each user, halved for every day since.

    A spell that begins after now (a clock was set back) counts nothing; one that ends after now
    counts up to now.
    """
    hours: dict[int, float] = {}
    for spell in spells:
        until_s = now_s if spell.to_s is None else min(spell.to_s, now_s)
        if spell.from_s < until_s:
            counted = _MEAN_LIFE_H * (_left(now_s - until_s) - _left(now_s - spell.from_s))
            hours[spell.uid] = hours.get(spell.uid, 0.0) + counted
    return hours


def later(usage: Mapping[int, float], soaking: Iterable[int], elapsed_s: float) -> dict[int, float]:
    """Return the soak-hours `elapsed_s` later.

    Args:
        usage: Hours by user now.
        soaking: The user of each run that goes on all that time, once per run.
        elapsed_s: 0 or more.
    """
    left = _left(elapsed_s)
    hours = {uid: had * left for uid, had in usage.items()}
    for uid in soaking:
        hours[uid] = hours.get(uid, 0.0) + _MEAN_LIFE_H * (1.0 - left)
    return hours


def _left(elapsed_s: float) -> float:
    return float(0.5 ** (elapsed_s / HALF_LIFE_S))
