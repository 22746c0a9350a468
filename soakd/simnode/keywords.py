"""Keyword jobs, the cache of hits, and the hits stored for others; all in memory.

The fate of a keyword publish is drawn on the publisher and travels with it, since it is the other
nodes that answer searches. The publisher stores nothing of its own for others, but it can answer
in the name of those nodes that a simulated network lacks: the dead contacts of its list.
"""

from __future__ import annotations

from typing import Any

from soakd.simnode.clock import now
from soakd.simnode.contacts import Contact
from soakd.simnode.fate import KEYWORD_ANSWER_LATENCY, KEYWORD_LATENCY, KEYWORD_OUTCOMES
from soakd.simnode.hit_table import Entry, HitTable, cache_caps, store_caps
from soakd.simnode.identity import is_id
from soakd.simnode.keyword_jobs import BATCH_EVERY_S, JOB_LIFE_S, Job
from soakd.simnode.network import Network, Parts
from soakd.simnode.status import Counters
from soakd.simnode.tracing import short_id

SHOWN_HITS = 1024
_BATCH_PEERS = 5
_ANSWER_HITS = 64
_EXPIRE_EVERY_S = 60.0


class Keywords:
    """Jobs, cache and store of one node."""

    def __init__(self, parts: Parts, network: Network) -> None:
        kad = parts.config.values["kad"]
        self._parts = parts
        self._network = network
        self._jobs: dict[str, Job] = {}
        self._cache = HitTable(cache_caps(kad), parts.counters, "keyword")
        self._stored = HitTable(store_caps(kad), parts.counters, "store_keyword")
        # What the simulated rest of the network stores for us: in no gauge and no counter.
        self._elsewhere = HitTable(store_caps(kad), Counters(), "store_keyword")
        self._expired_at = now()
        self.storing = False
        network.on("publish_key", self._serve_publish)
        network.on("publish_key_res", self._published)
        network.on("search_key", self._serve_search)
        network.on("search_key_res", self._found)

    @property
    def gauges(self) -> dict[str, int]:
        """The four keyword gauges."""
        return {
            "keyword_keywords_tracked": len(self._cache),
            "keyword_hits_total": self._cache.total,
            "store_keyword_keywords": len(self._stored),
            "store_keyword_hits_total": self._stored.total,
        }

    def publish(self, keyword_id: str, hit: dict[str, Any]) -> None:
        """Publish a hit; it stands in our own cache at once, with origin local."""
        self._cache.touch(keyword_id, now())
        self._cache.put(keyword_id, Entry(hit, "local", now()))
        fate = self._parts.dice.keyword_outcome(self._parts.config.sim.keyword_odds)
        if fate == "local":
            self._elsewhere.remove(keyword_id, hit["file_id_hex"])
        else:
            self._elsewhere.touch(keyword_id, now())
            self._elsewhere.put(keyword_id, Entry(hit, fate, now()))
        job = self._restarted(keyword_id, "publish")
        job.hit, job.fate, job.acked = hit, fate, False
        self._publish_batch(job)

    def search(self, keyword_id: str) -> None:
        """Ask the nodes nearest to the keyword for hits."""
        self._cache.touch(keyword_id, now())
        job = self._restarted(keyword_id, "search")
        job.searching = True
        self._batch(job, "search")

    def hits(self, keyword_id: str) -> list[dict[str, Any]]:
        """Return the hits known here; reading renews the interest."""
        self._cache.touch(keyword_id, now())
        latest = self._cache.get(keyword_id)[-SHOWN_HITS:]
        return [{**entry.hit, "origin": entry.mark} for entry in latest]

    def jobs(self) -> list[dict[str, Any]]:
        """Return all jobs alive, newest first."""
        self._expire_jobs()
        newest = sorted(self._jobs.values(), key=lambda job: -job.created)
        return [self._shown(job) for job in newest]

    def job(self, keyword_id: str) -> dict[str, Any] | None:
        """Return one job, or None."""
        self._expire_jobs()
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
            for table in (self._cache, self._stored, self._elsewhere):
                table.forget(keyword_id)
        return self._jobs.pop(keyword_id, None) is not None

    def maintain(self) -> None:
        """Send the next batches that are due, and forget what is too old."""
        moment = now()
        self._expire_jobs()
        for job in list(self._jobs.values()):
            if job.running and moment >= job.due:
                self._run(job)
        if moment - self._expired_at >= _EXPIRE_EVERY_S:
            self._expired_at = moment
            for table in (self._cache, self._stored, self._elsewhere):
                table.expire(moment)

    def _expire_jobs(self) -> None:
        moment = now()
        for keyword_id, job in list(self._jobs.items()):
            if moment - job.started > JOB_LIFE_S:
                del self._jobs[keyword_id]

    def _restarted(self, keyword_id: str, what: str) -> Job:
        """Begin one half of a job again, lest a new publish searches for its own hit at once."""
        job = self._jobs.setdefault(keyword_id, Job(keyword_id))
        job.started = now()
        job.due = now() + BATCH_EVERY_S
        job.asked = {asked for asked in job.asked if asked[0] != what}
        return job

    def _shown(self, job: Job) -> dict[str, Any]:
        return job.shown(len(self._cache.get(job.keyword_id)))

    def _run(self, job: Job) -> None:
        job.due = now() + BATCH_EVERY_S
        if job.publishing:
            self._publish_batch(job)
        if job.searching:
            self._batch(job, "search")

    def _publish_batch(self, job: Job) -> None:
        self._batch(job, "publish", hit=job.hit, fate=job.fate)

    def _batch(self, job: Job, what: str, **fields: Any) -> None:
        """Ask the nearest nodes that this job did not ask before."""
        kind = f"{what}_key"
        # Nearest first: of many nodes those are asked for a hit that were asked to store it.
        target = int(job.keyword_id, 16)
        live = sorted(self._network.live(), key=lambda peer: int(peer.kad_id, 16) ^ target)
        peers = [peer for peer in live if (what, peer.kad_id) not in job.asked][:_BATCH_PEERS]
        for peer in peers:
            job.asked.add((what, peer.kad_id))
            lost = what == "publish" and job.fate == "local"
            self._request(kind, peer, job.keyword_id, lost=lost, **fields)
        if not live and (what, "") not in job.asked:  # one dead contact is asked in vain
            job.asked.add((what, ""))
            self._network.lose()
            self._parts.counters.add(f"sent_{kind}_reqs")
        self._parts.tracing.info(
            "kad::service",
            f"keyword {what} batch",
            event=f"keyword_{what}_req_batch",
            keyword_id=short_id(job.keyword_id),
            sent=len(peers),
        )

    def _request(
        self, kind: str, peer: Contact, keyword_id: str, *, lost: bool, **fields: Any
    ) -> None:
        self._parts.counters.add(f"sent_{kind}_reqs")
        if lost:  # in the simulated network
            self._network.lose()
            return
        number = self._network.track(peer.kad_id, kind, keyword_id)
        delay_s = self._latency(KEYWORD_LATENCY) if kind == "publish_key" else 0.0
        self._network.send_later(delay_s, peer, kind, r=number, id=keyword_id, **fields)

    def _latency(self, stream: int) -> float:
        sim = self._parts.config.sim
        return self._parts.dice.between(stream, sim.latency_min_secs, sim.latency_max_secs)

    def _serve_publish(self, peer: Contact, message: dict[str, Any]) -> None:
        count = self._parts.counters.add
        count("recv_publish_key_reqs")
        hit, fate = _checked_hit(message.get("hit")), message.get("fate")
        keyword_id = message.get("id")
        known = isinstance(fate, str) and fate in KEYWORD_OUTCOMES
        if hit is None or not known or not is_id(keyword_id):
            count("recv_publish_key_decode_failures")
            return
        if not self.storing:
            return
        self._stored.touch(keyword_id.lower(), now())
        if self._stored.put(keyword_id.lower(), Entry(hit, str(fate), now())):
            count("new_store_keyword_hits")
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
        sim, keyword_id = self._parts.config.sim, message["id"].lower()
        entries = self._stored.get(keyword_id)
        if sim.keyword_elsewhere:
            entries += self._elsewhere.get(keyword_id)
        soon, late = (
            [entry.hit for entry in entries if entry.mark == fate][-_ANSWER_HITS:]
            for fate in ("hit", "late")
        )
        number, delay_s = message.get("r"), self._latency(KEYWORD_ANSWER_LATENCY)
        send_later = self._network.send_later
        if soon or not entries:  # else all there is comes late or is lost
            more = bool(late)
            send_later(delay_s, peer, "search_key_res", r=number, hits=soon, more=more)
        if late:
            delay_s = max(delay_s, sim.late_secs)
            send_later(delay_s, peer, "search_key_res", r=number, hits=late, more=False)

    def _found(self, peer: Contact, message: dict[str, Any]) -> None:
        more = message.get("more") is True
        tracked = self._network.match(peer, "search_key", message, more=more)
        given = message.get("hits")
        if tracked is None or not isinstance(given, list):
            return
        hits = [hit for hit in map(_checked_hit, given[:_ANSWER_HITS]) if hit is not None]
        count = self._parts.counters.add
        count("recv_search_ress")
        count("search_results", len(hits))
        count("keyword_results", len(hits))
        keyword_id = tracked.context
        if keyword_id not in self._cache:
            if self._parts.config.get("kad", "service_keyword_require_interest"):
                return
            self._cache.touch(keyword_id, now())
        for hit in hits:
            if self._cache.put(keyword_id, Entry(hit, "network", now())):
                count("new_keyword_results")


def _checked_hit(value: object) -> dict[str, Any] | None:
    if not isinstance(value, dict) or not is_id(value.get("file_id_hex")):
        return None
    name, size, kind = value.get("filename"), value.get("file_size"), value.get("file_type")
    if not isinstance(name, str) or not isinstance(size, int):
        return None
    hit: dict[str, Any] = {"file_id_hex": value["file_id_hex"], "filename": name, "file_size": size}
    return hit | {"file_type": kind} if isinstance(kind, str) else hit
