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
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from soakd.triage.fields import LIFETIME, OLD_COUNTERS, UPTIME, WINDOW

_DIGITS = b"0123456789"
_FIELD = re.compile(rb'"([a-z0-9_]{1,80})":([0-9]{1,18})')
_MOST_FIELDS = 1000
LIFETIME_KEYS = tuple(sorted(LIFETIME))

Row = Sequence[int]
"""The values of one line, in the order of the layout."""


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
    """What a batch of lines comes to; of fields that nobody asks for nothing is kept."""

    sums: dict[str, int]
    largest: dict[str, int]


class Layout:
    """The fields of a node's status lines, in their order.

    Attributes:
        keys: their names.
    """

    def __init__(self, keys: Sequence[str], skeleton: bytes) -> None:
        self.keys = frozenset(keys)
        self._skeleton = skeleton
        self._places = {key: place for place, key in enumerate(keys)}
        self._summed = [key for key in keys if key in WINDOW]
        self._watched = [key for key in keys if key in OLD_COUNTERS]

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

    def rows(self, bodies: Sequence[bytes]) -> list[Row] | None:
        """Read lines of this layout; None if any line is of another one."""
        text = b",".join(bodies)
        wanted = (self._skeleton + b",") * len(bodies)
        if text.translate(None, _DIGITS) != wanted[:-1]:
            return None
        try:
            return [tuple(item.values()) for item in parser()(b"[" + text + b"]")]
        except ValueError:
            return None

    def values(self, row: Row, keys: Iterable[str]) -> dict[str, int]:
        """Return some fields of a line; those that it lacks are left out."""
        return {key: row[self._places[key]] for key in keys if key in self._places}

    def column(self, rows: Iterable[Row], key: str) -> list[int]:
        """Return one field of each line; nothing if they lack it."""
        if key not in self._places:
            return []
        return list(map(itemgetter(self._places[key]), rows))

    def count(self, rows: Sequence[Row]) -> Batch:
        """Sum window counters and find maxima."""
        if not rows:
            return Batch({}, {})
        columns = list(zip(*rows, strict=True))
        places = self._places
        return Batch(
            {key: sum(columns[places[key]]) for key in self._summed},
            {key: max(columns[places[key]]) for key in self._watched},
        )
