"""What the shim asks of the kernel and the standard library does not offer ready-made.

Every import of the shim stands at the top of a file: the interpreter's own library may be
upgraded while a run of two weeks goes on, and a late import would then find another version.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

PUNCH_HOLE = 0x02 | 0x01
"""FALLOC_FL_PUNCH_HOLE, which wants FALLOC_FL_KEEP_SIZE with it."""

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = getattr(_libc, "fallocate64", None) or getattr(_libc, "fallocate", None)
if _fallocate is not None:
    _fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class Hash(Protocol):
    """The part of a hash object that is used here."""

    def update(self, data: bytes, /) -> None:
        """Take in more bytes."""

    def hexdigest(self) -> str:
        """The digest in hex."""


def _find_sha256() -> Callable[[], Hash]:
    # hashlib pulls in libcrypto, 4 MB of the 15 MB a shim may have; CPython's own module does not.
    for name, attribute in (("_sha256", "sha256"), ("_sha2", "sha256"), ("hashlib", "sha256")):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        found: Callable[[], Hash] = getattr(module, attribute)
        return found
    raise ImportError("cannot find SHA-256: this Python has neither _sha256, _sha2 nor hashlib")


sha256 = _find_sha256()


def prctl(option: int, value: int) -> None:
    """Set a process attribute.

    Raises:
        OSError: the kernel refused.
    """
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Give the blocks of a part of a file back to the disk; it reads as zeros from then on.

    Raises:
        OSError: the file system cannot do that, or it failed.
    """
    if _fallocate is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    while _fallocate(fd, PUNCH_HOLE, offset, length) != 0:
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def boot_now() -> float:
    """Seconds since boot, suspend included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wall_now() -> float:
    """Seconds since the epoch, for records only."""
    return time.clock_gettime(time.CLOCK_REALTIME)


def stat_fields(pid: int | str) -> list[str] | None:
    """`/proc/<pid>/stat` from field 3 (the state) on; None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    # The name in field 2 may hold blanks and brackets: only the last ')' ends it.
    return text[text.rindex(b")") + 2 :].decode("ascii").split()


def start_ticks(pid: int | str) -> int | None:
    """When the process started, in clock ticks since boot: its identity beside the pid."""
    fields = stat_fields(pid)
    return None if fields is None else int(fields[19])


def is_dead(fields: list[str]) -> bool:
    """Whether `stat_fields` are those of a zombie; one with living threads is not dead."""
    return fields[0] in "ZX" and int(fields[17]) <= 1


def group_members(pgid: int) -> list[int]:
    """The living (not zombie) processes of a process group, by a scan of /proc."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = stat_fields(name)
            if fields is not None and fields[2] == str(pgid) and not is_dead(fields):
                found.append(int(name))
    return found


def children() -> list[int]:
    """Our direct children, zombies included."""
    me = os.getpid()
    try:
        with open(f"/proc/self/task/{me}/children", "rb") as file:
            return [int(word) for word in file.read().split()]
    except FileNotFoundError:
        # A kernel without CONFIG_PROC_CHILDREN.
        return _children_by_scan(me)


def _children_by_scan(parent: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = stat_fields(name)
            if fields is not None and fields[1] == str(parent):
                found.append(int(name))
    return found


def peek_exit(pid: int) -> dict[str, int] | None:
    """How a child of ours ended, without reaping it; None while it lives.

    Returns:
        `{"code": n}` or `{"signal": n}`; `{}` when it is no child of ours any more.
    """
    try:
        info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return {}
    if info is None:
        return None
    key = "code" if info.si_code == os.CLD_EXITED else "signal"
    return {key: info.si_status}


def reap(pid: int) -> None:
    """Let a dead child go."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return


def send_signal(pid: int, number: int) -> bool:
    """Signal one child of ours; False when it is gone or out of reach.

    Only for unreaped children, whose pid cannot have been given to another process.
    """
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        signal.pidfd_send_signal(fd, number)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def lift_oom_score() -> None:
    """Give up a daemon's protection from the OOM killer, which nodes must not inherit.

    Must be called before PR_SET_DUMPABLE=0, after which the file belongs to root.
    """
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if int(os.read(fd, 16)) < 0:
            os.write(fd, b"0")
    finally:
        os.close(fd)


def complain(text: str) -> None:
    """Say something on stderr (runner.out), where a full disk must not matter.

    `sys.stderr` keeps what it could not write and raises again at the next flush: the holder of
    the nodes would die of its own last words.
    """
    with suppress(OSError):
        os.write(2, text.encode("utf-8", "backslashreplace"))
