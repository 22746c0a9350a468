"""A node's stderr: cut into lines, bounded in length and rate, the rest counted.

Pure: bytes and a time go in, lines come out. A node that floods stderr must not flood soakd, and
one that writes without newlines must not grow the shim.
"""

from __future__ import annotations

from typing import NamedTuple

from soakd.shim import protocol

BURST = 200
LINES_PER_S = 20.0


class Line(NamedTuple):
    """One line to report; `dropped` lines before it were not."""

    text: str
    cut: bool
    dropped: int


class LineCutter:
    """The lines of one node's life."""

    def __init__(self, now_s: float) -> None:
        self._part = bytearray()
        self._cut = False
        self._tokens = float(BURST)
        self._refilled_s = now_s
        self._dropped = 0

    def feed(self, data: bytes, now_s: float) -> list[Line]:
        """The lines that `data` completes and that may be reported now."""
        gain = (now_s - self._refilled_s) * LINES_PER_S
        self._tokens = min(float(BURST), self._tokens + gain)
        self._refilled_s = now_s
        *whole, rest = data.split(b"\n")
        found = []
        for piece in whole:
            self._add(piece)
            found += self._finish()
        self._add(rest)
        return found

    def close(self) -> list[Line]:
        """The unfinished last line, and what the rate swallowed at the end."""
        found = self._finish() if self._part else []
        if self._dropped:
            found.append(Line("", cut=False, dropped=self._dropped))
            self._dropped = 0
        return found

    def _add(self, piece: bytes) -> None:
        room = protocol.MAX_LINE_BYTES - len(self._part)
        self._part += piece[:room]
        self._cut = self._cut or len(piece) > room

    def _finish(self) -> list[Line]:
        text = self._part.decode("utf-8", "replace")
        cut, self._cut = self._cut, False
        self._part.clear()
        if self._tokens < 1:
            self._dropped += 1
            return []
        self._tokens -= 1
        dropped, self._dropped = self._dropped, 0
        return [Line(text, cut, dropped)]
