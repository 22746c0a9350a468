"""Sums many status lines of one node at once.

A node writes the same fields in the same order for as long as it is the same program. That is
proven for a whole batch by comparing it without its digits; then a value is the only match of
`"key":digits` in its line, the lines are parsed, and columns are summed. A batch with any surprise
in it is refused, to be read line by line.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Sequence
from itertools import compress, pairwise
from typing import Any, NamedTuple

from soakd.triage.fields import OLD_COUNTERS, UPTIME, WINDOW

_DIGITS = b"0123456789"
_FIELD = re.compile(rb'"([a-z0-9_]{1,80})":([0-9]{1,18})')
_MOST_FIELDS = 1000

Fields = dict[str, int]
"""What one line says."""


@functools.cache
def parser() -> Callable[[bytes], Any]:
    """Return the fastest parser of JSON that is there: orjson takes a fourth of json's time.

    Not at the top: it takes ten milliseconds to load, which processes can spend side by side.
    """
    try:
        import orjson  # noqa: PLC0415
    except ImportError:
        return json.loads
    return orjson.loads


class Batch(NamedTuple):
    """Lines of one layout, and what they come to; of fields that nobody asks for nothing is kept.

    Attributes:
        lines: each by itself.
        uptimes: of each.
        sums: of the window counters of new snapshots; `largest` is of all lines.
        snapshots: how many are new: have not the uptime of the line before.
    """

    lines: Sequence[Fields]
    uptimes: Sequence[int]
    sums: Fields
    largest: Fields
    snapshots: int


class Layout:
    """The fields of a node's status lines, in their order.

    Attributes:
        keys: their names.
    """

    def __init__(self, keys: Sequence[str], skeleton: bytes) -> None:
        self.keys = frozenset(keys)
        self._skeleton = skeleton
        self._uptime = keys.index(UPTIME)
        self._summed = [(key, place) for place, key in enumerate(keys) if key in WINDOW]
        self._watched = [(key, place) for place, key in enumerate(keys) if key in OLD_COUNTERS]

    @classmethod
    def of(cls, body: bytes) -> Layout | None:
        """Learn the layout from one line's object.

        Returns:
            None if it is no flat object of plain numbers, or has no uptime.
        """
        if body[:1] != b"{" or body[-1:] != b"}":
            return None
        keys = []
        for field in body[1:-1].split(b",", _MOST_FIELDS):
            found = _FIELD.fullmatch(field)
            if found is None:
                return None
            keys.append(found[1].decode())
        is_whole = len(set(keys)) == len(keys) and UPTIME in keys
        return cls(keys, body.translate(None, _DIGITS)) if is_whole else None

    def read(self, bodies: Sequence[bytes], uptime_before: int | None) -> Batch | None:
        """Read lines of this layout; None if any line is of another one.

        Args:
            bodies: of the lines.
            uptime_before: of the line before them.
        """
        text = b"".join((b"[", b",".join(bodies), b"]"))
        wanted = b"".join((b"[", (self._skeleton + b",") * (len(bodies) - 1), self._skeleton, b"]"))
        if text.translate(None, _DIGITS) != wanted:
            return None
        try:
            lines: list[Fields] = parser()(text)
        except ValueError:
            return None
        return self._count(lines, uptime_before)

    def _count(self, lines: list[Fields], uptime_before: int | None) -> Batch | None:
        columns = list(zip(*map(dict.values, lines), strict=True))
        uptimes = columns[self._uptime]
        is_new = [now != before for before, now in pairwise((uptime_before, *uptimes))]
        if all(is_new):
            sums = {key: sum(columns[place]) for key, place in self._summed}
        else:
            # Another text with the same uptime is the same window: it is not summed again.
            sums = {key: sum(compress(columns[place], is_new)) for key, place in self._summed}
        largest = {key: max(columns[place]) for key, place in self._watched}
        values = (*uptimes, *sums.values(), *largest.values())
        # Of numbers beyond its reach the parser makes floats.
        if not all(type(value) is int for value in values):
            return None
        return Batch(lines, uptimes, sums, largest, sum(is_new))
