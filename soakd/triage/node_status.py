"""The status lines of one node, in the order in which they stand."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from soakd.triage.fields import GAUGES, LIFETIME, OLD_COUNTERS, UPTIME, WINDOW
from soakd.triage.lives import Lives, time_text
from soakd.triage.status_batch import Layout

BATCH_LINES = 64
_DIGITS = re.compile(rb"[0-9]+")
_MAX_DIGITS = 300
_KNOWN = GAUGES | LIFETIME | WINDOW
_MAX_UNKNOWN = 100
_PLAIN = (
    "lines", "repeated", "snapshots", "sums", "largest", "last", "unreadable", "ends_readable",
    "first_at", "last_at", "first_uptime", "first_sums", "last_uptime",
)  # fmt: skip


class NodeStatus:
    """What the lines of one node come to.

    Attributes:
        lines: all of them; `repeated` says how many are like the one before.
        snapshots: different ones.
        sums: window counters, each snapshot counted once.
        largest: maximum of each counter of the old triage.
        last: their last values.
        unreadable: lines that are no object of counters.
        ends_readable: whether the last line was one, or the beginning of one.
        unknown: fields that no table knows.
        layout: of the latest lines that had one.
        first_uptime: of the first readable line; `first_sums` are its window counters.
    """

    def __init__(self, layout: Layout | None = None) -> None:
        self.lines = 0
        self.repeated = 0
        self.snapshots = 0
        self.sums: dict[str, int] = {}
        self.largest: dict[str, int] = {}
        self.last: dict[str, int] = {}
        self.unreadable = 0
        self.ends_readable = False
        self.unknown: set[str] = set()
        self.lives = Lives()
        self.first_at = ""
        self.last_at = ""
        self.first_uptime: int | None = None
        self.first_sums: dict[str, int] = {}
        self.last_uptime: int | None = None
        self.layout = layout
        self._heads: list[bytes] = []
        self._bodies: list[bytes] = []
        self._last_body = b"\n"
        self._last_head = b""

    def add(self, head: bytes, body: bytes) -> None:
        """Take the next line: `TIME ⇥ NODE ⇥`, and its object."""
        self._last_head = head
        if body == self._last_body:
            # The same snapshot once more: it changes no maximum and is counted already.
            self.repeated += 1
            return
        self._last_body = body
        self._heads.append(head)
        self._bodies.append(body)
        if len(self._bodies) >= BATCH_LINES:
            self._flush()

    def finish(self) -> None:
        """Take what is left after the last line."""
        self._flush()
        self.lines += self.repeated
        body = self._last_body
        self.last_at = time_text(self._last_head)
        self.last = {key: _old_value(key, body) for key in OLD_COUNTERS}
        # A line that is cut in its midst was written by a node that lived.
        is_cut = body.startswith(b"{") and not body.endswith(b"}")
        self.ends_readable = is_cut or _flat_counters(body) is not None

    def join(self, later: NodeStatus) -> None:
        """Append later lines; both must be finished."""
        if later.first_uptime is not None and later.first_uptime == self.last_uptime:
            # The same snapshot on both sides of the border.
            later.snapshots -= 1
            for key, value in later.first_sums.items():
                later.sums[key] -= value
        self._book(later.sums, later.largest, later.snapshots)
        self.lines += later.lines
        self.repeated += later.repeated
        self.unreadable += later.unreadable
        self.unknown |= later.unknown
        self.lives.join(later.lives)
        self.last, self.last_at = later.last, later.last_at
        self.ends_readable = later.ends_readable
        if self.first_uptime is None:
            self.first_uptime, self.first_sums = later.first_uptime, later.first_sums
        if later.last_uptime is not None:
            self.last_uptime = later.last_uptime

    def old_counters(self) -> dict[str, dict[str, int]]:
        """Return maximum and last value of each counter, as the old triage had them."""
        return {
            key: {"max": self.largest.get(key, 0), "last": self.last.get(key, 0)}
            for key in OLD_COUNTERS
        }

    def _flush(self) -> None:
        heads, bodies = self._heads, self._bodies
        self._heads, self._bodies = [], []
        if not bodies:
            return
        if self.lines == 0:
            self.first_at = time_text(heads[0])
        self.lines += len(bodies)
        if self.layout is not None and self._take(self.layout, heads, bodies):
            return
        # Lines with as many fields are of one program, most likely.
        at = 0
        for _, alike in groupby(bodies, key=lambda body: body.count(b",")):
            some = list(alike)
            self._take_alike(heads[at : at + len(some)], some)
            at += len(some)

    def _take_alike(self, heads: list[bytes], bodies: list[bytes]) -> None:
        """Take lines of which the first one shows the layout."""
        layout = Layout.of(bodies[0])
        if layout is not None and self._take(layout, heads, bodies):
            self.layout = layout
            for key in sorted(layout.keys - _KNOWN)[: _MAX_UNKNOWN - len(self.unknown)]:
                self.unknown.add(key)
            return
        for head, body in zip(heads, bodies, strict=True):
            self._take_one(time_text(head), body)

    def _take(self, layout: Layout, heads: list[bytes], bodies: list[bytes]) -> bool:
        """Take lines of one layout at once; false if they are not, and nothing was taken."""
        batch = layout.read(bodies, self.last_uptime)
        if batch is None:
            return False
        self._note_first(batch.lines[0])
        self._book(batch.sums, batch.largest, batch.snapshots)
        self.lives.add(heads, batch)
        self.last_uptime = batch.uptimes[-1]
        return True

    def _note_first(self, fields: Mapping[str, int]) -> None:
        if self.first_uptime is None and UPTIME in fields:
            self.first_uptime = fields[UPTIME]
            self.first_sums = {key: value for key, value in fields.items() if key in WINDOW}

    def _book(self, sums: Mapping[str, int], largest: Mapping[str, int], snapshots: int) -> None:
        self.snapshots += snapshots
        for key, value in sums.items():
            self.sums[key] = self.sums.get(key, 0) + value
        for key, value in largest.items():
            if value > self.largest.get(key, 0):
                self.largest[key] = value

    def _take_one(self, time: str, body: bytes) -> None:
        """Read a line that fits no layout."""
        self._book({}, {key: _old_value(key, body) for key in OLD_COUNTERS}, 0)
        fields = _flat_counters(body)
        if fields is None:
            self.unreadable += 1
            return
        uptime = fields.get(UPTIME)
        self.lives.add_one(time, fields)
        if uptime is None or uptime != self.last_uptime:
            self._book({key: value for key, value in fields.items() if key in WINDOW}, {}, 1)
        self._note_first(fields)
        if uptime is not None:
            self.last_uptime = uptime

    def dump(self) -> dict[str, Any]:
        """Return all of it as plain data; it must be finished."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        return plain | {"unknown": sorted(self.unknown), "lives": self.lives.dump()}

    @classmethod
    def load(cls, data: dict[str, Any]) -> NodeStatus:
        """Make it of what `dump` gave."""
        node = cls()
        for name in _PLAIN:
            setattr(node, name, data[name])
        node.unknown = set(data["unknown"])
        node.lives.load(data["lives"])
        return node


def _old_value(key: str, body: bytes) -> int:
    """Return the first match of `"key":digits` in a line, 0 if there is none."""
    mark = f'"{key}":'.encode()
    at = body.find(mark)
    while at >= 0:
        digits = _DIGITS.match(body, at + len(mark))
        if digits is not None:
            return int(digits[0][:_MAX_DIGITS])
        at = body.find(mark, at + 1)
    return 0


def _flat_counters(body: bytes) -> dict[str, int] | None:
    """Return the whole numbers of a status object; None if it is none."""
    try:
        data: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or not data.keys() & _KNOWN:
        return None
    return {key: value for key, value in data.items() if type(value) is int and value >= 0}
