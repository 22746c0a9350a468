"""What a shim that is gone has written down of its end, for a soakd that was away.

The journal is written by a process of the user's: what is malformed in it is passed over.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from soakd.shim import protocol

MAX_JOURNAL_BYTES = 1 << 20
"""The newest part of a journal, more than all that an honest shim has to say of its end."""
MAX_REASON_CHARS = 200


@dataclass(frozen=True, slots=True)
class NodeEnd:
    """How a node ended; `asked`: by the shim's ladder, not by itself."""

    node: str
    pid: int
    code: int | None
    signal: int | None
    asked: bool


@dataclass(frozen=True, slots=True)
class LastWords:
    """The ends of nodes in their order, and why the shim stopped them; None: it did not."""

    ends: tuple[NodeEnd, ...] = ()
    reason: str | None = None


def read_last_words(path: Path) -> LastWords:
    """Read them from a run's `shim.ndjson`; none where there is no such file. Blocks."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - MAX_JOURNAL_BYTES))
        return last_words(file.read(MAX_JOURNAL_BYTES))
    return LastWords()


def last_words(journal: bytes) -> LastWords:
    """The last words of the last shim in a journal."""
    ends: list[NodeEnd] = []
    reason: str | None = None
    for line in journal.split(b"\n"):
        with suppress(protocol.FrameError):
            match protocol.decode(line) if line.startswith(b"{") else None:
                case {"event": "begun"}:
                    ends, reason = [], None
                case {"event": "stopping", "reason": str(text)}:
                    reason = text[:MAX_REASON_CHARS]
                case {"event": "node_exited", "node": str(node), "pid": int(pid), **facts}:
                    code, number = _whole(facts.get("code")), _whole(facts.get("signal"))
                    ends.append(NodeEnd(node, pid, code, number, asked=reason is not None))
                case _:
                    continue
    return LastWords(tuple(ends), reason)


def _whole(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 256 else None
