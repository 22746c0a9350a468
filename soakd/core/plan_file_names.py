"""What a user calls a key of a plan file, and in which line it stands. Part of `plan_file`.

A *path* is how the parser of plans names a key (`nodes[0].port`), a *place* is where the file has
it (`node`, `a`, `url`).
"""

from __future__ import annotations

import re
from bisect import insort
from collections.abc import Collection, Mapping
from typing import Final

from soakd.core.plan_checks import Problems, show
from soakd.core.plan_file_lines import Place

_LAST: Final = 1 << 32
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class FileProblems(Problems):
    """The problems of one file: each once, in the order of their lines, then those of flags."""

    def __init__(self, names: Mapping[str, str], lines: Mapping[str, int]) -> None:
        super().__init__(names)
        self._lines = lines
        self._line_of: dict[str, int] = {}

    def add(self, path: str, what: str) -> None:
        """Note `what`; every run of a group meets the same problems again."""
        problem = f"{self._names.get(path, path)}: {what}"
        if problem not in self._line_of:
            line = self._lines.get(path, 0)
            self._line_of[problem] = _LAST if problem.startswith("--") else line
            insort(self.found, problem, key=self._line_of.__getitem__)


class Origins:
    """Where everything came from.

    Args:
        file: What the file is called.
        lines: As `find_lines` returns them.
        by_flag: Places whose value came from `--set` and not from the file.

    Attributes:
        names: From a path to `FILE:LINE: key`; flags write theirs over it.
        problems: Told under these names.
    """

    def __init__(self, file: str, lines: Mapping[Place, int], by_flag: Collection[Place]) -> None:
        self.names: dict[str, str] = {"nodes": f"{file}: node"}
        self._file = file
        self._places: dict[str, Place] = {}
        self._line_of_place = lines
        self._line_of_path: dict[str, int] = {}
        self._by_flag = by_flag
        self.problems = FileProblems(self.names, self._line_of_path)

    def note(self, path: str, place: Place, *, stands_at: Place | None = None) -> None:
        """Remember that a path came from a place.

        Args:
            path: How the parser will name it.
            place: How the user knows it.
            stands_at: What stands in the file if that itself does not, as the node's heading.
        """
        self._places[path] = place
        self._point(path, place, stands_at or place)

    def note_element(self, path: str, index: int) -> None:
        """From now on, let a path mean one value of the list that its place has."""
        place = self._places[path]
        self._point(path, place, (*place, index))

    def is_by_flag(self, place: Place) -> bool:
        """Return whether the value of a place is not the file's."""
        return place in self._by_flag

    def _point(self, path: str, place: Place, at: Place) -> None:
        shown = dotted(place)
        line = self._line_of_place.get(at)
        if place in self._by_flag or (line is None and self._is_around_a_flag(place)):
            self.names[path] = f"--set {shown}"
            return
        self._line_of_path[path] = line or 0
        self.names[path] = f"{self._file}:{line}: {shown}" if line else f"{self._file}: {shown}"

    def _is_around_a_flag(self, place: Place) -> bool:
        return any(given[: len(place)] == place for given in self._by_flag)


def dotted(place: Place) -> str:
    """Return a place as it is written in TOML, such as `node.a.port` or `gates[1]`."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = part if _BARE_KEY.fullmatch(part) else show(part)
            text += f".{plain}" if text else plain
    return text
