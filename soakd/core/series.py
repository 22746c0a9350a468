"""What a run's rounds and samples come to, over the whole run and over sliding windows.

Fed with the records of rounds.ndjson and resources.ndjson, one after the other, live and offline
alike; keeps sums, never records. A window is a row of slices, each with sums of its own: it moves
in steps of a sixtieth of its length and so is up to that much shorter than it says. Windows end
at the latest record.
"""

from __future__ import annotations

import calendar
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Generic, Protocol, TypeVar

from soakd.core.estimates import LagOne, Streak, Survival
from soakd.core.stats import Counters, add, joined
from soakd.core.trend import Trend

SLICES: Final = 60
# Sixty slices share what one accumulator may hold.
_TIMES_PER_SLICE: Final = 256
# Keyword and source, each way, between 50 nodes.
MAX_FLOWS: Final = 5000
OTHER_FLOWS: Final = "other"
# Others' records are read too.
_MAX_FLOW_CHARS: Final = 200


_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(\.\d{1,9})?(?:Z|([+-])(\d\d):?(\d\d))",
    re.ASCII,
)


def epoch_of(text: object) -> float | None:
    """Return the time of a record, RFC 3339 or as the scripts wrote it; None if it is none."""
    found = _TIME.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    try:
        whole_s = calendar.timegm(tuple(int(found[place]) for place in range(1, 7)))
    except ValueError:
        return None
    east_s = int(found[9] or 0) * 3600 + int(found[10] or 0) * 60
    return whole_s + float(found[7] or 0) + (east_s if found[8] == "-" else -east_s)


class RoundSums:
    """Rounds in their order.

    Attributes:
        hits: Classified rounds, yes for hit and late; cold rounds are in `counters` alone.
        searched: The same without the prestored ones.
        misses: The longest row of misses among classified rounds; errors do not end it.
        seen: Time from the publish answer to the first sight; misses were watched in vain.
        first_at: When the first of them ended (epoch seconds).
    """

    def __init__(self, max_times: int = 4096) -> None:
        self.counters = Counters()
        self.hits = LagOne()
        self.searched = LagOne()
        self.misses = Streak()
        self.seen = Survival(max_times)
        self.first_at: float | None = None
        self.last_at: float | None = None

    def add(self, record: Mapping[str, Any], at: float | None) -> None:
        """Take a line of rounds.ndjson."""
        outcome, is_prestored = record["outcome"], bool(record.get("prestored"))
        self.counters = add(self.counters, outcome, is_prestored)
        self.first_at = at if self.first_at is None else self.first_at
        self.last_at = self.last_at if at is None else at
        # Nodes that were not warm say little of the network: cold rounds are only counted.
        if outcome not in ("hit", "late", "miss") or record.get("cold"):
            return
        is_hit = outcome != "miss"
        self.hits.add(is_hit)
        self.misses.add(not is_hit)
        if not is_prestored:
            self.searched.add(is_hit)
        sight_s = sight_of(record)
        if sight_s is not None:
            self.seen.add(sight_s, seen=is_hit)

    def join(self, later: RoundSums) -> None:
        """Append later rounds."""
        self.counters = joined(self.counters, later.counters)
        self.hits.join(later.hits)
        self.searched.join(later.searched)
        self.misses.join(later.misses)
        self.seen.join(later.seen)
        self.first_at = later.first_at if self.first_at is None else self.first_at
        self.last_at = self.last_at if later.last_at is None else later.last_at

    @property
    def period_s(self) -> float | None:
        """How long a round takes, with everything between two of them; None if unknown."""
        if self.first_at is None or self.last_at is None or self.counters.total < 2:
            return None
        return max(0.0, self.last_at - self.first_at) / (self.counters.total - 1)


def sight_of(record: Mapping[str, Any]) -> float | None:
    """Return the first sight of a hit, or how long a miss was watched; None if not recorded.

    A miss is watched from the publish answer to the end of its round.
    """
    if record["outcome"] != "miss":
        seconds = record.get("first_seen_s")
        return float(seconds) if isinstance(seconds, int | float) else None
    published, ended = epoch_of(record.get("publish_at")), epoch_of(record.get("ended_at"))
    return None if published is None or ended is None else max(0.0, ended - published)


class _Sums(Protocol):
    def join(self, later: Any, /) -> None: ...


_S = TypeVar("_S", bound=_Sums)


