"""The file verbs: read, replace, remove and list below a folder, never outside it.

The folder belongs to a user whose programs may swap any part of a path for a link at any moment.
So every component is opened by the descriptor of its parent with O_NOFOLLOW, and a file is only
used after fstat called it regular.
"""

from __future__ import annotations

import binascii
import heapq
import os
import stat

from soakd.shim import protocol
from soakd.shim.errors import VerbError, from_os

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
TOKEN_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

MAX_DEPTH = 64
MAX_LISTED = 512
LIST_BYTES = 48 * 1024


def split(path: str) -> list[str]:
    """The components of a path below a node folder.

    Raises:
        VerbError: the path is absolute, empty, or holds `.`, `..` or NUL.
    """
    parts = path.split("/")
    if "\0" in path or len(parts) > MAX_DEPTH or any(part in ("", ".", "..") for part in parts):
        raise VerbError("bad_path", f"cannot use path {path!r}: it must lie below the node folder")
    return parts


def open_parent(root: int, path: str) -> tuple[int, str]:
    """A new descriptor of the folder that holds `path`, and the last component.

    Raises:
        VerbError: a component is missing, a link or no folder.
    """
    *folders, name = split(path)
    fd = os.dup(root)
    try:
        for folder in folders:
            below = os.open(folder, FOLDER, dir_fd=fd)
            os.close(fd)
            fd = below
    except OSError as exc:
        os.close(fd)
        raise from_os(exc, f"open {path}") from None
    return fd, name


def open_file(root: int, path: str) -> int:
    """A descriptor of the regular file at `path`.

    Raises:
        VerbError: it is missing, a link, or anything but a regular file.
    """
    parent, name = open_parent(root, path)
    try:
        fd = os.open(name, FILE, dir_fd=parent)
    except OSError as exc:
        raise from_os(exc, f"open {path}") from None
    finally:
        os.close(parent)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise VerbError("not_a_file", f"cannot open {path}: it is not a regular file")
    return fd


def read(root: int, path: str, offset: int, length: int) -> dict[str, object]:
    """One piece of a file in base64, with the file's size and mode."""
    fd = open_file(root, path)
    try:
        info = os.fstat(fd)
        data = os.pread(fd, min(length, protocol.MAX_PIECE_BYTES), offset)
    except OSError as exc:
        raise from_os(exc, f"read {path}") from None
    finally:
        os.close(fd)
    text = binascii.b2a_base64(data, newline=False).decode("ascii")
    return {"data": text, "total": info.st_size, "mode": stat.S_IMODE(info.st_mode)}


def read_token(path: str) -> dict[str, object]:
    """The content in base64 of a token file, which the user has named and which may be anywhere.

    Links are followed: they are the user's own, and it is the user's rights that read here.

    Raises:
        VerbError: it is missing, no regular file, or too large for a token.
    """
    try:
        fd = os.open(path, TOKEN_FILE)
    except OSError as exc:
        raise from_os(exc, f"open {path}") from None
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise VerbError("not_a_file", f"cannot open {path}: it is not a regular file")
        data = os.pread(fd, protocol.MAX_TOKEN_BYTES + 1, 0)
    except OSError as exc:
        raise from_os(exc, f"read {path}") from None
    finally:
        os.close(fd)
    if len(data) > protocol.MAX_TOKEN_BYTES:
        limit = protocol.MAX_TOKEN_BYTES
        raise VerbError("too_big", f"cannot read {path}: a token has no more than {limit} bytes")
    return {"data": binascii.b2a_base64(data, newline=False).decode("ascii")}


