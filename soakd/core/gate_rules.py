"""How each metric is held against its threshold. Import from `soakd.core.gates`.

A rate, a percentile and a trend are estimates. Such a gate passes when the whole interval
satisfies it and fails when no value in the interval does; in between it is inconclusive, and says
how much longer it would need. What was plainly counted is compared as it is.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

from soakd.core.estimates import Z95, Z999, Interval, LagOne, wilson
from soakd.core.gate_parse import NEVER_FAIL, Gate
from soakd.core.series import RoundSums, Series
from soakd.core.stats import Counters

Status: TypeAlias = Literal["passed", "failed", "inconclusive", "harness_error"]

MIN_TREND_S: Final = 3600.0
"""Over less, the memory that a process takes as it starts would be a trend."""
MIN_LIVE_ROUNDS: Final = 10
"""Before so many rounds no share stops a live run."""
_MAX_ROUNDS: Final = 1_000_000
_OPS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What gates are held against.

    Attributes:
        measured: Share of the intended time in which rounds were made, 0 to 1; None if
            there was nothing to measure.
    """

    series: Series
    node_exits: int
    panics: int
    measured: float | None

    @property
    def counters(self) -> Counters:
        """All rounds by outcome."""
        return self.series.rounds.counters


class Needs(NamedTuple):
    """How much longer an inconclusive gate would need; None where nobody can say."""

    rounds: int | None = None
    seconds: float | None = None


class Found(NamedTuple):
    """What came of holding a gate against the facts; `text` is the value for people."""

    status: Status
    value: float | None
    text: str
    needs: Needs | None = None


class Look(NamedTuple):
    """How a gate is looked at.

    Attributes:
        z: Quantile for its interval.
        live: It is looked at after every round, to stop the run: that takes more certainty.
    """

    z: float = Z95
    live: bool = False


AT_END: Final = Look()
LIVE: Final = Look(Z999, live=True)


def find(gate: Gate, facts: Facts, look: Look) -> Found:
    """Hold a gate against the facts."""
    if gate.quantile is not None:
        return _visible(gate, gate.quantile, facts, look)
    return _RULES[gate.metric](gate, facts, look)


def _plain(gate: Gate, value: float) -> Status:
    if _OPS[gate.op](value, gate.threshold):
        return "passed"
    return "inconclusive" if gate.metric in NEVER_FAIL else "failed"


def _node_exits(gate: Gate, facts: Facts, _look: Look) -> Found:
    return Found(_plain(gate, facts.node_exits), facts.node_exits, f"{facts.node_exits}")


def _panics(gate: Gate, facts: Facts, _look: Look) -> Found:
    return Found(_plain(gate, facts.panics), facts.panics, f"{facts.panics}")


def _rounds(gate: Gate, facts: Facts, _look: Look) -> Found:
    sums = facts.series.rounds_over(gate.window_s)
    value = _begun(sums)
    status = _plain(gate, value)
    missing = math.ceil(gate.threshold) - value
    needs = _needed(missing, facts) if status == "inconclusive" and missing > 0 else None
    return Found(status, value, f"{value}", needs)


def _begun(sums: RoundSums) -> int:
    """Rounds that came to an end; a skipped one measured nothing."""
    return sums.counters.total - sums.counters.skipped


def _measured(gate: Gate, facts: Facts, _look: Look) -> Found:
    if facts.measured is None:
        return Found("inconclusive", None, "unknown")
    return Found(_plain(gate, facts.measured), facts.measured, f"{facts.measured:.1%}")


def _errors(gate: Gate, facts: Facts, look: Look) -> Found:
    sums = facts.series.rounds_over(gate.window_s)
    rounds = _begun(sums)
    if rounds == 0:
        return Found("inconclusive", None, "unknown", _needed(1, facts))
    share = sums.counters.error / rounds
    status = _plain(gate, share)
    if look.live and status == "failed":
        interval = wilson(sums.counters.error, rounds, look.z)
        status = _within(gate, interval) if rounds >= MIN_LIVE_ROUNDS else "inconclusive"
    return Found(status, share, f"{share:.1%}")