class _Sliding(Generic[_S]):
    """The last `window_s` of something, in slices."""

    def __init__(self, window_s: float, make: Callable[[int], _S]) -> None:
        self._slice_s = window_s / SLICES
        self._make = make
        self._slices: deque[tuple[int, _S]] = deque()

    def slice_at(self, at: float) -> _S:
        """Return the sums of the slice that this time is in; a clock set back stays in the last."""
        number = int(at // self._slice_s)
        if not self._slices or number > self._slices[-1][0]:
            self._slices.append((number, self._make(_TIMES_PER_SLICE)))
            self._forget(number)
        return self._slices[-1][1]

    def until(self, at: float) -> _S:
        """Return the sums of the window that ends at this time."""
        total = self._make(SLICES * _TIMES_PER_SLICE)
        oldest = int(at // self._slice_s) - SLICES
        for number, sums in self._slices:
            if number > oldest:
                total.join(sums)
        return total

    def _forget(self, number: int) -> None:
        while self._slices[0][0] <= number - SLICES:
            self._slices.popleft()


class _NodeMemory:
    """The memory of one node's process."""

    def __init__(self, windows_s: Iterable[float], at: float, rss_bytes: float) -> None:
        def make(_max_times: int) -> Trend:
            return Trend(at, rss_bytes)

        self.whole = make(0)
        self.windows = {window_s: _Sliding(window_s, make) for window_s in windows_s}

    def add(self, at: float, rss_bytes: float) -> None:
        self.whole.add(at, rss_bytes)
        for window in self.windows.values():
            window.slice_at(at).add(at, rss_bytes)


class FlowSums:
    """Rounds by flow, as many flows as a plan can have pairs; those beyond that count as one."""

    def __init__(self) -> None:
        self.counters: dict[str, Counters] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        """Take a line of rounds.ndjson; it must have an outcome and a flow."""
        flow = str(record["flow"])[:_MAX_FLOW_CHARS]
        if flow not in self.counters and len(self.counters) >= MAX_FLOWS:
            flow = OTHER_FLOWS
        before = self.counters.get(flow, Counters())
        self.counters[flow] = add(before, record["outcome"], bool(record.get("prestored")))


class Series:
    """Everything that gates ask of a run's records.

    Args:
        windows_s: Lengths of the windows that will be asked for.
    """

    def __init__(self, windows_s: Iterable[float] = ()) -> None:
        self.rounds = RoundSums()
        self._by_flow = FlowSums()
        self._windows_s = tuple(dict.fromkeys(windows_s))
        self._windows = {window_s: _Sliding(window_s, RoundSums) for window_s in self._windows_s}
        self._memory: dict[str, _NodeMemory] = {}
        self._latest_at = 0.0

    def round(self, record: Mapping[str, Any]) -> None:
        """Take a line of rounds.ndjson; it must have an outcome."""
        at = epoch_of(record.get("ended_at"))
        self.rounds.add(record, at)
        if "flow" in record:
            self._by_flow.add(record)
        self._latest_at = max(self._latest_at, at or 0.0)
        for window in self._windows.values():
            window.slice_at(self._latest_at if at is None else at).add(record, at)

    def resources(self, record: Mapping[str, Any]) -> None:
        """Take a line of resources.ndjson; one without time or memory is passed over."""
        at, rss_bytes = epoch_of(record.get("at")), record.get("rss_bytes")
        node = record.get("node")
        if at is None or not isinstance(rss_bytes, int | float) or not isinstance(node, str):
            return
        self._latest_at = max(self._latest_at, at)
        if node not in self._memory:
            self._memory[node] = _NodeMemory(self._windows_s, at, rss_bytes)
        self._memory[node].add(at, rss_bytes)

    @property
    def flows(self) -> Mapping[str, Counters]:
        """All rounds by flow, in the order of their first ones."""
        return self._by_flow.counters

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes of which there are samples."""
        return tuple(self._memory)

    def rounds_over(self, window_s: float | None) -> RoundSums:
        """Return the rounds of the whole run, or of its last `window_s`."""
        if window_s is None:
            return self.rounds
        return self._windows[window_s].until(self._latest_at)

    def memory_over(self, node: str, window_s: float | None) -> Trend | None:
        """Return the resident memory of a node; None if there are no samples of it."""
        memory = self._memory.get(node)
        if memory is None or window_s is None:
            return None if memory is None else memory.whole
        return memory.windows[window_s].until(self._latest_at)
