"""The folder that holds the node folders: the run folder's own `nodes`, or a user's RUN_ROOT.

A RUN_ROOT is ours if it is empty or bears our marker, on which the shim of the live run holds a
lock. Anything else is refused with a remedy and never emptied.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat

from soakd.shim import protocol
from soakd.shim.errors import VerbError, from_os

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MARKER = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LINKS = ("logs", "runner.state")


class Root:
    """The opened folder; `marker` is the locked marker file of a RUN_ROOT."""

    def __init__(self, path: str, fd: int, marker: int | None) -> None:
        self.path = path
        self.fd = fd
        self.marker = marker

    def close(self) -> None:
        """Give the folder back; the marker's lock falls with its descriptor."""
        os.close(self.fd)
        if self.marker is not None:
            os.close(self.marker)


def open_nodes_root(path: str) -> Root:
    """Open the `nodes` folder that soakd made for this run.

    Raises:
        VerbError: it is missing or not ours.
    """
    try:
        fd = os.open(path, _OPEN | os.O_NOFOLLOW)
    except OSError as exc:
        raise from_os(exc, f"open {path}") from None
    root = Root(path, fd, None)
    _require_own(root)
    return root


def open_run_root(path: str, run: str, run_folder: str) -> Root:
    """Take a RUN_ROOT for this run: make it if need be, mark and lock it, link the records.

    Raises:
        VerbError: it is in use, not empty and not ours, or not the submitter's.
    """
    try:
        os.makedirs(path, 0o700, exist_ok=True)
        root = Root(path, os.open(path, _OPEN), None)
    except OSError as exc:
        raise from_os(exc, f"use RUN_ROOT {path}") from None
    try:
        _require_own(root)
        root.marker = _take_marker(root, run)
        for name in _LINKS:
            _link(root.fd, name, f"{run_folder}/{name}", path)
    except OSError as exc:
        root.close()
        raise from_os(exc, f"use RUN_ROOT {path}") from None
    except VerbError:
        root.close()
        raise
    return root


def _require_own(root: Root) -> None:
    owner = os.fstat(root.fd).st_uid
    if owner != os.geteuid():
        raise VerbError(
            "refused",
            f"cannot use {root.path}: it belongs to uid {owner}; choose a folder of your own",
        )


def _take_marker(root: Root, run: str) -> int:
    fd = _open_marker(root)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _refusal(root.path, f"{protocol.RUN_ROOT_MARKER} is not a regular file")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 200, 0).decode("ascii", "replace").strip()
            raise _refusal(root.path, f"a live run uses it ({holder})") from None
        text = json.dumps({"soakd": protocol.PROTOCOL, "run": run}) + "\n"
        os.ftruncate(fd, 0)
        os.pwrite(fd, text.encode("ascii"), 0)
        os.fsync(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open_marker(root: Root) -> int:
    name = protocol.RUN_ROOT_MARKER
    try:
        return os.open(name, _MARKER, dir_fd=root.fd)
    except FileNotFoundError:
        with os.scandir(root.fd) as entries:
            stranger = next(entries, None)
        if stranger is not None:
            raise _refusal(
                root.path, f"it holds {stranger.name!r} and is not marked as a run's"
            ) from None
        return os.open(name, _MARKER | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=root.fd)


def _refusal(path: str, why: str) -> VerbError:
    return VerbError(
        "refused",
        f"cannot use RUN_ROOT {path}: {why}; "
        "choose an empty or new folder, or leave RUN_ROOT unset",
    )


def _link(folder: int, name: str, target: str, path: str) -> None:
    try:
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        info = None
    if info is not None:
        if not stat.S_ISLNK(info.st_mode):
            raise _refusal(path, f"its {name} is not a link")
        os.unlink(name, dir_fd=folder)
    os.symlink(target, name, dir_fd=folder)
