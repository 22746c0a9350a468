"""What a test asks of the host: ports that are free, locks that are held, processes that live."""

from __future__ import annotations

import fcntl
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from soakd.edge.shim_client import find_shim_python

# Below the range from which the kernel takes ports for outgoing connections, and below the demo's.
_PORTS = range(10_000, 19_900)


def node_python() -> str:
    """An interpreter that any user can execute, as soakd itself chooses one for its shims."""
    return find_shim_python(None, user_mode=False)


def free_ports(count: int) -> list[int]:
    """TCP ports that are free on both loopback addresses."""
    chosen: list[int] = []
    while len(chosen) < count:
        port = random.SystemRandom().choice(_PORTS)
        if port not in chosen and is_free(port):
            chosen.append(port)
    return chosen


def is_free(port: int) -> bool:
    """Whether a node could listen on the port."""
    try:
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
                probe.listen(1)
    except OSError:
        return False
    return True


def free_udp_range(count: int) -> int:
    """The first of so many free UDP ports in a row."""
    while True:
        first = random.SystemRandom().choice(_PORTS)
        with suppress(OSError):
            sockets = []
            try:
                for port in range(first, first + count):
                    sockets.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                    sockets[-1].bind(("127.0.0.1", port))
                return first
            finally:
                for sock in sockets:
                    sock.close()


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