def _miss_streak(gate: Gate, facts: Facts, _look: Look) -> Found:
    misses = facts.series.rounds_over(gate.window_s).misses
    if misses.n == 0:
        return Found("inconclusive", None, "unknown", _needed(1, facts))
    status = _plain(gate, misses.longest)
    # A run too short for a longer streak proves nothing by having none.
    possible = math.floor(gate.threshold) + 1 if gate.op == "<=" else math.ceil(gate.threshold)
    if status == "passed" and gate.op in ("<=", "<") and misses.n < possible:
        text = f"{misses.longest} in {misses.n} rounds"
        return Found("inconclusive", misses.longest, text, _needed(possible - misses.n, facts))
    return Found(status, misses.longest, f"{misses.longest}")


def _hit_rate(gate: Gate, facts: Facts, look: Look) -> Found:
    sums = facts.series.rounds_over(gate.window_s)
    return _rate(gate, sums.hits, facts, look)


def _search_hit_rate(gate: Gate, facts: Facts, look: Look) -> Found:
    sums = facts.series.rounds_over(gate.window_s)
    return _rate(gate, sums.searched, facts, look)


def _rate(gate: Gate, hits: LagOne, facts: Facts, look: Look) -> Found:
    share = hits.share
    if share is None:
        return Found("inconclusive", None, "unknown", _needed(1, facts))
    interval = hits.interval(look.z)
    text = (
        f"{share:.1%} (interval {interval.low:.1%} to {interval.high:.1%},"
        f" {hits.n} rounds worth {hits.effective_n:.0f})"
    )
    # No interval ever reaches all or nothing: there one exception decides.
    status = _plain(gate, share) if gate.threshold in (0, 1) else _within(gate, interval)
    if look.live and hits.n < MIN_LIVE_ROUNDS:
        status = "inconclusive"
    needs = None
    if status == "inconclusive":
        worth = hits.effective_n
        needs = _more(worth, hits.n / worth, lambda n: _within(gate, _at(share, n, look)), facts)
    return Found(status, share, text, needs)


def _visible(gate: Gate, quantile: float, facts: Facts, look: Look) -> Found:
    """A percentile is below a time exactly if enough is seen within that time."""
    sums = facts.series.rounds_over(gate.window_s)
    if sums.seen.n == 0:
        return Found("inconclusive", None, "unknown", _needed(1, facts))
    wants_seen = gate.op in ("<", "<=")
    seen = sums.seen.within(gate.threshold, inclusive=gate.op in ("<=", ">"))
    worth = seen.n * sums.hits.effective_n / sums.hits.n

    def status_at(share_of: Interval) -> Status:
        if share_of.low >= quantile:
            return "passed" if wants_seen else "failed"
        if share_of.high < quantile:
            return "failed" if wants_seen else "passed"
        return "inconclusive"

    value = sums.seen.quantile_s(quantile)
    longest_s = sums.seen.longest_s
    text = f"beyond {longest_s:.1f} s" if value is None else f"{value:.1f} s"
    status = status_at(_at(seen.share, worth, look))
    if not seen.is_watched and seen.share < quantile:
        # Misses that were given up earlier say nothing about so late a time.
        return Found("inconclusive", value, f"{text}, and no round was watched for longer")
    if look.live and sums.seen.n < MIN_LIVE_ROUNDS:
        status = "inconclusive"
    text += f" ({seen.share:.1%} seen within {gate.threshold:g} s)"
    needs = None
    if status == "inconclusive":
        rounds_each = sums.seen.n / worth
        needs = _more(worth, rounds_each, lambda n: status_at(_at(seen.share, n, look)), facts)
    return Found(status, value, text, needs)


def _memory(gate: Gate, facts: Facts, look: Look) -> Found:
    """A trend is judged of every node that the gate is about; the worst one counts."""
    nodes = facts.series.nodes if gate.node is None else (gate.node,)
    found = [_memory_of(node, gate, facts.series, look) for node in nodes]
    for status in ("failed", "inconclusive"):
        worst = [item for item in found if item.status == status]
        if worst:
            return max(worst, key=_distance(gate))
    if not found:
        return Found("inconclusive", None, "unknown", Needs(seconds=MIN_TREND_S))
    return max(found, key=_distance(gate))