class Replacement:
    """One file being replaced piece by piece; nothing is seen of it before the last piece."""

    def __init__(self) -> None:
        self._key: tuple[str, str, int] = ("", "", 0)
        self._data = bytearray()

    def add(self, key: tuple[str, str, int], offset: int, piece: bytes) -> bytes | None:
        """Take in a piece; the whole content when it was the last.

        Args:
            key: node, path and total size; a new key or offset 0 begins anew.
            offset: where the piece belongs; pieces come in order.
            piece: the bytes.

        Raises:
            VerbError: out of order, or larger than announced or allowed.
        """
        total = key[2]
        if not 0 <= total <= protocol.MAX_FILE_BYTES:
            limit = protocol.MAX_FILE_BYTES
            raise VerbError("too_big", f"cannot replace {key[1]}: {total} bytes, at most {limit}")
        if offset == 0:
            self._key = key
            self._data.clear()
        if key != self._key or offset != len(self._data) or offset + len(piece) > total:
            self._data.clear()
            raise VerbError("bad_params", f"cannot replace {key[1]}: a piece is out of order")
        self._data += piece
        if len(self._data) < total:
            return None
        data = bytes(self._data)
        self._data.clear()
        return data


def replace(root: int, path: str, data: bytes, mode: int) -> None:
    """Put `data` at `path` so that a reader sees the old content or the new, even after a crash."""
    parent, name = open_parent(root, path)
    scratch = f".{name[:200]}.soakd-new"
    try:
        _unlink_if_there(parent, scratch)
        fd = os.open(scratch, NEW_FILE, 0o600, dir_fd=parent)
        try:
            if os.write(fd, data) != len(data):
                raise VerbError("disk_full", f"cannot write {path}: the disk is full")
            os.fchmod(fd, mode & 0o777)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(scratch, name, src_dir_fd=parent, dst_dir_fd=parent)
        os.fsync(parent)
    except OSError as exc:
        raise from_os(exc, f"replace {path}") from None
    finally:
        os.close(parent)


def _unlink_if_there(parent: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return


def remove(root: int, path: str) -> bool:
    """Remove a file, a link or a folder with all it holds; False when nothing was there.

    Raises:
        VerbError: it could not be removed, or the way to it leads over a link.
    """
    try:
        parent, name = open_parent(root, path)
    except VerbError as exc:
        if exc.code == "missing":
            return False
        raise
    try:
        _remove(parent, name, path, 0)
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise from_os(exc, f"remove {path}") from None
    finally:
        os.close(parent)
    return True


def _remove(parent: int, name: str, path: str, depth: int) -> None:
    if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=parent)
        return
    if depth > MAX_DEPTH:
        raise VerbError("too_deep", f"cannot remove {path}: more than {MAX_DEPTH} levels")
    fd = os.open(name, FOLDER, dir_fd=parent)
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                _remove(fd, entry.name, f"{path}/{entry.name}", depth + 1)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)


def list_folder(root: int, path: str, after: str) -> dict[str, object]:
    """What a folder holds, in order of names, as much as fits into one frame.

    Args:
        root: the node folder.
        path: the folder below it; `.` is the node folder itself.
        after: only names behind this one; empty for all.
    """
    fd = _open_folder(root, path)
    try:
        with os.scandir(fd) as entries:
            names = heapq.nsmallest(MAX_LISTED + 1, (e.name for e in entries if e.name > after))
        found = [_entry(fd, name) for name in names[:MAX_LISTED]]
    except OSError as exc:
        raise from_os(exc, f"list {path}") from None
    finally:
        os.close(fd)
    kept, used = [], 0
    for entry in found:
        # A byte of a hostile name may take six characters of JSON.
        used += 6 * len(os.fsencode(str(entry["name"]))) + 64
        if used > LIST_BYTES:
            break
        kept.append(entry)
    return {"entries": kept, "more": len(kept) < len(names)}


def _open_folder(root: int, path: str) -> int:
    if path == ".":
        return os.dup(root)
    parent, name = open_parent(root, path)
    try:
        return os.open(name, FOLDER, dir_fd=parent)
    except OSError as exc:
        raise from_os(exc, f"list {path}") from None
    finally:
        os.close(parent)


_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}


def _entry(folder: int, name: str) -> dict[str, object]:
    try:
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return {"name": name, "kind": "gone", "size": 0, "mode": 0}
    kind = _KINDS.get(stat.S_IFMT(info.st_mode), "other")
    return {"name": name, "kind": kind, "size": info.st_size, "mode": stat.S_IMODE(info.st_mode)}
