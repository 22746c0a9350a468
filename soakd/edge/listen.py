"""Binds soakd's socket so that nobody else can take it, and removes it when soakd goes.

Rights of the socket are rights to connect: root:soak 0660 in system mode, 0600 otherwise. A socket
that a service manager has bound is checked for the same, and left to it. Called once, before
anything is accepted; everything is synchronous and quick.
"""

from __future__ import annotations

import fcntl
import grp
import os
import socket
import stat
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from soakd.core.errors import HostError

GROUP = "soak"
_BACKLOG = 128
_MAX_PATH_BYTES = 107
_PLAIN_MODE = 0o600
_GROUP_MODE = 0o660


@dataclass(slots=True)
class Listening:
    """A bound and listening socket; `warnings` are for the log.

    Whoever bound it calls `close`, which also removes the file unless someone has replaced it, or
    a service manager keeps it for the next soakd.
    """

    path: Path
    socket: socket.socket
    warnings: tuple[str, ...]
    _lock: int
    _inode: tuple[int, int] | None = field(repr=False)
    """Of the file that is ours to remove."""

    def close(self) -> None:
        """Stop listening, remove the socket file and the lock; a second call does nothing."""
        if self._lock < 0:
            return
        self.socket.close()
        if self._inode is not None and _inode_of(self.path) == self._inode:
            self.path.unlink(missing_ok=True)
        # Whoever opened this lock file meanwhile sees that its inode has left, and retries.
        _lock_path(self.path).unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = -1


def bind_socket(path: Path, mode: Literal["system", "user"]) -> Listening:
    """Bind and listen on `path`; its folder is made if only the last part is missing.

    Raises:
        HostError: another soakd serves that path, the folder is not safe, or the path is too long.
    """
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise HostError(
            "refused",
            f"cannot listen on {path}: a socket path has at most {_MAX_PATH_BYTES} bytes;"
            " choose a shorter one with --socket",
        )
    _prepare_folder(path.parent, mode)
    lock = _take_lock(path)
    try:
        return _bind_locked(path, mode, lock)
    except BaseException:
        os.close(lock)
        raise


def adopt_socket(sock: socket.socket, mode: Literal["system", "user"]) -> Listening:
    """Serve a listening socket that a service manager has bound; its file stays the manager's.

    Clients that come while no soakd is there wait in it for the next one.

    Raises:
        HostError: another soakd serves it, or its file lets in whom soakd would not; it is closed
            then.
    """
    path = Path(sock.getsockname())
    try:
        _check_folder(path.parent)
        warnings = _check_rights(path, mode)
        return Listening(path, sock, warnings, _take_lock(path), None)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):
            raise HostError("refused", f"cannot serve {path}: {error.strerror}") from error
        raise


def _check_rights(path: Path, mode: Literal["system", "user"]) -> tuple[str, ...]:
    """What `bind_socket` would have made of the file, asked of one that somebody else has made."""
    found = path.lstat()
    gid, warnings = _socket_group(mode)
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid not in {0, os.geteuid()}:
        raise HostError(
            "refused",
            f"cannot serve {path}: it is not the socket that root or soakd's user has bound there",
        )
    rights = stat.S_IMODE(found.st_mode)
    groups = {0, os.getegid()} if gid is None else {0, os.getegid(), gid}
    if rights & stat.S_IWOTH or (rights & stat.S_IWGRP and found.st_gid not in groups):
        raise HostError(
            "refused",
            f"cannot serve {path}: its mode {rights:04o} and group {found.st_gid} let others"
            f" connect; set SocketMode=0660 and SocketGroup={GROUP} in soakd.socket",
        )
    if gid is not None and (found.st_gid != gid or not rights & stat.S_IWGRP):
        warnings += (f"members of {GROUP} cannot connect: set SocketGroup={GROUP} in soakd.socket",)
    return warnings


def _bind_locked(path: Path, mode: Literal["system", "user"], lock: int) -> Listening:
    _remove_stale(path)
    gid, warnings = _socket_group(mode)
    with ExitStack() as undo:
        sock = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            inode = _bind_private(sock, path, gid)
        except OSError as error:
            raise HostError("refused", f"cannot listen on {path}: {error.strerror}") from error
        undo.pop_all()
    return Listening(path, sock, warnings, lock, inode)


def _bind_private(sock: socket.socket, path: Path, gid: int | None) -> tuple[int, int]:
    """Bind, open to the group if there is one, listen; returns device and inode of the file."""
    # Linux gives the file the mode of the socket's own inode, so that there is no instant with
    # wider rights and no need to change the umask of the whole process.
    os.fchmod(sock.fileno(), _PLAIN_MODE)
    sock.bind(os.fspath(path))
    found = path.lstat()
    if gid is not None:
        os.chown(path, 0, gid, follow_symlinks=False)
        path.chmod(_GROUP_MODE)
    sock.listen(_BACKLOG)
    return found.st_dev, found.st_ino


def _socket_group(mode: Literal["system", "user"]) -> tuple[int | None, tuple[str, ...]]:
    if mode == "user":
        return None, ()
    try:
        return grp.getgrnam(GROUP).gr_gid, ()
    except KeyError:
        return None, (f"there is no group {GROUP}: only root can connect (groupadd -r {GROUP})",)


def _prepare_folder(folder: Path, mode: Literal["system", "user"]) -> None:
    """Make the folder, or make sure that nobody else can put another socket into it."""
    try:
        # exist_ok is not used: only a folder that we have made needs no check.
        folder.mkdir(mode=0o755 if mode == "system" else 0o700)
    except FileExistsError:
        _check_folder(folder)
    except OSError as error:
        raise HostError(
            "refused", f"cannot make folder {folder} for the socket: {error.strerror}"
        ) from error


def _check_folder(folder: Path) -> None:
    trusted = {0, os.geteuid()}
    for what, found in (("it", folder.lstat()), ("its target", folder.stat())):
        if found.st_uid not in trusted:
            raise HostError(
                "refused",
                f"cannot use folder {folder} for the socket: {what} belongs to uid {found.st_uid};"
                " choose another with --socket",
            )
    others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if others and not found.st_mode & stat.S_ISVTX:
        raise HostError(
            "refused",
            f"cannot use folder {folder} for the socket: others can write it"
            f" (mode {stat.S_IMODE(found.st_mode):04o}); chmod go-w it or choose another",
        )


def _take_lock(path: Path) -> int:
    """Lock before anything is unlinked: a failing connect() does not prove a dead owner."""
    lock_path = _lock_path(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        try:
            lock = os.open(lock_path, flags, 0o600)
        except OSError as error:
            raise HostError("refused", f"cannot lock {lock_path}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise HostError(
                "refused",
                f"cannot listen on {path}: another soakd serves it (holds {lock_path});"
                " talk to that one, or give this one its own --socket",
            ) from error
        found = os.fstat(lock)
        if _inode_of(lock_path) == (found.st_dev, found.st_ino):
            return lock
        # Its last owner has removed it between our open and our lock.
        os.close(lock)


def _remove_stale(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise HostError(
            "refused", f"cannot listen on {path}: a file that is no socket stands there"
        )
    path.unlink()


def _lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _inode_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
