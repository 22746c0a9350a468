"""Processes by identity: waiting for their end and ending them, never by a bare pid.

A pid counts only together with its start ticks, compared *after* a pidfd was opened: from then on
the descriptor means that process and no later one of the same number.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from soakd.core.errors import HostError

MAX_PID = 1 << 22


def start_ticks(pid: int) -> int | None:
    """Start of a process in clock ticks since boot; None when there is none, or no such pid.

    Raises:
        HostError: the host does not let us look: that is no sign of an end.
    """
    if not 1 < pid < MAX_PID:
        return None
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as error:
        raise _cannot_look(pid, error) from error
    fields = text[text.rindex(b")") + 2 :].split()
    # A zombie holds no port and no file: it is as good as gone. Unless other threads of it live,
    # such as one that waits for a disk: they hold everything, and only the first thread is dead.
    is_dead = fields[0] in b"ZXx" and int(fields[17]) <= 1
    return None if is_dead else int(fields[19])


def real_uid(pid: int) -> int | None:
    """Owner of a process; None when it is gone."""
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except FileNotFoundError:
        return None


async def wait_for_end(pid: int, ticks: int) -> None:
    """Wait until the process with this identity is gone; at once if it is gone already.

    Raises:
        HostError: it cannot be looked at.
    """
    with _opened(pid, ticks) as fd:
        if fd is not None:
            await trio.lowlevel.wait_readable(fd)


def kill(pid: int, ticks: int) -> bool:
    """Send SIGKILL to the process with this identity; False when it is gone.

    Raises:
        HostError: it cannot be looked at.
    """
    with _opened(pid, ticks) as fd:
        if fd is None:
            return False
        try:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True


@contextmanager
def _opened(pid: int, ticks: int) -> Iterator[int | None]:
    if not 1 < pid < MAX_PID:
        yield None
        return
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    except OSError as error:
        # Out of descriptors: taking that for an end would give the process's port away.
        raise _cannot_look(pid, error) from error
    try:
        yield fd if start_ticks(pid) == ticks else None
    finally:
        os.close(fd)


def _cannot_look(pid: int, error: OSError) -> HostError:
    return HostError("internal", f"cannot look at process {pid}: {error.strerror}")
