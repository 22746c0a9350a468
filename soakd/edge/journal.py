"""The folder of one run: made, appended to and read by soakd alone.

Decided here: names, owners and modes of what soakd writes for a run, and how a line gets to the
disk whole. Everything below the folder is reached by directory descriptors, so that no path a
user could redirect is ever resolved; ``nodes/`` belongs to the submitter and is made here but
never entered.

`append` goes to the page cache (5 µs) and may be called from the event loop; all that waits for
the disk (`create`, `open`, `sync`, `write_atomic`) belongs into a thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from soakd.core.errors import HostError

RECORDS = (
    "logs/runner.log", "logs/soak.log", "logs/rounds.tsv", "logs/rounds.ndjson",
    "logs/status.ndjson", "logs/status_samples.ndjson", "logs/events.ndjson",
    "logs/resources.ndjson", "logs/answers.ndjson",
)  # fmt: skip
"""Files of lines that only soakd appends to: a torn last line there is its own."""

PRIVATE = frozenset({"shim.lock"})
"""Files their owner must not open, since even a reader could hold a lock on them."""

NO_ACL = (
    "the file system of the state folder has no ACLs: "
    "read the records by soakctl logs and soakctl collect"
)
"""The note of a folder that its owner cannot enter."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_ACL_ACCESS, _ACL_DEFAULT = "system.posix_acl_access", "system.posix_acl_default"


