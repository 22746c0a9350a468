"""a.out and b.out: panic lines, panics without their repetitions, trouble that the log tells of.

A node's output can be long and almost never matters: a block is cut into lines only if a word in
it may.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from soakd.drivers import rust_mule_words
from soakd.triage.lines import text, whole

CONTEXT = 10
"""Lines before a panic, and as many after it."""
MAX_PANICS = 100
MAX_TROUBLES = 1000
# The definition is `panicked|panic!|thread .* panicked|fatal error|segmentation`, in any case.
_PANIC = re.compile(rb"panicked|panic!|fatal error|segmentation", re.IGNORECASE)
_PANIC_WORDS = (b"panic", b"fatal error", b"segmentation")
_PLACE = re.compile(r"panicked at .*?([\w./-]+\.rs:\d+:\d+)")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)")
_NUMBERS = re.compile(r"\b(?:0x[0-9a-fA-F]+|[0-9a-f]{8,}|\d+)\b")


@dataclass(slots=True)
class Panic:
    """All panic lines that differ only in numbers and times.

    Attributes:
        at: time of the last log line before the first of them; empty if there is none.
        before: up to ten lines before the first one, `after` up to ten behind it.
    """

    text: str
    count: int
    first_line: int
    last_line: int
    at: str
    before: list[str]
    after: list[str] = field(default_factory=list)


class Trouble(NamedTuple):
    """A line of the log that tells of trouble."""

    at: str
    kind: str
    text: str


class Output:
    """What one node's output tells.

    Attributes:
        panic_lines: lines with a panic's words in any case.
        panic_starts: lines with which Rust announces a panic; a gate counts these.
        panics: the first hundred different ones.
        troubles: the first thousand; `trouble_counts` has all of them by kind.
    """

    def __init__(self) -> None:
        self.lines = 0
        self.panic_lines = 0
        self.panic_starts = 0
        self.panics: list[Panic] = []
        self.other_panics = 0
        self.troubles: list[Trouble] = []
        self.trouble_counts: Counter[str] = Counter()
        self._by_key: dict[str, Panic] = {}
        self._open: list[Panic] = []
        self._before: deque[bytes] = deque(maxlen=CONTEXT)
        self._at = ""

    def read(self, pieces: Iterable[bytes]) -> None:
        """Take the whole file."""
        for block in whole(pieces):
            if places := _places(block):
                self._search(block, places)
            else:
                self._pass(block)

    def _search(self, block: bytes, places: list[int]) -> None:
        """Look at the lines that matter, and pass over those between."""
        at = 0
        for place in places:
            if place < at:
                continue
            begin = block.rfind(b"\n", at, place) + 1 or at
            if begin > at:
                self._pass(block[at : begin - 1])
            end = block.find(b"\n", place)
            end = len(block) if end < 0 else end
            self._line(block[begin:end])
            at = end + 1
        if at <= len(block):
            self._pass(block[at:])

    def _pass(self, block: bytes) -> None:
        """Count lines that do not matter; they may be context of some that do."""
        if self._open:
            for line in block.split(b"\n", CONTEXT)[:CONTEXT]:
                self._follow(line)
        self.lines += block.count(b"\n") + 1
        self._before.extend(block.rsplit(b"\n", CONTEXT)[-CONTEXT:])

    def _line(self, line: bytes) -> None:
        self.lines += 1
        if self._open:
            self._follow(line)
        if _PANIC.search(line):
            self.panic_lines += 1
            self.panic_starts += rust_mule_words.is_panic(text(line))
            self._panic(line)
        elif any(mark in line for mark in rust_mule_words.MARKS):
            self._mark(text(line))
        self._before.append(line)

    def _follow(self, line: bytes) -> None:
        """Let the line be context of the panics before it."""
        for panic in self._open:
            panic.after.append(text(line))
        self._open = [panic for panic in self._open if len(panic.after) < CONTEXT]

    def _panic(self, line: bytes) -> None:
        shown = text(line)
        known = self._by_key.get(key := _key(shown))
        if known is not None:
            known.count += 1
            known.last_line = self.lines
        elif len(self.panics) < MAX_PANICS:
            before = [text(earlier) for earlier in self._before]
            panic = Panic(shown, 1, self.lines, self.lines, _time_in([*before, shown]), before)
            self.panics.append(panic)
            self._by_key[key] = panic
            self._open.append(panic)
        else:
            self.other_panics += 1

    def _mark(self, line: str) -> None:
        kind = rust_mule_words.log_trouble(line)
        if kind is None and rust_mule_words.is_fatal(line):
            kind = "fatal"
        if kind is None:
            return
        self.trouble_counts[kind] += 1
        if len(self.troubles) < MAX_TROUBLES:
            before = [text(earlier) for earlier in self._before]
            self.troubles.append(Trouble(_time_in([*before, line]), kind, line))


def _places(block: bytes) -> list[int]:
    """Where words stand that may matter; several finds are faster than one pattern."""
    lowered = block.lower()
    places: list[int] = []
    for shown, words in ((lowered, _PANIC_WORDS), (block, rust_mule_words.MARKS)):
        for word in words:
            at = shown.find(word)
            while at >= 0:
                places.append(at)
                at = shown.find(word, at + len(word))
    return sorted(places)


def _key(line: str) -> str:
    """What is the same in all repetitions of a panic: its place in the source, if it says so."""
    place = _PLACE.search(line)
    if place is not None:
        return place[1]
    return _NUMBERS.sub("#", _TIME.sub("", line))


def _time_in(lines: list[str]) -> str:
    """The time of the last line that has one."""
    for line in reversed(lines):
        found = _TIME.search(line)
        if found is not None:
            return found[0]
    return ""
