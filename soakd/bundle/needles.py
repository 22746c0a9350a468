"""Finds known values in a buffer, fast: most bytes of a log are ruled out before any is compared.

A secret, however spelt, is one long run of letters, digits and a few signs. Words of a log are
short runs; so one pass marks the runs, and only those that are long enough are searched.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import NamedTuple

from soakd.bundle.spec import Secret
from soakd.bundle.spellings import LINE_CHARS, MIN_CHARS, parts, raw_forms, spellings

_IN_RUN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/~_%=-.")
_MARKS = bytes(65 if byte in _IN_RUN else 32 for byte in range(256))
DESTINATION = "destination"
"""The kind of a value that is no secret but gets a pseudonym."""


class Hit(NamedTuple):
    """A known value at a place of the buffer."""

    start: int
    end: int
    kind: str


def marks_of(data: bytes) -> bytes:
    """Return an `A` for each byte of a run and a blank for each other one."""
    return data.translate(_MARKS)


def runs_of(marks: bytes, at_least: int) -> Iterator[tuple[int, int]]:
    """Yield begin and end of each run that is so long."""
    wanted = b"A" * at_least
    start = marks.find(wanted)
    while start >= 0:
        end = marks.find(b" ", start)
        end = len(marks) if end < 0 else end
        yield start, end
        start = marks.find(wanted, end)


class Needles:
    """The values that are looked for; more may be added at any time."""

    def __init__(self) -> None:
        self._in_runs: dict[bytes, str] = {}
        self._others: dict[bytes, str] = {}
        self._parts: dict[bytes, str] = {}
        self._raw: dict[bytes, str] = {}
        self._shortest = 1
        self.longest = 1
        self.longest_other = 0
        """Length of the longest value that is not one run."""

    def add(self, secret: Secret) -> None:
        """Look for a value from now on: a token or key in all its spellings."""
        if len(secret.value) < MIN_CHARS:
            return
        if secret.kind == DESTINATION:
            forms = frozenset({secret.value.encode("utf-8", "surrogateescape")})
        else:
            forms = spellings(secret.value)
            self._parts |= dict.fromkeys(sorted(parts(secret.value)), secret.kind)
        # In a fixed order, so that the same files make the same bundle.
        for form in sorted(forms):
            place = self._in_runs if marks_of(form) == b"A" * len(form) else self._others
            place.setdefault(form, secret.kind)
        for raw in sorted(raw_forms(secret.value)):
            self._raw.setdefault(raw, secret.kind)
        self._shortest = min(map(len, self._in_runs), default=1)
        self.longest_other = max(map(len, self._others), default=0)
        self.longest = max(map(len, [*self._in_runs, *self._others, *self._raw]), default=1)

    def find(
        self, data: bytes, marks: bytes, covered: Container[tuple[int, int]] = ()
    ) -> list[Hit]:
        """Return every place of every value; overlapping places of one value are one.

        Args:
            data: the buffer.
            marks: its `marks_of`.
            covered: runs that are replaced anyway: destinations are most of some files.
        """
        hits = [
            hit
            for needle, kind in self._others.items()
            for hit in _places(needle, kind, data, 0, len(data))
        ]
        for needles, at_least in ((self._in_runs, self._shortest), (self._parts, LINE_CHARS)):
            if not needles:
                continue
            places = [place for place in runs_of(marks, at_least) if place not in covered]
            runs = b" ".join(data[a:b] for a, b in places)
            for needle, kind in needles.items():
                if needle in runs:
                    for begin, end in places:
                        hits += _places(needle, kind, data, begin, end)
        return hits

    def find_raw(self, data: bytes) -> list[Hit]:
        """Return every place of the bytes that the values stand for."""
        return [
            hit for raw, kind in self._raw.items() for hit in _places(raw, kind, data, 0, len(data))
        ]


def _places(needle: bytes, kind: str, data: bytes, begin: int, stop: int) -> list[Hit]:
    hits: list[Hit] = []
    at = data.find(needle, begin, stop)
    while at >= 0:
        end = at + len(needle)
        if hits and at <= hits[-1].end:
            hits[-1] = Hit(hits[-1].start, end, kind)
        else:
            hits.append(Hit(at, end, kind))
        at = data.find(needle, at + 1, stop)
    return hits
