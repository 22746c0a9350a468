"""What chance decides, as a pure function of seed, stream and ordinal.

Every drawn number of a node comes from here, so that two nodes with equal seeds and equal calls
behave alike. splitmix64 rather than `random`: no state, and importing `random` costs 4 MB.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, cast, get_args

_MASK = (1 << 64) - 1

Outcome = Literal["prestored", "hit", "late", "miss"]
OUTCOMES: tuple[str, ...] = get_args(Outcome)
KeywordOutcome = Literal["hit", "late", "miss", "local"]
KEYWORD_OUTCOMES: tuple[str, ...] = get_args(KeywordOutcome)

# One stream per kind of decision: a change in the number of draws of one leaves the others alone.
PUBLISH, PUBLISH_LATENCY, ANSWER_LATENCY, SIGINT, KEYWORD = range(1, 6)
KEYWORD_LATENCY, KEYWORD_ANSWER_LATENCY = 6, 7


def _mixed(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def draw(seed: int, stream: int, ordinal: int) -> float:
    """Return a number in [0, 1) that depends on nothing but the arguments."""
    return (_mixed(_mixed(_mixed(seed & _MASK) ^ stream) ^ ordinal) >> 11) / (1 << 53)


class Odds(NamedTuple):
    """Shares of the outcomes of publishes; what is left to 1 is a miss.

    A `script` of outcomes (checked when it was read) replaces the shares and repeats.
    """

    prestored: float
    hit: float
    late: float
    script: tuple[str, ...] = ()


class KeywordOdds(NamedTuple):
    """Shares of the outcomes of keyword publishes; what is left to 1 stays local."""

    hit: float
    late: float
    miss: float
    script: tuple[str, ...] = ()


def outcome_of(odds: Odds, seed: int, ordinal: int) -> Outcome:
    """Return the fate of the publish number `ordinal`, counted from 0."""
    shares = (("prestored", odds.prestored), ("hit", odds.hit), ("late", odds.late))
    drawn = draw(seed, PUBLISH, ordinal)
    return cast("Outcome", _chosen(shares, "miss", odds.script, ordinal, drawn))


def keyword_outcome_of(odds: KeywordOdds, seed: int, ordinal: int) -> KeywordOutcome:
    """Return the fate of the keyword publish number `ordinal`, counted from 0."""
    shares = (("hit", odds.hit), ("late", odds.late), ("miss", odds.miss))
    drawn = draw(seed, KEYWORD, ordinal)
    return cast("KeywordOutcome", _chosen(shares, "local", odds.script, ordinal, drawn))


def _chosen(
    shares: tuple[tuple[str, float], ...],
    rest: str,
    script: tuple[str, ...],
    ordinal: int,
    drawn: float,
) -> str:
    if script:
        return script[ordinal % len(script)]
    reached = 0.0
    for name, share in shares:
        reached += share
        if drawn < reached:
            return name
    return rest


class Dice:
    """The draws of one node, numbered per stream."""

    __slots__ = ("_counts", "_seed")

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._counts: dict[int, int] = {}

    def next_ordinal(self, stream: int) -> int:
        """Return the ordinal of the next decision of this stream, from 0."""
        ordinal = self._counts.get(stream, 0)
        self._counts[stream] = ordinal + 1
        return ordinal

    def happens(self, stream: int, rate: float) -> bool:
        """Draw once: true in `rate` of the cases."""
        return draw(self._seed, stream, self.next_ordinal(stream)) < rate

    def between(self, stream: int, low: float, high: float) -> float:
        """Draw once: a number in [low, high)."""
        return low + draw(self._seed, stream, self.next_ordinal(stream)) * max(0.0, high - low)

    def outcome(self, odds: Odds) -> Outcome:
        """Draw the fate of the next publish."""
        return outcome_of(odds, self._seed, self.next_ordinal(PUBLISH))

    def keyword_outcome(self, odds: KeywordOdds) -> KeywordOutcome:
        """Draw the fate of the next keyword publish."""
        return keyword_outcome_of(odds, self._seed, self.next_ordinal(KEYWORD))
