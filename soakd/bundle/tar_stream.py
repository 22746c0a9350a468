"""Writes a plain tar to a descriptor: headers by tarfile, contents as they come.

`tarfile.TarFile` is not used for writing: it takes a file object and its size on trust and has
no place for a member whose end must be cut or padded.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable

BLOCK = 512
_RECORD = 20 * BLOCK


class OutputError(Exception):
    """The reader of the archive is gone, or the disk behind it is full."""


class TarStream:
    """One archive; members must be opened and filled one after the other."""

    def __init__(self, descriptor: int, check: Callable[[bytes], None] | None = None) -> None:
        """Writes nothing yet.

        Args:
            descriptor: stays the caller's.
            check: sees every piece before it is written, and may raise.
        """
        self._descriptor = descriptor
        self._check = check
        self._written = 0
        self._due = 0

    def begin(self, name: str, size: int, mtime: float, *, executable: bool = False) -> None:
        """Write the header of a regular member that has exactly `size` bytes."""
        info = tarfile.TarInfo(name)
        info.size = size
        info.mtime = int(mtime)
        info.mode = 0o700 if executable else 0o600
        self._write(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
        self._due = size

    def data(self, data: bytes) -> None:
        """Write some of the member's content."""
        self._due -= len(data)
        self._write(data)

    def end(self) -> None:
        """Close the member.

        Raises:
            AssertionError: its content was shorter or longer than announced.
        """
        if self._due != 0:
            raise AssertionError(f"a member is {self._due} bytes short")
        self._write(bytes(-self._written % BLOCK))

    def finish(self) -> None:
        """Write the end of the archive."""
        self._write(bytes(2 * BLOCK))
        self._write(bytes(-self._written % _RECORD))

    def _write(self, data: bytes) -> None:
        if self._check is not None:
            self._check(data)
        self._written += len(data)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise OutputError(error.strerror) from error
