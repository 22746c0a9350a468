"""A terminal with a session of its own in which soakctl runs; closing it hangs the session up."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from tests.e2e.box import Box
from tests.e2e.waiting import GUARD_S, STOP_GUARD_S

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_ROWS_AND_COLUMNS = struct.pack("HHHH", 40, 200, 0, 0)


class Terminal:
    """For one command; leaving the block closes the terminal.

    Attributes:
        raw: everything that was shown and read, escape sequences included.
    """

    def __init__(self, box: Box, env: Mapping[str, str]) -> None:
        """Opens the terminal; `env` is added to the box's environment."""
        self._box = box
        self._env = {**env, "TERM": "xterm"}
        self.raw = ""
        self._ours, self._theirs = pty.openpty()
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, _ROWS_AND_COLUMNS)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._theirs)
        os.close(self._ours)
        if self._process is not None:
            self._process.wait(STOP_GUARD_S)

    def run(self, *args: str) -> None:
        """Start soakctl in the foreground of the terminal."""
        self.execute(*self._box.ctl_command(*args))

    def execute(self, *command: str) -> None:
        """Start any command in the foreground of the terminal."""
        self._process = self._box.spawn(
            command,
            env=self._env,
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            start_new_session=True,
            preexec_fn=self._take_terminal,
        )

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.write(self._ours, b"\x03")

    def read_until(self, pattern: str) -> str:
        """What the terminal shows until it matches; colours and cursor movements are left out."""
        give_up = time.monotonic() + GUARD_S
        while True:
            shown = _ESCAPES.sub("", self.raw)
            if re.search(pattern, shown) is not None:
                return shown
            left = give_up - time.monotonic()
            assert left > 0, f"never shown: {pattern}; but: {shown[-800:]!r}"
            self._read(left)

    def _read(self, timeout_s: float) -> bool:
        ready, _, _ = select.select([self._ours], [], [], timeout_s)
        if ready:
            self.raw += os.read(self._ours, 65536).decode(errors="replace")
        return bool(ready)

    def exit_status(self) -> int:
        """The exit status of the command, which is read to its end."""
        process = self._process
        assert process is not None
        give_up = time.monotonic() + STOP_GUARD_S
        while process.poll() is None:
            assert time.monotonic() < give_up, f"did not end: {self.raw[-800:]!r}"
            self._read(0.05)
        while self._read(0):
            pass
        return process.returncode

    def _take_terminal(self) -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
