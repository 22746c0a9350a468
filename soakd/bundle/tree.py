"""Walks a folder by directory descriptors, so that no link in it can lead the walk elsewhere.

The tree belongs to a user and changes under our feet: whatever cannot be opened, or is no longer
what its directory said, is reported and skipped.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Entry(NamedTuple):
    """One thing found: a regular file (`problem` is None) or a reason why it is not taken.

    `folder` is an open descriptor that is valid only until the walk goes on.
    """

    path: str
    name: str
    folder: int
    problem: str | None
    target: str | None = None


def walk(root: str, max_depth: int) -> Iterator[Entry]:
    """Yield every file below `root` in the order of names, folders where they stand.

    A root that cannot be opened is one entry with an empty path.
    """
    try:
        descriptor = os.open(root, _FOLDER)
    except OSError as error:
        yield Entry("", "", -1, _reason(error))
        return
    try:
        yield from _walk_folder(descriptor, "", os.fstat(descriptor).st_dev, max_depth)
    finally:
        os.close(descriptor)


def _walk_folder(folder: int, prefix: str, device: int, depth: int) -> Iterator[Entry]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        yield Entry(prefix.rstrip("/"), "", folder, _reason(error))
        return
    for name in names:
        path = prefix + name
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            yield Entry(path, name, folder, _reason(error))
            continue
        if not stat.S_ISDIR(found.st_mode):
            yield _entry(path, name, folder, found.st_mode)
        elif found.st_dev != device:
            yield Entry(path, name, folder, "another file system is mounted there")
        elif depth <= 0:
            yield Entry(path, name, folder, "too deep")
        else:
            yield from _enter(folder, name, path, device, depth)


def _enter(folder: int, name: str, path: str, device: int, depth: int) -> Iterator[Entry]:
    try:
        inner = os.open(name, _FOLDER, dir_fd=folder)
    except OSError as error:
        yield Entry(path, name, folder, _reason(error))
        return
    try:
        yield from _walk_folder(inner, path + "/", device, depth - 1)
    finally:
        os.close(inner)


def _entry(path: str, name: str, folder: int, mode: int) -> Entry:
    if stat.S_ISREG(mode):
        return Entry(path, name, folder, None)
    if not stat.S_ISLNK(mode):
        return Entry(path, name, folder, "not a regular file")
    target = None
    with suppress(OSError):
        target = os.readlink(name, dir_fd=folder)
    return Entry(path, name, folder, "symbolic link", target)


@contextmanager
def open_regular(name: str, folder: int | None = None, *, follow: bool = False) -> Iterator[int]:
    """Open a regular file for reading without ever waiting for it.

    Raises:
        OSError: it cannot be opened, or it is no regular file (any more).
    """
    flags = _FILE & ~os.O_NOFOLLOW if follow else _FILE
    descriptor = os.open(name, flags, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "not a regular file")
        yield descriptor
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