class RunFolder:
    """An open run folder ``<state>/runs/r<id>``; `close` it when the run is done with.

    Attributes:
        path: where it is, for messages and for `logs`; soakd itself goes by descriptors.
        notes: what could not be set up as designed, in words for the user (no ACLs).
    """

    def __init__(self, path: Path, fd: int, *, notes: tuple[str, ...] = (), writing: bool) -> None:
        """Use `create`, `open` or `open_for_reading`."""
        self.path = path
        self.notes = notes
        self._fd = fd
        self._open: dict[str, int] = {}
        self._unlisted: set[str] = set()  # opened, but its folder was not synced since
        self._writing = writing

    # -- making and opening --------------------------------------------------------------------

    @classmethod
    def create(cls, state_dir: Path, run_id: int, owner_uid: int, *, system: bool) -> RunFolder:
        """Make the folder of a new run, readable for its owner, and its ``logs`` and ``shim``.

        Args:
            state_dir: soakd's state folder; ``runs`` (0711) is made in it when missing.
            run_id: the run.
            owner_uid: who may read the records.
            system: soakd is root and the owner is another user: an ACL lets the owner read.

        Raises:
            HostError: it exists already, or the disk refuses.
        """
        path = state_dir / "runs" / f"r{run_id}"
        with _explain(f"cannot make the run folder {path}"):
            with contextlib.suppress(FileExistsError):
                path.parent.mkdir(mode=0o700)
                path.parent.chmod(0o711)  # the umask must not keep submitters from their nodes
            path.mkdir(mode=0o700)
            fd = os.open(path, _FOLDER)
            try:
                notes = _open_to_owner(fd, owner_uid if system else 0)
                os.mkdir("logs", 0o750, dir_fd=fd)
                os.mkdir("shim", 0o700, dir_fd=fd)
                os.fsync(fd)
                _sync_folder(path.parent)
            except BaseException:
                os.close(fd)
                raise
        return cls(path, fd, notes=notes, writing=True)

    @classmethod
    def open(cls, state_dir: Path, run_id: int) -> RunFolder:
        """Take over the folder of a run as its only writer; torn last lines are set aside.

        Raises:
            HostError: there is none, or it cannot be read.
        """
        folder = cls._opened(state_dir, run_id, writing=True)
        try:
            for name in RECORDS:
                folder.repair(name)
        except BaseException:
            folder.close()
            raise
        return folder

    @classmethod
    def open_for_reading(cls, state_dir: Path, run_id: int) -> RunFolder:
        """Open a folder without touching it, also while another `RunFolder` appends to it.

        Raises:
            HostError: there is none, or it cannot be read.
        """
        return cls._opened(state_dir, run_id, writing=False)

    @classmethod
    def _opened(cls, state_dir: Path, run_id: int, *, writing: bool) -> RunFolder:
        path = state_dir / "runs" / f"r{run_id}"
        with _explain(f"cannot open the run folder {path}"):
            return cls(path, os.open(path, _FOLDER), writing=writing)

    def close(self) -> None:
        """Close every descriptor it holds (not those given away). Twice is once."""
        while self._open:
            os.close(self._open.popitem()[1])
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # -- writing -------------------------------------------------------------------------------

    def append(self, name: str, line: bytes) -> None:
        """Append whole lines to `name` in one write; all of `line` is in the file, or nothing.

        Not yet durable: see `sync`.

        Raises:
            HostError: the disk is full or failing; nothing of `line` was kept.
        """
        if not line.endswith(b"\n"):
            raise AssertionError(f"a record without its newline would look torn: {line!r}")
        with _explain(f"cannot append to {self.path / name}"):
            fd = self._appendable(name)
            written = os.write(fd, line)
            if written != len(line):
                end = os.lseek(fd, 0, os.SEEK_CUR)
                if os.fstat(fd).st_size == end:  # the shim may have appended behind us
                    os.ftruncate(fd, end - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self, name: str) -> None:
        """Wait until everything appended to `name` is on the disk.

        Raises:
            HostError: the disk failed; what was appended since the last success may be lost.
        """
        with _explain(f"cannot sync {self.path / name}"):
            os.fdatasync(self._appendable(name))
            if name in self._unlisted:
                # A file that a power cut unlinks from its folder is as lost as its lines.
                self._sync_parent(name)
                self._unlisted.discard(name)

    def write_atomic(self, name: str, data: bytes) -> None:
        """Replace `name` by `data` durably: readers see the old content or the new, whole.

        Raises:
            HostError: the disk is full or failing; the old content stands.
        """
        self._must_write()
        temporary = f"{name}.tmp"
        with _explain(f"cannot write {self.path / name}"):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(temporary, flags, 0o640, dir_fd=self._fd)
            try:
                if os.write(fd, data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(fd)
            except BaseException:
                os.unlink(temporary, dir_fd=self._fd)
                raise
            finally:
                os.close(fd)
            os.rename(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            self._sync_parent(name)

    def remove(self, name: str) -> None:
        """Remove a file (``logs/a.pid``) if it is there."""
        self._must_write()
        with _explain(f"cannot remove {self.path / name}"), contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)

    def open_for_child(self, name: str) -> int:
        """A new append-only descriptor on `name`, made if missing, for a shim or helper.

        The caller passes it on and closes its own copy. `PRIVATE` names are made 0600.
        """
        self._must_write()
        mode = 0o600 if name in PRIVATE else 0o640
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with _explain(f"cannot open {self.path / name}"):
            return os.open(name, flags, mode, dir_fd=self._fd)

    def shim_dir(self) -> Path:
        """The folder of the shim's sockets (0700, soakd's)."""
        return self.path / "shim"

    def make_nodes(self, uid: int, gid: int) -> Path:
        """Make ``nodes`` (0700) and give it to the submitter; soakd never enters it again.

        Raises:
            HostError: it cannot be made or given away.
        """
        self._must_write()
        with _explain(f"cannot make {self.path / 'nodes'}"):
            with contextlib.suppress(FileExistsError):
                os.mkdir("nodes", 0o700, dir_fd=self._fd)
            fd = os.open("nodes", _FOLDER, dir_fd=self._fd)
            try:
                if os.fstat(fd).st_uid != uid:
                    # Inherited ACLs would override the umask of the programs that run there.
                    for attribute in (_ACL_ACCESS, _ACL_DEFAULT):
                        with contextlib.suppress(OSError):
                            os.removexattr(fd, attribute)
                    os.fchmod(fd, 0o700)
                    os.fchown(fd, uid, gid)
            finally:
                os.close(fd)
        return self.path / "nodes"

    # -- reading -------------------------------------------------------------------------------

    def open_file(self, name: str) -> int:
        """A new read-only descriptor on `name`.

        Raises:
            FileNotFoundError: there is none (yet).
            HostError: it is there and cannot be opened.
        """
        try:
            return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _failure(f"cannot open {self.path / name}", error) from error

    def exists(self, name: str) -> bool:
        """Whether there is a regular file of this name."""
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
            return stat.S_ISREG(status.st_mode)
        return False

    def size(self, name: str) -> int:
        """Bytes in `name`; 0 if there is none."""
        with contextlib.suppress(FileNotFoundError):
            if (fd := self._open.get(name)) is not None:
                return os.fstat(fd).st_size
            return os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_size
        return 0

    def read_lines(self, name: str, start: int = 0) -> Iterator[bytes]:
        """Whole lines of `name` from the byte `start` on, without their newlines.

        A line still being written (no newline yet) is left out; none if there is no file.
        Memory is that of one line.
        """
        if not self.exists(name):
            return
        with os.fdopen(self.open_file(name), "rb", buffering=1 << 16) as file:
            file.seek(start)
            for line in file:
                if line.endswith(b"\n"):
                    yield line[:-1]

    # -- inner ---------------------------------------------------------------------------------

    def _must_write(self) -> None:
        if not self._writing:
            raise AssertionError(f"{self.path} was opened for reading")

    def _appendable(self, name: str) -> int:
        fd = self._open.get(name)
        if fd is None:
            self._must_write()
            fd = os.open(name, _APPEND, 0o640, dir_fd=self._fd)
            self._open[name] = fd
            self._unlisted.add(name)
        return fd

    def _sync_parent(self, name: str) -> None:
        _sync_folder(name.rpartition("/")[0] or ".", self._fd)

    def repair(self, name: str) -> None:
        """Move a last line without newline to ``<name>.torn``.

        SIGKILL tears lines at page borders; only for files nobody else appends to (`RECORDS`).

        Raises:
            HostError: the disk is full or failing.
        """
        if not self.exists(name):
            return
        with _explain(f"cannot repair {self.path / name}"):
            fd = self._appendable(name)
            size = os.fstat(fd).st_size
            whole = _end_of_last_line(fd, size)
            if whole == size:
                return
            torn = os.open(f"{name}.torn", _APPEND, 0o640, dir_fd=self._fd)
            try:
                with os.fdopen(os.dup(torn), "ab") as copy:
                    copy.write(os.pread(fd, size - whole, whole) + b"\n")
                os.fsync(torn)
            finally:
                os.close(torn)
            os.ftruncate(fd, whole)
            os.fsync(fd)
            self._sync_parent(name)


def _sync_folder(folder: str | Path, dir_fd: int | None = None) -> None:
    fd = os.open(folder, _FOLDER, dir_fd=dir_fd)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _end_of_last_line(fd: int, size: int) -> int:
    end = size
    while end > 0:
        start = max(0, end - 65536)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _open_to_owner(fd: int, uid: int) -> tuple[str, ...]:
    """Let `uid` read the folder and all that is made in it (soakd alone writes)."""
    os.fchmod(fd, 0o750)
    if uid == 0:
        return ()
    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, permissions, id_)
        for tag, permissions, id_ in (
            (0x01, 7, 0xFFFFFFFF), (0x02, 5, uid), (0x04, 5, 0xFFFFFFFF),
            (0x10, 5, 0xFFFFFFFF), (0x20, 0, 0xFFFFFFFF),
        )
    )  # fmt: skip
    try:
        os.setxattr(fd, _ACL_ACCESS, acl)
        os.setxattr(fd, _ACL_DEFAULT, acl)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENOSYS, errno.EPERM, errno.EINVAL):
            raise
        # The submitter must still pass through to nodes/.
        os.fchmod(fd, 0o711)
        return (NO_ACL,)
    return ()


@contextlib.contextmanager
def _explain(act: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _failure(act, error) from error


def _failure(act: str, error: OSError) -> HostError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "; free disk space" if full else ""
    return HostError("internal", f"{act}: {error.strerror}{hint}", {"disk_full": full})
