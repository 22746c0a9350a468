"""Keyword jobs, the cache of hits, and the hits stored for others; all in memory."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from soakd.simnode.clock import now
from soakd.simnode.contacts import Contact
from soakd.simnode.fate import KEYWORD
from soakd.simnode.identity import is_id
from soakd.simnode.md4 import md4_hex
from soakd.simnode.network import Network, Parts
from soakd.simnode.tracing import short_id

SHOWN_HITS = 1024
JOB_LIFE_S = 7200.0
BATCH_EVERY_S = 45.0
_BATCH_PEERS = 5
_ANSWER_HITS = 64
_SEPARATORS = re.compile(r"[\s()\[\]{}<>,._\-!?:;\\/\"]+")

Hits = dict[str, dict[str, Any]]


class Keyword(NamedTuple):
    """A keyword as asked for: its word ("" when an id was given) and its id."""

    word: str
    keyword_id: str


class Job:
    """What a node does for one keyword."""

    __slots__ = ("acked", "asked", "created", "hit", "keyword_id", "searching", "started")

    def __init__(self, keyword_id: str) -> None:
        self.keyword_id = keyword_id
        self.created = self.started = now()
        self.hit: dict[str, Any] | None = None  # what is published
        self.searching = False
        self.acked = False
        self.asked: set[tuple[str, str]] = set()

    @property
    def running(self) -> bool:
        """Say whether requests are still to be sent."""
        return self.searching or (self.hit is not None and not self.acked)


def keyword_of(query: str) -> Keyword | None:
    """Return the first usable word of a query; None if there is none."""
    for word in _SEPARATORS.split(query.lower()):
        if len(word.encode()) >= 3:
            return Keyword(word, md4_hex(word.encode()))
    return None


class Keywords:
    """Jobs, cache and store of one node."""

    def __init__(self, parts: Parts, network: Network) -> None:
        self._parts = parts
        self._network = network
        self._jobs: dict[str, Job] = {}
        self._cache: dict[str, Hits] = {}
        self._interest: dict[str, float] = {}
        self._stored: dict[str, Hits] = {}
        self.storing = False
        network.on("publish_key", self._serve_publish)
        network.on("publish_key_res", self._published)
        network.on("search_key", self._serve_search)
        network.on("search_key_res", self._found)

    @property
    def gauges(self) -> dict[str, int]:
        """The four keyword gauges."""
        return {
            "keyword_keywords_tracked": len(self._interest),
            "keyword_hits_total": sum(map(len, self._cache.values())),
            "store_keyword_keywords": len(self._stored),
            "store_keyword_hits_total": sum(map(len, self._stored.values())),
        }

    def publish(self, keyword_id: str, hit: dict[str, Any]) -> None:
        """Publish a hit; it stands in our own cache at once, with origin local."""
        cached = self._touched(keyword_id)
        cached[hit["file_id_hex"]] = {**hit, "origin": "local"}
        job = self._restarted(keyword_id)
        job.hit, job.acked = hit, False
        self._run(job)

    def search(self, keyword_id: str) -> None:
        """Ask the live nodes for hits."""
        self._touched(keyword_id)
        job = self._restarted(keyword_id)
        job.searching = True
        self._run(job)

    def hits(self, keyword_id: str) -> list[dict[str, Any]]:
        """Return the hits known here; reading renews the interest."""
        cached = list(self._touched(keyword_id).values())[:SHOWN_HITS]
        if not cached:
            self._cache.pop(keyword_id, None)
        return cached

    def jobs(self) -> list[dict[str, Any]]:
        """Return all jobs alive, newest first."""
        self._expire()
        newest = sorted(self._jobs.values(), key=lambda job: -job.created)
        return [self._shown(job) for job in newest]

    def job(self, keyword_id: str) -> dict[str, Any] | None:
        """Return one job, or None."""
        self._expire()
        job = self._jobs.get(keyword_id)
        return None if job is None else self._shown(job)

    def stop(self, keyword_id: str) -> bool:
        """Stop a job, and say whether there was one."""
        job = self._jobs.get(keyword_id)
        if job is None:
            return False
        job.searching, job.hit = False, None
        return True

    def delete(self, keyword_id: str, *, purge: bool) -> bool:
        """Forget a job, with `purge` its hits too; say whether there was one."""
        if purge:
            for table in (self._cache, self._interest, self._stored):
                table.pop(keyword_id, None)
        return self._jobs.pop(keyword_id, None) is not None

    def maintain(self) -> None:
        """Send the next batches of running jobs; called every 45 s."""
        self._expire()
        for job in list(self._jobs.values()):
            self._run(job)

    def _expire(self) -> None:
        moment = now()
        for keyword_id, job in list(self._jobs.items()):
            if moment - job.started > JOB_LIFE_S:
                del self._jobs[keyword_id]
        ttl = max(60, self._parts.config.get("kad", "service_keyword_interest_ttl_secs"))
        for keyword_id, touched in list(self._interest.items()):
            if moment - touched > ttl:
                self._evict(keyword_id)

    def _evict(self, keyword_id: str) -> None:
        del self._interest[keyword_id]
        self._parts.counters.add("evicted_keyword_keywords")
        gone = len(self._cache.pop(keyword_id, {}))
        self._parts.counters.add("evicted_keyword_hits", gone)

    def _touched(self, keyword_id: str) -> Hits:
        self._interest.pop(keyword_id, None)  # to the end: the first is the oldest
        self._interest[keyword_id] = now()
        most = max(1, self._parts.config.get("kad", "service_keyword_max_keywords"))
        while len(self._interest) > most:
            self._evict(next(iter(self._interest)))
        return self._cache.setdefault(keyword_id, {})

    def _restarted(self, keyword_id: str) -> Job:
        job = self._jobs.setdefault(keyword_id, Job(keyword_id))
        job.started = now()
        job.asked.clear()
        return job

    def _run(self, job: Job) -> None:
        for peer in self._network.live()[:_BATCH_PEERS]:
            if job.hit is not None and not job.acked and self._first(job, "publish", peer):
                self._request("publish_key", peer, job, hit=job.hit)
            if job.searching and self._first(job, "search", peer):
                self._request("search_key", peer, job)

    def _first(self, job: Job, what: str, peer: Contact) -> bool:
        """Say whether this peer was not asked before, and note it as asked."""
        first = (what, peer.kad_id) not in job.asked
        job.asked.add((what, peer.kad_id))
        return first

    def _request(self, kind: str, peer: Contact, job: Job, **fields: Any) -> None:
        number = self._network.track(peer.kad_id, kind, job.keyword_id)
        self._parts.counters.add(f"sent_{kind}_reqs")
        what = kind.removesuffix("_key")
        self._parts.tracing.info(
            "kad::service",
            f"keyword {what} batch",
            event=f"keyword_{what}_req_batch",
            keyword_id=short_id(job.keyword_id),
            sent=1,
        )
        sim = self._parts.config.sim
        if kind == "publish_key" and not self._parts.dice.happens(KEYWORD, sim.keyword_hit_rate):
            return  # lost in the simulated network
        self._network.send(peer, kind, r=number, id=job.keyword_id, **fields)

    def _serve_publish(self, peer: Contact, message: dict[str, Any]) -> None:
        count = self._parts.counters.add
        count("recv_publish_key_reqs")
        hit = _checked_hit(message.get("hit"))
        if hit is None or not is_id(message.get("id")):
            count("recv_publish_key_decode_failures")
            return
        if not self.storing:
            return
        stored = self._stored.setdefault(message["id"].lower(), {})
        if hit["file_id_hex"] not in stored:
            count("new_store_keyword_hits")
        stored[hit["file_id_hex"]] = hit
        most = max(1, self._parts.config.get("kad", "service_store_keyword_max_keywords"))
        while len(self._stored) > most:
            gone = self._stored.pop(next(iter(self._stored)))
            count("evicted_store_keyword_keywords")
            count("evicted_store_keyword_hits", len(gone))
        count("sent_publish_key_ress")
        self._network.send(peer, "publish_key_res", r=message.get("r"))

    def _published(self, peer: Contact, message: dict[str, Any]) -> None:
        tracked = self._network.match(peer, "publish_key", message)
        if tracked is None:
            return
        self._parts.counters.add("recv_publish_key_ress")
        job = self._jobs.get(tracked.context)
        if job is not None:
            job.acked = True

    def _serve_search(self, peer: Contact, message: dict[str, Any]) -> None:
        self._parts.counters.add("recv_search_key_reqs")
        if not self.storing or not is_id(message.get("id")):
            return
        hits = list(self._stored.get(message["id"].lower(), {}).values())[:_ANSWER_HITS]
        self._network.send(peer, "search_key_res", r=message.get("r"), hits=hits)

    def _found(self, peer: Contact, message: dict[str, Any]) -> None:
        tracked = self._network.match(peer, "search_key", message)
        given = message.get("hits")
        if tracked is None or not isinstance(given, list):
            return
        hits = [hit for hit in map(_checked_hit, given[:_ANSWER_HITS]) if hit is not None]
        count = self._parts.counters.add
        count("recv_search_ress")
        count("search_results", len(hits))
        count("keyword_results", len(hits))
        cached = self._touched(tracked.context)
        for hit in hits:
            if hit["file_id_hex"] not in cached:
                count("new_keyword_results")
            cached[hit["file_id_hex"]] = {**hit, "origin": "network"}

    def _shown(self, job: Job) -> dict[str, Any]:
        return {
            "search_id_hex": job.keyword_id,
            "keyword_id_hex": job.keyword_id,
            "state": "running" if job.running else "complete",
            "created_secs_ago": int(now() - job.created),
            "hits": len(self._cache.get(job.keyword_id, {})),
            "want_search": job.searching,
            "publish_enabled": job.hit is not None,
            "got_publish_ack": job.acked,
        }


def _checked_hit(value: object) -> dict[str, Any] | None:
    if not isinstance(value, dict) or not is_id(value.get("file_id_hex")):
        return None
    name, size, kind = value.get("filename"), value.get("file_size"), value.get("file_type")
    if not isinstance(name, str) or not isinstance(size, int):
        return None
    hit: dict[str, Any] = {"file_id_hex": value["file_id_hex"], "filename": name, "file_size": size}
    return hit | {"file_type": kind} if isinstance(kind, str) else hit
