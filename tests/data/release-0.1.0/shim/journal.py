"""The shim's own journal, `shim.ndjson`: what it did, durable before anyone is told.

soakd opened the file and handed it over; a soakd that was away reads here what it missed.
"""

from __future__ import annotations

import json
import os

from soakd.shim import system


class Journal:
    """Appends numbered facts to the descriptor it was given."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.seq = 0

    def record(self, event: str, facts: dict[str, object]) -> dict[str, object]:
        """Write one fact and return it as it was written.

        A full disk must not end the run's only process holder: the fact is then said on stderr.
        """
        self.seq += 1
        line: dict[str, object] = {
            "event": event,
            "seq": self.seq,
            "at": round(system.wall_now(), 3),
            "boot_s": round(system.boot_now(), 3),
            **facts,
        }
        data = json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"
        try:
            self._append(data)
        except OSError as exc:
            system.complain(f"cannot write to shim.ndjson: {exc.strerror}: {data.decode()}")
        return line

    def _append(self, data: bytes) -> None:
        size = os.fstat(self._fd).st_size
        if os.write(self._fd, data) != len(data):
            # A torn line would spoil the next one too; this process is the only writer.
            os.ftruncate(self._fd, size)
            raise OSError(28, os.strerror(28))
        os.fdatasync(self._fd)
