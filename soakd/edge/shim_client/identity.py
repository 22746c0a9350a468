"""Who a shim is, and whether it lives: by the kernel's word alone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ShimIdentity:
    """What tells a shim from any other process, for the store.

    `n` counts the run's shims from 1.
    """

    pid: int
    ticks: int
    boot_id: str
    nonce: str
    n: int


def process_ticks(pid: int) -> int | None:
    """Start of a process in clock ticks since boot; None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(text[text.rindex(b")") + 2 :].split()[19])


def shim_lock_is_free(path: Path) -> bool:
    """Whether no shim holds the run's `shim.lock`; a missing file counts as free."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A folder by a short path: socket addresses end at 107 bytes."""
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
