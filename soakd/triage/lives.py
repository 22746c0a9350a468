"""Follows one node's process through its snapshots: restarts, and lifetime totals across them.

`uptime_secs` begins anew when the process restarts and when only its SAM session is made again; a
lifetime total begins anew only with the process. So a fall of the uptime is a restart if any
total fell with it. A process that began within the run has counted everything since then, from 0.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from soakd.triage.fields import LIFETIME, UPTIME
from soakd.triage.lines import text
from soakd.triage.status_batch import Batch

MAX_RESTARTS = 200
MAX_HEAD_BYTES = 40
# Whatever a process does, these grow fast.
_TELLING = ("sent_reqs_total", "recv_ress_total")
_KEYS = (UPTIME, *sorted(LIFETIME))


class Restart(NamedTuple):
    """One new beginning; `kind` is `process` or `session`."""

    at: str
    kind: str
    uptime_before_s: int
    uptime_s: int


class Lives:
    """The lives of one node.

    Attributes:
        restarts: the first `MAX_RESTARTS` of them.
        processes: restarts of the process, all of them.
        sessions: new sessions of a process that went on, all of them.
        uptime_s: uptime that the totals' growth belongs to.
        grown: growth of each lifetime total, across restarts.
    """

    def __init__(self) -> None:
        self.restarts: list[Restart] = []
        self.processes = 0
        self.sessions = 0
        self.uptime_s = 0
        self.grown: dict[str, int] = {}
        self._first: tuple[str, dict[str, int]] | None = None
        self._last: dict[str, int] | None = None

    def add(self, heads: Sequence[bytes], batch: Batch) -> None:
        """Take a batch of lines; the heads have their times.

        Within a life only its first and last line matter: what lies between adds up.
        """
        falls = set(_falls(batch.uptimes))
        # A process may have overtaken its old uptime between two lines: its totals have not.
        for key in _TELLING:
            if key in batch.lines[0]:
                falls.update(_falls([line[key] for line in batch.lines]))
        marks = {0, len(heads) - 1, *falls, *(n - 1 for n in falls)}
        for n in sorted(marks):
            self.add_one(time_text(heads[n]), batch.lines[n])

    def add_one(self, at: str, fields: Mapping[str, int]) -> None:
        """Take one line; one without uptime says nothing."""
        if UPTIME not in fields:
            return
        now = {key: fields[key] for key in _KEYS if key in fields}
        if self._last is None:
            self._first = (at, now)
        else:
            self._follow(self._last, at, now)
        self._last = now

    def join(self, later: Lives) -> None:
        """Append what another one has seen."""
        if later._first is None:
            return
        self.add_one(*later._first)
        self.restarts = (self.restarts + later.restarts)[:MAX_RESTARTS]
        self.processes += later.processes
        self.sessions += later.sessions
        self.uptime_s += later.uptime_s
        for key, value in later.grown.items():
            self.grown[key] = self.grown.get(key, 0) + value
        self._last = later._last

    def dump(self) -> list[Any]:
        """Return all of it as plain data."""
        numbers = [self.processes, self.sessions, self.uptime_s]
        return [self.restarts, *numbers, self.grown, self._first, self._last]

    def load(self, data: list[Any]) -> None:
        """Take what `dump` gave."""
        restarts, self.processes, self.sessions, self.uptime_s, self.grown = data[:5]
        self.restarts = [Restart(*restart) for restart in restarts]
        self._first = None if data[5] is None else (data[5][0], data[5][1])
        self._last = data[6]

    def _follow(self, last: Mapping[str, int], at: str, now: Mapping[str, int]) -> None:
        is_process = _fell(last, now)
        is_new = is_process or now[UPTIME] < last[UPTIME]
        if is_new:
            self.processes += is_process
            self.sessions += not is_process
            if len(self.restarts) < MAX_RESTARTS:
                kind = "process" if is_process else "session"
                self.restarts.append(Restart(at, kind, last[UPTIME], now[UPTIME]))
        self.uptime_s += now[UPTIME] - (0 if is_new else last[UPTIME])
        for key in LIFETIME:
            if key in now and (is_process or key in last):
                grown = now[key] - (0 if is_process else last[key])
                self.grown[key] = self.grown.get(key, 0) + grown


def _falls(values: Sequence[int]) -> Iterator[int]:
    """Yield the places of values that are less than the one before."""
    if any(map(operator.lt, values[1:], values)):
        yield from (n for n in range(1, len(values)) if values[n] < values[n - 1])


def time_text(head: bytes) -> str:
    """Return the time that a line begins with."""
    return text(head[:MAX_HEAD_BYTES].split(b"\t", 1)[0])


def _fell(last: Mapping[str, int], now: Mapping[str, int]) -> bool:
    return any(now[key] < last[key] for key in LIFETIME if key in now and key in last)
