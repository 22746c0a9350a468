"""Waiting for what must come: bounded, and never for time to be enough."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

GUARD_S = 60.0
"""No wait of a test is longer; a guard, never a pace."""
STOP_GUARD_S = 90.0
_LOOK_AFTER_S = 0.02
_LOOK_AGAIN_AT_LAST_S = 0.15
"""A look costs two processes a few milliseconds: what lasts is looked at less often."""

_T = TypeVar("_T")


def wait_for(look: Callable[[], _T], what: str, guard_s: float = GUARD_S) -> _T:
    """Return the first true thing that `look` returns; `what` says what never came."""
    give_up = time.monotonic() + guard_s
    pause_s = _LOOK_AFTER_S
    while not (found := look()):
        assert time.monotonic() < give_up, f"not within {guard_s:g} s: {what}"
        time.sleep(pause_s)
        pause_s = min(1.3 * pause_s, _LOOK_AGAIN_AT_LAST_S)
    return found


class Lines:
    """The lines that a process prints, read as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Takes over the process's stdout."""
        assert process.stdout is not None
        self._process = process
        self._fd = process.stdout.fileno()
        self._rest = b""
        self.seen: list[str] = []

    def until(self, holds: Callable[[str], object], what: str) -> str:
        """The next line that fits."""
        give_up = time.monotonic() + GUARD_S
        while True:
            while b"\n" in self._rest:
                line, self._rest = self._rest.split(b"\n", 1)
                self.seen.append(line.decode())
                if holds(self.seen[-1]):
                    return self.seen[-1]
            ready, _, _ = select.select([self._fd], [], [], max(0.0, give_up - time.monotonic()))
            data = os.read(self._fd, 65536) if ready else b""
            assert data, f"never printed: {what}; but: {self.seen}{self._how_it_ended()}"
            self._rest += data

    def _how_it_ended(self) -> str:
        if self._process.poll() is None:
            return ""
        errors = self._process.stderr.read() if self._process.stderr is not None else ""
        return f"; it ended with {self._process.returncode}: {errors}"
