"""Reads a growing log file of a run folder, woken by inotify instead of by a clock.

The caller passes paths in root-owned folders only; a link at the last part is refused. Where the
middle of a file was punched out (log cap) the reader sees `[N bytes dropped here]`, not zeros. What
ends following is the caller's business: `wait_changed` waits for ever.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from soakd.core.errors import HostError

PIECE_BYTES = 64 * 1024
_MAX_TAIL_BYTES = 64 * 1024 * 1024
_IN_MODIFY = 0x2
_IN_NONBLOCK = os.O_NONBLOCK
_IN_CLOEXEC = os.O_CLOEXEC
_EVENT_BYTES = 4096

_libc = ctypes.CDLL(None, use_errno=True)


class Follower:
    """One open log file and the place up to which it was read."""

    def __init__(self, fd: int, notify_fd: int) -> None:
        self._fd = fd
        self._notify_fd = notify_fd
        self._offset = 0

    async def seek_tail(self, lines: int) -> None:
        """Start reading at the last `lines` lines (0 = at the end) of what is there now."""
        self._offset = await trio.to_thread.run_sync(_tail_offset, self._fd, lines)

    async def read(self) -> bytes:
        """Return the next piece of at most `PIECE_BYTES`, or b"" where the file ends now."""
        piece, self._offset = await trio.to_thread.run_sync(_read_piece, self._fd, self._offset)
        return piece

    async def read_data(self, offset: int) -> tuple[int, bytes]:
        """Return where the first written bytes at or behind `offset` stand, and some of them.

        Holes are stepped over in silence; at the end of the file there is b"".
        """
        return await trio.to_thread.run_sync(_read_data, self._fd, offset)

    def size(self) -> int:
        """Length of the file now, holes included."""
        return os.fstat(self._fd).st_size

    async def wait_changed(self) -> None:
        """Wait until the file was written since the last call (or since it was opened)."""
        while True:
            try:
                os.read(self._notify_fd, _EVENT_BYTES)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._notify_fd)
            else:
                return


@contextmanager
def open_follower(path: Path) -> Iterator[Follower]:
    """Open a log file to read and follow; closed at the end of the block.

    Raises:
        FileNotFoundError: there is no such file (yet).
        HostError: it is no regular file, or the host is out of inotify instances.
    """
    fd = _open_regular(path)
    try:
        notify_fd = _watch(fd, path)
        try:
            yield Follower(fd, notify_fd)
        finally:
            os.close(notify_fd)
    finally:
        os.close(fd)


def _open_regular(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise HostError("internal", f"cannot read {path.name}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise HostError("internal", f"cannot read {path.name}: it is no regular file")
    return fd


def _watch(fd: int, path: Path) -> int:
    notify_fd: int = _libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
    if notify_fd < 0:
        raise _inotify_error(path)
    # By descriptor: the watch is on the file that was opened, whatever its name is now.
    if _libc.inotify_add_watch(notify_fd, f"/proc/self/fd/{fd}".encode(), _IN_MODIFY) < 0:
        error = _inotify_error(path)
        os.close(notify_fd)
        raise error
    return notify_fd


def _inotify_error(path: Path) -> HostError:
    number = ctypes.get_errno()
    hint = "; raise fs.inotify.max_user_instances" if number == errno.EMFILE else ""
    return HostError("internal", f"cannot follow {path.name}: {os.strerror(number)}{hint}")


def _read_piece(fd: int, offset: int) -> tuple[bytes, int]:
    size = os.fstat(fd).st_size
    if size < offset:
        # A node holds its own log by an appending descriptor and can cut it.
        return b"\n[the file was cut here]\n", size
    if size == offset:
        return b"", offset
    data_begins = _seek(fd, offset, os.SEEK_DATA, size)
    if data_begins > offset:
        return f"\n[{data_begins - offset} bytes dropped here]\n".encode(), data_begins
    hole_begins = _seek(fd, offset, os.SEEK_HOLE, size)
    piece = os.pread(fd, min(PIECE_BYTES, hole_begins - offset), offset)
    return piece, offset + len(piece)


def _read_data(fd: int, offset: int) -> tuple[int, bytes]:
    size = os.fstat(fd).st_size
    if size <= offset:
        # Behind the end too: a node that shortens its own output is read on from there.
        return size, b""
    begin = _seek(fd, offset, os.SEEK_DATA, size)
    return begin, os.pread(fd, PIECE_BYTES, begin)


def _seek(fd: int, offset: int, whence: int, size: int) -> int:
    try:
        return os.lseek(fd, offset, whence)
    except OSError as error:
        # No data behind the offset: the file ends in a hole.
        if error.errno == errno.ENXIO:
            return size
        raise


def _tail_offset(fd: int, lines: int) -> int:
    """Find where the last lines begin; an unfinished last line counts as one."""
    end = os.fstat(fd).st_size
    if lines == 0 or end == 0:
        return end
    wanted = lines + (os.pread(fd, 1, end - 1) == b"\n")
    begin = end
    while begin > max(0, end - _MAX_TAIL_BYTES):
        start = max(0, begin - PIECE_BYTES)
        block = os.pread(fd, begin - start, start)
        found = block.count(b"\n")
        if found >= wanted:
            place = len(block)
            for _ in range(wanted):
                place = block.rindex(b"\n", 0, place)
            return start + place + 1
        wanted -= found
        begin = start
    return begin
