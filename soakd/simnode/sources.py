"""The one source table of a node, and the publishes and searches that fill it.

Rows come from own publishes (at once), from publishes of others, and from search answers. They
are never expired, capped or deleted. What chance decides is decided on the publisher.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from soakd.simnode.clock import now
from soakd.simnode.contacts import Contact, Contacts
from soakd.simnode.fate import ANSWER_LATENCY, PUBLISH_LATENCY, Outcome
from soakd.simnode.identity import is_destination, is_id
from soakd.simnode.network import Network, Parts
from soakd.simnode.tracing import short_id

SHOWN_ROWS = 1024
_ANSWER_ROWS = 64
_PUBLISH_CANDIDATES = 24
_SEARCH_CANDIDATES = 32


class Row(NamedTuple):
    """One source of a file: the publisher's Kad id and address."""

    source_id: str
    destination: str


class Batch:
    """The requests of one publish or search; its first answer is counted apart."""

    __slots__ = ("answered", "file_id", "started")

    def __init__(self, file_id: str) -> None:
        self.file_id = file_id
        self.started = now()
        self.answered = False


class Sources:
    """Table, publisher, searcher and server of sources."""

    def __init__(self, parts: Parts, contacts: Contacts, network: Network) -> None:
        self._parts = parts
        self._contacts = contacts
        self._network = network
        self._own = Row(parts.identity.kad_id, parts.identity.destination)
        self._table: dict[bytes, tuple[Row, ...]] = {}
        self._rows: dict[Row, Row] = {self._own: self._own}
        # Only fates that change the answer are kept: a hit is what happens without an entry.
        self._fates: dict[bytes, Outcome] = {}
        self._entries = 0
        self.storing = False  # in bootstrap publishes are acknowledged and forgotten
        network.on("publish", self._serve_publish)
        network.on("publish_res", self._published)
        network.on("search", self._serve_search)
        network.on("search_res", self._found)

    @property
    def gauges(self) -> dict[str, int]:
        """The two gauges of the table; they only grow."""
        return {"source_store_files": len(self._table), "source_store_entries_total": self._entries}

    def rows(self, file_id: str) -> list[Row]:
        """Return the sources of a file, ordered by source id."""
        return sorted(self._table.get(bytes.fromhex(file_id), ()))[:SHOWN_ROWS]

    def publish(self, file_id: str, size: int) -> None:
        """Publish ourselves as a source; the fate of the file is drawn here."""
        parts, tracing = self._parts, self._parts.tracing
        self._store(file_id, self._own)
        tracing.info(
            "kad::service",
            "source store local publish",
            event="source_store_local_publish_upsert",
            file_id=short_id(file_id),
        )
        candidates = self._contacts.usable(4, _PUBLISH_CANDIDATES)
        if not candidates:
            return
        outcome = parts.dice.outcome(parts.config.sim.odds)
        key = bytes.fromhex(file_id)
        if outcome in ("late", "miss"):
            self._fates[key] = outcome
        else:
            self._fates.pop(key, None)
        batch = Batch(file_id)
        for peer in self._asked("publish", batch, candidates):
            if outcome != "prestored":
                self._note_sent("publish", self._network.lose(), batch)
                continue
            number = self._network.track(peer.kad_id, "publish", batch)
            self._note_sent("publish", number, batch)
            delay = self._latency(PUBLISH_LATENCY)
            self._network.send_later(delay, peer, "publish", r=number, id=file_id, size=size)

    def search(self, file_id: str, _size: int) -> None:
        """Ask the live nodes for sources of a file, once."""
        candidates = self._contacts.usable(3, _SEARCH_CANDIDATES)
        if not candidates:
            return
        batch = Batch(file_id)
        for peer in self._asked("search", batch, candidates):
            number = self._network.track(peer.kad_id, "search", batch)
            self._note_sent("search", number, batch)
            self._network.send(peer, "search", r=number, id=file_id)

    def _asked(self, what: str, batch: Batch, candidates: int) -> list[Contact]:
        """Return whom a batch reaches; pacing drops the requests to all the others.

        That is every running node, even where the real program would take fewer candidates: what
        was drawn for a publish shall happen, whichever two of many nodes publish and search.
        """
        peers = self._network.live()
        candidates = max(candidates, len(peers))
        if not peers:  # one dead contact is asked in vain
            peers = [next(c for c in self._contacts.by_id.values() if c.version >= 4)]
        count = self._parts.counters.add
        count(f"source_{what}_batch_candidates", candidates)
        count(f"source_{what}_batch_sent", len(peers))
        count(f"source_{what}_batch_send_fail", candidates - len(peers))
        count("outbound_shaper_delayed", candidates - len(peers))
        self._parts.tracing.info(
            "kad::service",
            f"sent {what} source requests",
            event=f"send_{what}_source_req_batch",
            file_id=short_id(batch.file_id),
            candidates=candidates,
            sent=len(peers),
            send_fail=candidates - len(peers),
        )
        return peers

    def _note_sent(self, what: str, number: int, batch: Batch) -> None:
        self._parts.counters.add(f"sent_{what}_source_reqs")
        self._parts.tracing.info(
            "kad::service",
            "source probe request sent",
            event="source_probe_request_sent",
            request_id=number,
            opcode=f"{what}_source_req",
            file_id=short_id(batch.file_id),
        )

    def _latency(self, stream: int) -> float:
        sim = self._parts.config.sim
        return self._parts.dice.between(stream, sim.latency_min_secs, sim.latency_max_secs)

    def _store(self, file_id: str, row: Row) -> bool:
        """Put a row into the table; say whether its source was new there."""
        key = bytes.fromhex(file_id)
        row = self._rows.setdefault(row, row)
        others = tuple(r for r in self._table.get(key, ()) if r.source_id != row.source_id)
        new = len(others) == len(self._table.get(key, ()))
        self._table[key] = (*others, row)
        if new:
            self._entries += 1
            self._parts.counters.add("new_store_source_entries")
        return new

    def _serve_publish(self, peer: Contact, message: dict[str, Any]) -> None:
        count = self._parts.counters.add
        count("recv_publish_source_reqs")
        if not is_id(message.get("id")):
            count("recv_publish_source_decode_failures")
            return
        if self.storing:
            file_id = message["id"].lower()
            new = self._store(file_id, Row(peer.kad_id, peer.destination))
            self._parts.tracing.info(
                "kad::service",
                "source store update",
                event="source_store_update",
                file_id=short_id(file_id),
                new=new,
            )
        count("sent_publish_source_ress")
        self._network.send(peer, "publish_res", r=message.get("r"))

    def _published(self, peer: Contact, message: dict[str, Any]) -> None:
        tracked = self._network.match(peer, "publish", message)
        if tracked is None:
            return
        self._parts.counters.add("recv_publish_ress")
        self._first_answer("publish", tracked.context, 0)

    def _serve_search(self, peer: Contact, message: dict[str, Any]) -> None:
        count = self._parts.counters.add
        count("recv_search_source_reqs")
        if not is_id(message.get("id")):
            count("recv_search_source_decode_failures")
            return
        file_id = message["id"].lower()
        rows = self.rows(file_id)[:_ANSWER_ROWS] if self.storing else []
        count("source_search_hits" if rows else "source_search_misses")
        count("source_search_results_served", len(rows))
        self._parts.tracing.info(
            "kad::service",
            "source store query",
            event="source_store_query",
            file_id=short_id(file_id),
            results=len(rows),
        )
        fate = self._fates.get(bytes.fromhex(file_id), "hit")
        if fate == "miss":
            return  # the simulated network loses the answer
        late = self._parts.config.sim.late_secs
        delay = late if fate == "late" else self._latency(ANSWER_LATENCY)
        self._network.send_later(
            delay, peer, "search_res", r=message.get("r"), id=file_id, rows=rows
        )

    def _found(self, peer: Contact, message: dict[str, Any]) -> None:
        tracked = self._network.match(peer, "search", message)
        rows = _checked_rows(message.get("rows"))
        if tracked is None or rows is None:
            return
        batch: Batch = tracked.context
        new = sum(self._store(batch.file_id, row) for row in rows)
        count = self._parts.counters.add
        count("recv_search_ress")
        count("search_results", len(rows))
        count("new_sources", new)
        self._parts.tracing.info(
            "kad::service",
            "source probe response matched",
            event="source_probe_response_matched",
            file_id=short_id(batch.file_id),
            results=len(rows),
            new_sources=new,
        )
        self._first_answer("search", batch, len(rows))

    def _first_answer(self, what: str, batch: Batch, results: int) -> None:
        if batch.answered:
            return
        batch.answered = True
        latency_ms = int((now() - batch.started) * 1000)
        count = self._parts.counters.add
        count(f"source_probe_first_{what}_responses")
        count(f"source_probe_{what}_latency_ms_total", latency_ms)
        if what == "search":
            count("source_probe_search_results_total", results)
        self._parts.tracing.info(
            "kad::service",
            "source probe first response",
            event=f"source_probe_{what}_first_response",
            file_id=short_id(batch.file_id),
            latency_ms=latency_ms,
        )


def _checked_rows(value: object) -> list[Row] | None:
    if not isinstance(value, list) or len(value) > _ANSWER_ROWS:
        return None
    rows = []
    for item in value:
        if not isinstance(item, list) or len(item) != 2 or not is_id(item[0]):
            return None
        if not is_destination(item[1]):
            return None
        rows.append(Row(item[0], item[1]))
    return rows