def _distance(gate: Gate) -> Callable[[Found], float]:
    """Order nodes: first what is nearest to breaking the gate, or furthest beyond it."""
    sign = 1 if gate.op in ("<", "<=") else -1
    return lambda found: -math.inf if found.value is None else sign * found.value


def _memory_of(node: str, gate: Gate, series: Series, look: Look) -> Found:
    trend = series.memory_over(node, gate.window_s)
    line = None if trend is None else trend.line(look.z)
    span_s = 0.0 if trend is None else trend.span_s
    # A window shorter than an hour was chosen by somebody who knows the node.
    window_s = math.inf if gate.window_s is None else gate.window_s
    least_s = min(MIN_TREND_S, 0.9 * window_s)
    if line is None or line.interval is None or span_s < least_s:
        needs = Needs(seconds=max(60.0, least_s - span_s))
        value = None if line is None else line.percent_per_day
        return Found("inconclusive", value, f"not known yet on node {node}", needs)
    slope, interval = line.percent_per_day, line.interval
    text = (
        f"{slope:+.2f} %/day on node {node}"
        f" (interval {interval.low:+.2f} to {interval.high:+.2f} over {_span(span_s)})"
    )
    status = _within(gate, interval)
    needed: Needs | None = None
    if status == "inconclusive" and slope != gate.threshold:
        # The error of a slope falls with the time by the power of one and a half.
        half = (interval.high - interval.low) / 2
        times = (half / abs(slope - gate.threshold)) ** (2 / 3)
        needed = Needs(seconds=max(60.0, span_s * (times - 1)))
    return Found(status, slope, text, needed)


_RULES: Final[Mapping[str, Callable[[Gate, Facts, Look], Found]]] = {
    "rounds": _rounds,
    "node_exits": _node_exits,
    "panics": _panics,
    "max_miss_streak": _miss_streak,
    "errors": _errors,
    "measured": _measured,
    "hit_rate": _hit_rate,
    "search_hit_rate": _search_hit_rate,
    "rss.trend": _memory,
}


def _within(gate: Gate, interval: Interval) -> Status:
    """Compare both ends of an interval."""
    holds = [_OPS[gate.op](end, gate.threshold) for end in interval]
    if all(holds):
        return "passed"
    return "inconclusive" if any(holds) else "failed"


def _at(share: float, worth: float, look: Look) -> Interval:
    return wilson(share * worth, worth, look.z)


def _more(
    worth: float, rounds_each: float, status_at: Callable[[float], Status], facts: Facts
) -> Needs | None:
    """Return what would decide if the share stays as it is; None if hardly anything would.

    Args:
        worth: Independent observations so far.
        rounds_each: Rounds that make one of them.
        status_at: What the gate would come to at so many.
        facts: Say how long a round takes.
    """
    low, high = worth, max(2.0, 2 * worth)
    while status_at(high) == "inconclusive":
        low, high = high, 2 * high
        if high > _MAX_ROUNDS:
            return None
    while high - low > 0.5:
        middle = (low + high) / 2
        if status_at(middle) == "inconclusive":
            low = middle
        else:
            high = middle
    return _needed(max(1, math.ceil((high - worth) * rounds_each)), facts)


def _needed(rounds: int, facts: Facts) -> Needs:
    period_s = facts.series.rounds.period_s
    return Needs(rounds, None if period_s is None else rounds * period_s)


def needs_text(needs: Needs) -> str:
    """Return `about 40 more rounds (2.5 h) would tell`."""
    rounds, seconds = needs
    if rounds is None:
        return f"about {_span(seconds or 0.0)} more would tell"
    what = "1 more round" if rounds == 1 else f"about {rounds} more rounds"
    return f"{what} would tell" if seconds is None else f"{what} ({_span(seconds)}) would tell"


def _span(seconds: float) -> str:
    for unit, unit_s in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.1f} {unit}"
    return f"{seconds:.0f} s"
