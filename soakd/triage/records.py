"""The records that only soakd writes: rounds.ndjson, events.ndjson, resources.ndjson, run.json.

They are read as other people's files all the same: a line that is no record is counted and passed
over.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from soakd.core.model import OUTCOMES
from soakd.core.series import Series, sight_of
from soakd.core.stats import Counters, add
from soakd.core.trouble import RoundErrors
from soakd.triage.lines import batches

MAX_DOCUMENT_BYTES = 4 << 20
MAX_EVENTS = 2000
MAX_BYTES = 1 << 60
"""Of a process's memory; more is no sample."""
_ODD = (TypeError, ValueError, OverflowError)
"""What a record of odd types comes to, whoever reads it."""
# Told by the hundred, or of no use in a list of what went wrong.
_DULL = frozenset({"step_failed", "round_error", "rung", "stopping", "stopped", "panic", "swept"})


def document(pieces: Iterable[bytes]) -> dict[str, Any] | None:
    """Return a small JSON document; None if it is none."""
    data = b""
    for piece in pieces:
        data += piece
        if len(data) > MAX_DOCUMENT_BYTES:
            return None
    return _object(data)


def number(value: object) -> float | None:
    """Return a number of a record as it can be computed with; None if it is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _finite(digits: str) -> float:
    """Read a float; what JSON cannot hold is none."""
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(digits)
    return value


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        value = _DECODER.decode(data.decode())
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def objects(pieces: Iterable[bytes], bad: Counter[str], name: str) -> Iterator[dict[str, Any]]:
    """Yield each line's object; lines that hold none are counted in `bad`."""
    for lines in batches(pieces):
        for line in lines:
            value = _object(line)
            if value is not None:
                yield value
            else:
                bad[name] += 1


def samples(
    pieces: Iterable[bytes], bad: Counter[str], name: str, take: Callable[[dict[str, Any]], None]
) -> None:
    """Give each sample of resources.ndjson away; those of impossible size are counted in `bad`."""
    for sample in objects(pieces, bad, name):
        rss_bytes = sample.get("rss_bytes")
        if isinstance(rss_bytes, int | float) and not 0 <= rss_bytes <= MAX_BYTES:
            bad[name] += 1
        else:
            take(sample)


class Rounds:
    """What stands in rounds.ndjson, besides what the series keeps.

    Attributes:
        cold: rounds that began before the warm-up conditions held, in `series` too.
        prestored: rounds whose file was there before the search, by outcome.
        causes: why rounds were skipped, or were errors without a step.
        censored: misses that were watched for a known time.
        steps: which step made rounds an error.
    """

    def __init__(self, series: Series) -> None:
        self.series = series
        self.cold = Counters()
        self.prestored: Counter[str] = Counter()
        self.causes: Counter[str] = Counter()
        self.steps: Counter[str] = Counter()
        self.censored = 0
        self.first_at = ""
        self.last_at = ""

    def read(self, pieces: Iterable[bytes], bad: Counter[str]) -> None:
        """Take the whole file."""
        for record in objects(pieces, bad, "logs/rounds.ndjson"):
            seen = record.get("first_seen_s")
            is_odd = seen is not None and number(seen) is None
            if is_odd or record.get("outcome") not in OUTCOMES:
                bad["logs/rounds.ndjson"] += 1
                continue
            try:
                self.series.round(record)
            except _ODD:
                bad["logs/rounds.ndjson"] += 1
                continue
            self._take(record)

    def _take(self, record: Mapping[str, Any]) -> None:
        outcome = record["outcome"]
        if record.get("cold"):
            self.cold = add(self.cold, outcome, bool(record.get("prestored")))
        if record.get("prestored"):
            self.prestored[outcome] += 1
        if outcome == "miss" and sight_of(record) is not None:
            self.censored += 1
        error = record.get("error")
        if isinstance(error, dict) and len(self.steps) < 100:
            self.steps[str(error.get("step"))[:40]] += 1
        elif isinstance(record.get("cause"), str) and len(self.causes) < 100:
            self.causes[record["cause"][:80]] += 1
        ended_at = record.get("ended_at")
        if isinstance(ended_at, str):
            self.first_at = self.first_at or ended_at[:40]
            self.last_at = ended_at[:40]


class Events:
    """What stands in events.ndjson.

    Attributes:
        counts: all events by kind.
        notable: the first two thousand that belong into a list of what went wrong.
        gaps: times in which nobody measured.
        exits: nodes that ended before the run was being stopped.
        panics: panics that were heard.
        stopping: the run's end has begun.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.notable: list[dict[str, Any]] = []
        self.gaps: list[dict[str, Any]] = []
        self.exits = 0
        self.panics = 0
        self.errors = RoundErrors()
        self._ending = False

    def read(self, pieces: Iterable[bytes], bad: Counter[str]) -> None:
        """Take the whole file."""
        for event in objects(pieces, bad, "logs/events.ndjson"):
            kind, data = event.get("kind"), event.get("data")
            if not isinstance(kind, str) or not isinstance(data, dict):
                bad["logs/events.ndjson"] += 1
                continue
            try:
                self._take(kind[:40], event, data)
            except _ODD:
                bad["logs/events.ndjson"] += 1

    def _take(self, kind: str, event: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        node = event.get("node") if isinstance(event.get("node"), str) else None
        self.counts[kind] += 1
        self.panics += kind == "panic"
        self._ending = self._ending or kind in ("stopping", "rung")
        if kind == "round_error":
            self.errors.add(node, data.get("trouble"), str(data.get("text", ""))[:300])
        if kind == "node_exited" and not self._ending:
            self.exits += 1
        if kind == "gap" and len(self.gaps) < MAX_EVENTS:
            self.gaps.append(_gap(data))
        expected = kind == "node_exited" and self._ending
        if kind not in _DULL and not expected and len(self.notable) < MAX_EVENTS:
            at = event.get("at") if isinstance(event.get("at"), str) else ""
            text = json.dumps(data, ensure_ascii=False)[:500]
            self.notable.append({"at": at, "node": node, "kind": kind, "text": text})


def _gap(data: Mapping[str, Any]) -> dict[str, Any]:
    words = {key: data.get(key) for key in ("from", "to", "why")}
    found = {key: value[:300] if isinstance(value, str) else None for key, value in words.items()}
    return {"from": found["from"], "to": found["to"], "s": number(data.get("s")), **found}
