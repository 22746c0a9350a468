"""Staging: copy a source folder into a node folder, in slices, with the submitter's rights.

The copy is a generator, so that a stop, an exit or a new soakd is heard while gigabytes move.
The source is whatever a user pointed at: links, holes, pipes, files that grow or shrink.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator
from typing import NamedTuple

from soakd.shim import files, system
from soakd.shim.errors import VerbError, from_os

MAX_ENTRIES = 200_000
READ_BYTES = 128 * 1024
RANGE_BYTES = 4 * 1024 * 1024

_NO_RANGE = {errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}

Slices = Generator[None, None, None]


class Order(NamedTuple):
    """What to copy: `exclude` and `by_content` are paths relative to the source."""

    source: str
    exclude: frozenset[str]
    by_content: frozenset[str]
    max_bytes: int


class TreeCopy:
    """One copy under way; after `run` is exhausted the results stand in the attributes."""

    def __init__(self, order: Order, target: int) -> None:
        self._order = order
        self._target = target
        info = os.fstat(target)
        self._target_id = (info.st_dev, info.st_ino)
        self._entries = 0
        self._no_range = False
        self.bytes = 0
        self.files = 0
        self.sha256: dict[str, str] = {}

    def run(self) -> Slices:
        """Copy everything; each yield is a place to do something else.

        Raises:
            VerbError: the copy failed; what is there of it stays for the caller to remove.
        """
        source = self._order.source
        try:
            fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            raise from_os(exc, f"open the source folder {source}") from None
        try:
            yield from self._folder(fd, self._target, "", 0)
        except OSError as exc:
            raise from_os(exc, f"copy {source}") from None
        finally:
            os.close(fd)

    def _folder(self, src: int, dst: int, rel: str, depth: int) -> Slices:
        info = os.fstat(src)
        if (info.st_dev, info.st_ino) == self._target_id:
            raise VerbError(
                "bad_source",
                f"cannot copy {self._order.source}: it contains the run's own folder; "
                "choose a RUN_ROOT outside of the source folders",
            )
        if depth > files.MAX_DEPTH:
            raise VerbError("too_deep", f"cannot copy {rel}: more than {files.MAX_DEPTH} levels")
        with os.scandir(src) as entries:
            for entry in entries:
                path = f"{rel}/{entry.name}" if rel else entry.name
                if path not in self._order.exclude:
                    yield from self._entry(src, dst, path, depth)
        if depth:
            # The node folder itself stays 0700, whatever the source was.
            os.fchmod(dst, stat.S_IMODE(info.st_mode) & 0o777 | 0o700)

    def _entry(self, src: int, dst: int, path: str, depth: int) -> Slices:
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise VerbError("too_big", f"cannot copy the source: more than {MAX_ENTRIES} entries")
        name = path.rpartition("/")[2]
        follow = path in self._order.by_content
        try:
            info = os.stat(name, dir_fd=src, follow_symlinks=follow)
            if stat.S_ISDIR(info.st_mode) and not follow:
                yield from self._subfolder(src, dst, path, depth)
            elif stat.S_ISREG(info.st_mode):
                yield from self._file(src, dst, path, follow=follow)
            elif stat.S_ISLNK(info.st_mode):
                os.symlink(os.readlink(name, dir_fd=src), name, dir_fd=dst)
            else:
                raise VerbError(
                    "bad_source", f"cannot copy {path}: it is {_kind(info)}; remove it first"
                )
        except FileNotFoundError:
            # Gone since the folder was read, or a dangling link in place of a program: either
            # way it is not in the copy, which the caller sees by its missing digest.
            return
        except OSError as exc:
            raise from_os(exc, f"copy {path}") from None

    def _subfolder(self, src: int, dst: int, path: str, depth: int) -> Slices:
        name = path.rpartition("/")[2]
        below = os.open(name, files.FOLDER, dir_fd=src)
        try:
            os.mkdir(name, 0o700, dir_fd=dst)
            made = os.open(name, files.FOLDER, dir_fd=dst)
            try:
                yield from self._folder(below, made, path, depth + 1)
            finally:
                os.close(made)
        finally:
            os.close(below)

    def _file(self, src: int, dst: int, path: str, *, follow: bool) -> Slices:
        name = path.rpartition("/")[2]
        flags = files.FILE & ~os.O_NOFOLLOW if follow else files.FILE
        read = os.open(name, flags, dir_fd=src)
        try:
            info = os.fstat(read)
            if not stat.S_ISREG(info.st_mode):
                raise VerbError("bad_source", f"cannot copy {path}: it is {_kind(info)}")
            write = os.open(name, files.NEW_FILE, 0o600, dir_fd=dst)
            try:
                copy = self._hashed if follow else self._ranges
                yield from copy(read, write, info.st_size, path)
                os.fchmod(write, stat.S_IMODE(info.st_mode) & 0o777 | 0o600)
                os.utime(write, ns=(info.st_atime_ns, info.st_mtime_ns))
            finally:
                os.close(write)
        finally:
            os.close(read)
        self.files += 1

    def _hashed(self, src: int, dst: int, size: int, path: str) -> Slices:
        digest = system.sha256()
        offset = 0
        while offset < size and (data := os.pread(src, min(READ_BYTES, size - offset), offset)):
            self._count(len(data), path)
            digest.update(data)
            _write_at(dst, data, offset)
            offset += len(data)
            yield
        self.sha256[path] = digest.hexdigest()

    def _ranges(self, src: int, dst: int, size: int, path: str) -> Slices:
        # Downloads are sparse files of full size: only their data is worth disk and time.
        offset = 0
        while offset < size:
            try:
                offset = os.lseek(src, offset, os.SEEK_DATA)
                end = min(os.lseek(src, offset, os.SEEK_HOLE), size)
            except OSError as exc:
                if exc.errno == errno.ENXIO:
                    break
                raise
            while offset < end:
                done = self._range(src, dst, offset, end - offset)
                if done == 0:
                    # It shrank under us; the size noted at the beginning stays, as zeros.
                    offset = size
                    break
                self._count(done, path)
                offset += done
                yield
        os.ftruncate(dst, size)

    def _range(self, src: int, dst: int, offset: int, left: int) -> int:
        if not self._no_range:
            try:
                return os.copy_file_range(src, dst, min(left, RANGE_BYTES), offset, offset)
            except OSError as exc:
                if exc.errno not in _NO_RANGE:
                    raise
                self._no_range = True
        data = os.pread(src, min(left, READ_BYTES), offset)
        _write_at(dst, data, offset)
        return len(data)

    def _count(self, more: int, path: str) -> None:
        self.bytes += more
        if self.bytes > self._order.max_bytes:
            limit = self._order.max_bytes
            raise VerbError("too_big", f"cannot copy {path}: the source is over {limit} bytes")


def _write_at(fd: int, data: bytes, offset: int) -> None:
    if os.pwrite(fd, data, offset) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _kind(info: os.stat_result) -> str:
    names = (
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISBLK, "a block device"),
        (stat.S_ISCHR, "a character device"),
    )
    return next((text for test, text in names if test(info.st_mode)), "no regular file")
