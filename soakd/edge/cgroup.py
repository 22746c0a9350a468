"""The cgroup v2 of a run: one of our own where soakd was started by hand, or a systemd scope's.

Decided here: where our own is made (below soakd's own cgroup) and how all members are ended at
once. No controllers are ever enabled: a controller in the subtree keeps a systemd unit from
starting again (no-internal-process rule). Where none can be made, `create` says so and the run is
contained by evidence instead. A scope's cgroup is systemd's: it is emptied here, never removed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from pathlib import Path

import trio

from soakd.core.errors import HostError

SCOPE_SUFFIX = ".scope"
_PROC = Path("/proc")


class Cgroup:
    """A cgroup that holds the processes of one run and no others.

    Attributes:
        path: its folder, as stored with the run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, name: str) -> Cgroup | None:
        """Make the cgroup `name` below soakd's own; an empty one left behind is taken.

        None where there is no cgroup v2 or soakd may not make one: a fact, not an error. A cgroup
        made earlier is opened by `Cgroup(path)`.

        Raises:
            HostError: processes are in a cgroup of that name; they would be killed with the run.
        """
        home = own_folder()
        if home is None:
            return None
        group = cls(home / name)
        try:
            group.path.mkdir(exist_ok=True)
        except OSError:
            return None
        if not os.access(group.path / "cgroup.procs", os.W_OK):
            group.remove()
            return None
        if pids := group.pids():
            raise HostError("internal", f"cannot use {group.path}: it holds the processes {pids}")
        return group

    def attach(self, pid: int) -> None:
        """Move a process here; its later children are born here.

        Raises:
            HostError: the kernel refuses, or the process is gone.
        """
        try:
            (self.path / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            act = f"cannot put pid {pid} into {self.path}"
            raise HostError("internal", f"{act}: {error.strerror}") from error

    def pids(self) -> tuple[int, ...]:
        """Every member, those of cgroups below included; () also when it is gone."""
        pids: list[int] = []
        for folder in self._tree():
            with contextlib.suppress(OSError):
                pids += map(int, (folder / "cgroup.procs").read_text().split())
        return tuple(pids)

    def kill(self) -> None:
        """Send SIGKILL to every member at once, those being forked now included."""
        try:
            (self.path / "cgroup.kill").write_text("1")
        except OSError as error:
            if not _says_gone(error):
                raise
            # Linux before 5.14. A fork may outrun one pass: callers repeat until `pids` is empty.
            for pid in self.pids():
                self._kill_one(pid)

    async def wait_empty(self, timeout_s: float) -> bool:
        """Wait until no process is left; False when some are after `timeout_s`."""
        try:
            fd = os.open(self.path / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            with select.epoll() as events, trio.move_on_after(timeout_s):
                # The kernel signals a change as EPOLLPRI, which trio cannot wait for: nested.
                events.register(fd, select.EPOLLPRI)
                while _populated(fd):
                    await trio.lowlevel.wait_readable(events.fileno())
                    events.poll(0)
                return True
        finally:
            os.close(fd)
        return False

    def remove(self) -> bool:
        """Remove the empty cgroup and those below it; False when a process is left in it."""
        if self.path.suffix == SCOPE_SUFFIX:
            # systemd removes it when it hears that it is empty. Removed under its hands, the unit
            # could stay active for ever.
            return not self.pids()
        for folder in reversed(self._tree()):
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
                    return False
                text = f"cannot remove {folder}: {error.strerror}"
                raise HostError("internal", text) from error
        return True

    def _kill_one(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            try:
                # The pid may have been reused between the list and the descriptor.
                if pid in self.pids():
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
            finally:
                os.close(fd)

    def _tree(self) -> list[Path]:
        """The cgroup and all below it, parents first."""
        return [Path(folder) for folder, _, _ in os.walk(self.path)]


def _populated(fd: int) -> bool:
    try:
        return b"populated 1" in os.pread(fd, 256, 0)
    except OSError as error:
        if _says_gone(error):
            return False
        raise


def _says_gone(error: OSError) -> bool:
    """Whether the cgroup was removed, before its file was opened or while it was open."""
    return isinstance(error, FileNotFoundError) or error.errno == errno.ENODEV


def own_folder() -> Path | None:
    """The folder of soakd's own cgroup v2, in unified and in hybrid layouts; None without one."""
    return folder_of("self")


def folder_of(pid: int | str) -> Path | None:
    """The folder of a process's cgroup v2 as seen from here; None without one."""
    try:
        memberships = (_PROC / str(pid) / "cgroup").read_text().splitlines()
        mounts = (_PROC / "self" / "mountinfo").read_text().splitlines()
    except OSError:
        return None
    own = next((line[3:] for line in memberships if line.startswith("0::")), None)
    mount = next((_mount_point(line) for line in mounts if " - cgroup2 " in line), None)
    # "/.." leads out of the cgroup namespace: not ours to write in.
    if own is None or mount is None or own.startswith("/.."):
        return None
    folder = mount / own.lstrip("/")
    return folder if folder.is_dir() else None


def _mount_point(line: str) -> Path:
    field = line.split(" ")[4]
    for escaped, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(escaped, plain)
    return Path(field)
