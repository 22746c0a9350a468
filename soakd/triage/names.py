"""Which member of a bundle is what: soakd's layout and that of the scripts.

The scripts' tarballs may hold everything below one folder. The first folder in which a record
stands is taken; records in another one are named and left aside. Node folders hold none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

RECORDS: Final = frozenset(
    {
        "run.json", "plan.json", "MANIFEST.json", "runner.state", "runner.out",
        "logs/rounds.tsv", "logs/rounds.ndjson", "logs/status.ndjson",
        "logs/status_samples.ndjson", "logs/events.ndjson", "logs/resources.ndjson",
        "logs/a.out", "logs/b.out", "logs/soak.log", "logs/runner.log", "logs/runner.out",
    }
)  # fmt: skip
STATUS_FILES: Final = ("logs/status.ndjson", "logs/status_samples.ndjson")
OURS: Final = frozenset({"plan.json", "MANIFEST.json", "logs/rounds.ndjson", "logs/events.ndjson"})
"""Records that only soakd writes."""
_NODE_FOLDERS = ("mule-", "nodes")


class Names:
    """Finds records among the members of one bundle."""

    def __init__(self, note: Callable[[str], None]) -> None:
        """Has seen nothing.

        Args:
            note: takes a sentence about what is left aside.
        """
        self.found: dict[str, int] = {}
        self._folder: str | None = None
        self._note = note

    def record(self, name: str, size: int) -> str | None:
        """Return the record that a member is, without the folder above; None if it is none."""
        folder, _, rest = name.partition("/")
        if name in RECORDS:
            folder, rest = "", name
        elif rest not in RECORDS or folder.startswith(_NODE_FOLDERS):
            return None
        if self._folder is None:
            self._folder = folder
        if folder != self._folder:
            self._note(f"{name} is left aside: the records of {self._folder or 'the top'} are read")
            return None
        if rest in self.found:
            self._note(f"{name} stands there twice: the first one is read")
            return None
        self.found[rest] = size
        return rest
