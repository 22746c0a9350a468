"""Reading one mapping field by field, gathering every problem instead of the first.

A `Reader` is made for one parse and dropped. Each method takes a key, returns a usable value
and notes what is wrong as `path.to.key: cannot ..., got 'x'`; after a problem the value is
only a stand-in that keeps the rest of the parse going.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final, TypeAlias

MAX_PROBLEMS: Final = 50
_MAX_SHOWN: Final = 80
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

Names: TypeAlias = Mapping[str, str]
"""From a path within the plan to what the user wrote it as, such as `WAIT_PUBLISH`."""


class Problems:
    """The problems of one parse, in the order they were found."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self.found: list[str] = []

    def add(self, path: str, what: str) -> None:
        """Note `what` (`cannot ...`) under the name that the user knows."""
        self.found.append(f"{self._names.get(path, path)}: {what}")

    def listed(self) -> list[str]:
        """Return them all, or the first ones and how many more there are."""
        more = len(self.found) - MAX_PROBLEMS
        if more <= 0:
            return list(self.found)
        return [*self.found[:MAX_PROBLEMS], f"and {more} more problems"]


def show(value: object) -> str:
    """Return a value for a message: escaped, and no longer than a line."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def has_control(text: str) -> bool:
    """Whether text holds control characters, line ends, or bytes that were no UTF-8."""
    return _CONTROL.search(text) is not None


class Reader:
    """Reads the fields of one mapping."""

    def __init__(self, data: Mapping[object, object], problems: Problems, prefix: str = "") -> None:
        self._data = data
        self._problems = problems
        self._prefix = prefix

    def has(self, key: str) -> bool:
        """Whether the field was given, be it as None."""
        return key in self._data

    def value(self, key: str) -> object:
        """Return the field as it is, None if it is missing."""
        return self._data.get(key)

    def bad(self, key: str, what: str) -> None:
        """Note a problem of a field."""
        self._problems.add(f"{self._prefix}{key}", what)

    def refuse_unknown(self, known: Collection[str]) -> None:
        """Note every key that is no field."""
        for key in self._data:
            if key not in known:
                plain = isinstance(key, str) and key.isprintable() and len(key) <= _MAX_SHOWN
                name = str(key) if plain else show(key)
                self.bad(name, "cannot use an unknown key")

    def number(self, key: str, default: float, low: float, high: float) -> float:
        """Read a number within its limits."""
        if not self.has(key):
            return default
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.bad(key, f"cannot read a number, got {show(value)}")
            return default
        # Written so that NaN, which no comparison holds for, is refused too.
        if not low <= value <= high:
            self.bad(key, f"cannot be outside {low:.15g} to {high:.15g}, got {show(value)}")
            return default
        return float(value)

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        """Read a whole number."""
        if not self.has(key):
            return default
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int):
            self.bad(key, f"cannot read a whole number, got {show(value)}")
            return default
        if not low <= value <= high:
            self.bad(key, f"cannot be outside {low} to {high}, got {show(value)}")
            return default
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """Read true or false."""
        if not self.has(key):
            return default
        value = self.value(key)
        if not isinstance(value, bool):
            self.bad(key, f"cannot read true or false, got {show(value)}")
            return default
        return value

    def text(self, key: str, max_chars: int) -> str | None:
        """Read text of at least one character; None if missing or a problem."""
        value = self.value(key)
        if not isinstance(value, str) or not value:
            what = "cannot be missing" if value is None else f"cannot read text, got {show(value)}"
            self.bad(key, what)
            return None
        if has_control(value):
            self.bad(key, f"cannot contain control characters, got {show(value)}")
            return None
        if len(value) > max_chars:
            self.bad(key, f"cannot be longer than {max_chars} characters, got {show(value)}")
            return None
        return value

    def choice(self, key: str, default: str, choices: Collection[str]) -> str:
        """Read one of a few words."""
        if not self.has(key):
            return default
        value = self.value(key)
        if not isinstance(value, str) or value not in choices:
            self.bad(key, f"cannot be other than {' or '.join(choices)}, got {show(value)}")
            return default
        return value

    def items(self, key: str, max_items: int) -> Sequence[object]:
        """Read a list."""
        value = self.value(key)
        if not isinstance(value, list | tuple):
            what = (
                "cannot be missing" if value is None else f"cannot read a list, got {show(value)}"
            )
            self.bad(key, what)
            return ()
        if len(value) > max_items:
            self.bad(key, f"cannot have more than {max_items} entries, got {len(value)}")
            return value[:max_items]
        return value
