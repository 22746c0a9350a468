"""Where in a TOML text each key stands, so that a problem can be told with its line.

Neither the standard library's TOML reader nor tomlkit says where a key stood once the text is read.
This walks over a text that `tomllib` has accepted: it may rely on the syntax being right, and only
has to know where things end. A property test holds its keys against those that `tomllib` finds.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from typing import Final, TypeAlias

Place: TypeAlias = tuple[str | int, ...]
"""Keys and, within arrays, indices: `("gates", 1)`."""

_GAP: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BLANK: Final = re.compile(r"[ \t]*")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_TEXT: Final = re.compile(
    # Up to two quotes may stand before the three that end a text of several lines.
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'",
    re.DOTALL,
)
_PLAIN: Final = re.compile(r"[^,\]}\n#]+")


def find_lines(text: str) -> Mapping[Place, int]:
    """Return the line, from 1, of each table, key and array element.

    Args:
        text: TOML that `tomllib.loads` has read.
    """
    walk = _Walk(text)
    walk.document()
    return walk.lines


class _Walk:
    """One pass over the text; `lines` has the first place of everything."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Place, int] = {}
        self._text = text
        self._at = 0
        self._ends = [found.start() for found in re.finditer("\n", text)]
        self._counts: dict[Place, int] = {}

    def document(self) -> None:
        """Walk over all statements."""
        table: Place = ()
        self._skip(_GAP)
        while self._at < len(self._text):
            if self._next("[["):
                table = self._array_of_tables()
            elif self._next("["):
                table = self._header()
            else:
                self._pair(table)
            self._skip(_GAP)

    def _header(self) -> Place:
        line, table = self._line(), self._inside(self._key())
        self._expect("]")
        self._note(table, line)
        return table

    def _array_of_tables(self) -> Place:
        line, key = self._line(), self._key()
        self._expect("]]")
        array = (*self._inside(key[:-1]), key[-1])
        count = self._counts.get(array, 0)
        self._counts[array] = count + 1
        self._note((*array, count), line)
        return (*array, count)

    def _inside(self, key: Place) -> Place:
        """Resolve a header: below an array of tables it means the last table so far."""
        place: Place = ()
        for part in key:
            place = (*place, part)
            if place in self._counts:
                place = (*place, self._counts[place] - 1)
        return place

    def _pair(self, table: Place) -> None:
        line = self._line()
        place = (*table, *self._key())
        self._expect("=")
        self._note(place, line)
        self._value(place)

    def _key(self) -> Place:
        parts: list[str] = []
        while True:
            self._skip(_BLANK)
            if self._text[self._at] in "\"'":
                # The text's own reader knows the escapes.
                parts.append(tomllib.loads(f"key = {self._take(_TEXT)}")["key"])
            else:
                parts.append(self._take(_BARE))
            self._skip(_BLANK)
            if not self._next("."):
                return tuple(parts)

    def _value(self, place: Place) -> None:
        self._skip(_BLANK)
        if self._next("["):
            self._array(place)
        elif self._next("{"):
            self._inline_table(place)
        elif self._text[self._at] in "\"'":
            self._take(_TEXT)
        else:
            self._take(_PLAIN)

    def _array(self, place: Place) -> None:
        index = 0
        self._skip(_GAP)
        while not self._next("]"):
            self._note((*place, index), self._line())
            self._value((*place, index))
            index += 1
            self._skip(_GAP)
            self._next(",")
            self._skip(_GAP)

    def _inline_table(self, place: Place) -> None:
        self._skip(_GAP)
        while not self._next("}"):
            self._pair(place)
            self._skip(_GAP)
            self._next(",")
            self._skip(_GAP)

    def _note(self, place: Place, line: int) -> None:
        """Remember a place, and the tables around it that no header made."""
        for length in range(len(place), 0, -1):
            if place[:length] in self.lines:
                # Whatever is around that has been noted with it.
                break
            self.lines[place[:length]] = line

    def _line(self) -> int:
        return bisect_right(self._ends, self._at - 1) + 1

    def _next(self, mark: str) -> bool:
        found = self._text.startswith(mark, self._at)
        if found:
            self._at += len(mark)
        return found

    def _expect(self, mark: str) -> None:
        self._skip(_BLANK)
        if not self._next(mark):
            raise AssertionError(f"no {mark!r} at {self._at}: tomllib read what is no TOML")

    def _skip(self, pattern: re.Pattern[str]) -> None:
        self._take(pattern)

    def _take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise AssertionError(f"no TOML at {self._at}, though tomllib read it")
        self._at = found.end()
        return found[0]
