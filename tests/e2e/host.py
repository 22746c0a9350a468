"""What a test asks of the host: locks that are held, listeners, processes that live."""

from __future__ import annotations

import fcntl
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from soakd.edge.shim_client import find_shim_python


def node_python() -> str:
    """An interpreter that any user can execute, as soakd itself chooses one for its shims."""
    return find_shim_python(None, user_mode=False)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a file."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


@contextmanager
def listening(port: int) -> Iterator[None]:
    """A listener of the test's own on a port."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        sock.listen(1)
        yield


def alive(pid: int) -> bool:
    """Whether a process lives; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
