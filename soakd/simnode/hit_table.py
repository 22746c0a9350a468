"""Keyword hits in memory, with caps and a lifetime: the own cache, and the store for others."""

from __future__ import annotations

from typing import Any, NamedTuple

from soakd.simnode.status import Counters


class Caps(NamedTuple):
    """The most that a table holds, and for how long; all at least 1."""

    keywords: int
    total_hits: int
    hits_per_keyword: int
    idle_s: float  # a keyword that nobody touched for so long goes, with its hits
    age_s: float  # a hit that was put so long ago goes


class Entry(NamedTuple):
    """A hit; `mark` is its origin in the cache, the fate of its publish in the store."""

    hit: dict[str, Any]
    mark: str
    put_at: float


class HitTable:
    """Hits by keyword id and file id; what was touched or put longest ago is evicted first."""

    def __init__(self, caps: Caps, counters: Counters, evicted: str) -> None:
        """Count what is evicted in `evicted_<evicted>_hits` and `…_keywords`."""
        self._caps = caps
        self._counters = counters
        self._evicted = evicted
        self._hits: dict[str, dict[str, Entry]] = {}
        self._touched: dict[str, float] = {}
        self.total = 0

    def __contains__(self, keyword_id: str) -> bool:
        """Say whether the keyword is known, be it without hits."""
        return keyword_id in self._touched

    def __len__(self) -> int:
        """Return the number of keywords."""
        return len(self._touched)

    def get(self, keyword_id: str) -> list[Entry]:
        """Return the hits of a keyword, the latest put last."""
        return list(self._hits.get(keyword_id, {}).values())

    def touch(self, keyword_id: str, now_s: float) -> None:
        """Make a keyword known, or known anew."""
        self._touched.pop(keyword_id, None)  # to the end: the first is the oldest
        self._touched[keyword_id] = now_s
        while len(self._touched) > self._caps.keywords:
            self._evict(next(iter(self._touched)))

    def put(self, keyword_id: str, entry: Entry) -> bool:
        """Put a hit of a known keyword in place of an older one; say whether its file was new."""
        hits = self._hits.setdefault(keyword_id, {})
        file_id = entry.hit["file_id_hex"]
        new = hits.pop(file_id, None) is None
        hits[file_id] = entry
        self.total += new
        if len(hits) > self._caps.hits_per_keyword:
            self._drop(keyword_id, next(iter(hits)))
        while self.total > self._caps.total_hits:
            oldest = next(known for known in self._touched if self._hits.get(known))
            self._drop(oldest, next(iter(self._hits[oldest])))
        return new

    def remove(self, keyword_id: str, file_id: str) -> None:
        """Take one hit out, which is no eviction."""
        if self._hits.get(keyword_id, {}).pop(file_id, None) is not None:
            self.total -= 1

    def forget(self, keyword_id: str) -> int:
        """Forget a keyword, which is no eviction; return how many hits went with it."""
        self._touched.pop(keyword_id, None)
        gone = len(self._hits.pop(keyword_id, {}))
        self.total -= gone
        return gone

    def expire(self, now_s: float) -> None:
        """Evict what has been there too long."""
        for keyword_id, touched_at in list(self._touched.items()):
            if now_s - touched_at > self._caps.idle_s:
                self._evict(keyword_id)
        for keyword_id, hits in self._hits.items():
            for file_id in [f for f, e in hits.items() if now_s - e.put_at > self._caps.age_s]:
                self._drop(keyword_id, file_id)

    def _evict(self, keyword_id: str) -> None:
        self._counters.add(f"evicted_{self._evicted}_keywords")
        self._counters.add(f"evicted_{self._evicted}_hits", self.forget(keyword_id))

    def _drop(self, keyword_id: str, file_id: str) -> None:
        self.remove(keyword_id, file_id)
        self._counters.add(f"evicted_{self._evicted}_hits")


def cache_caps(kad: dict[str, Any]) -> Caps:
    """Return the caps of the own cache."""
    return Caps(
        keywords=max(1, kad["service_keyword_max_keywords"]),
        total_hits=max(1, kad["service_keyword_max_total_hits"]),
        hits_per_keyword=max(1, kad["service_keyword_max_hits_per_keyword"]),
        idle_s=max(60, kad["service_keyword_interest_ttl_secs"]),
        age_s=max(60, kad["service_keyword_results_ttl_secs"]),
    )


def store_caps(kad: dict[str, Any]) -> Caps:
    """Return the caps of what is stored for others."""
    age_s = max(60, kad["service_store_keyword_evict_age_secs"])
    total = max(1, kad["service_store_keyword_max_total_hits"])
    return Caps(
        keywords=max(1, kad["service_store_keyword_max_keywords"]),
        total_hits=total,
        hits_per_keyword=total,
        idle_s=age_s,
        age_s=age_s,
    )
