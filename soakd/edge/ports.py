"""TCP ports on loopback: whether one is free, and who listens on it.

Decided here: what "free" means (a node could listen on it on both loopback addresses) and which
listener answers a connection. Binding tells; ``/proc/net`` only names the holder. Nobody found
here is ever signalled: a foreign listener is reported.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from soakd.core.errors import HostError

_PROC = Path("/proc")
_LISTEN = "0A"
_LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
_NO_SUCH_FAMILY = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who keeps a port from being used; None where ``/proc`` does not tell."""

    port: int
    address: str
    uid: int | None
    pid: int | None
    comm: str | None

    @property
    def text(self) -> str:
        """For people: `127.0.0.1:17835 is held by pid 4711 (nc) of uid 1001`."""
        where = f"[{self.address}]" if ":" in self.address else self.address
        return f"{where}:{self.port} is held by {_process_text(self.uid, self.pid, self.comm)}"


def check_free(port: int) -> Holder | None:
    """Whether a node could listen on `port` on both loopback addresses; None, or who prevents it.

    A family that the host does not have counts as free. Blocks a few milliseconds when the port is
    held (a search through ``/proc``), else not noticeably.

    Raises:
        HostError: the host refuses to try (a privileged port, no descriptors left).
    """
    for family, address in _LOOPBACK.items():
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                # As the node's own listener has it: connections in TIME_WAIT do not matter.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((address, port))
                probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return _holder(port, family)
            if error.errno not in _NO_SUCH_FAMILY:
                act = f"cannot try port {port} on {address}"
                raise HostError("internal", f"{act}: {error.strerror}") from error
    return None


def listener_of(port: int, address: str) -> tuple[int, int] | None:
    """Uid and socket inode of whoever answers connections to `address`:`port`, or None.

    Args:
        port: the port connected to.
        address: the very address connected to. Each of 127.0.0.0/8 may have a listener of its own,
            and one of another address proves nothing about it.
    """
    tables: dict[str, dict[str, tuple[int, int]]] = {}
    for table, bound in _answering(address):
        if table not in tables:
            tables[table] = dict(_listeners(table, port))
        if (found := tables[table].get(_kernel_form(bound))) is not None:
            return found
    return None


def owns_inode(pid: int, inode: int) -> bool:
    """Whether the socket `inode` is among the descriptors of process `pid`; False if it is gone.

    Raises:
        HostError: soakd may not look (another user's process, and no CAP_SYS_PTRACE).
    """
    try:
        return _has_socket(_PROC / str(pid), inode)
    except PermissionError as error:
        text = f"cannot see the descriptors of pid {pid}: soakd lacks CAP_SYS_PTRACE"
        raise HostError("internal", text) from error


def describe_listener(uid: int, inode: int) -> str:
    """The process behind a listener, for people: `pid 4711 (nc) of uid 1001`."""
    return _process_text(uid, *_find_process(uid, inode))


def _answering(address: str) -> tuple[tuple[str, str], ...]:
    """Where a connection to an address may end, most specific first, as the kernel would choose."""
    if ":" in address:
        return ("tcp6", address), ("tcp6", "::")
    mapped = f"::ffff:{address}"
    return ("tcp", address), ("tcp6", mapped), ("tcp", "0.0.0.0"), ("tcp6", "::")  # noqa: S104


def _holder(port: int, family: int) -> Holder:
    address = _LOOPBACK[socket.AddressFamily(family)]
    listener = listener_of(port, address)
    if listener is None:  # bound without listening, or in another network namespace's sight
        return Holder(port, address, None, None, None)
    uid, inode = listener
    return Holder(port, address, uid, *_find_process(uid, inode))


def _listeners(table: str, port: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """(address in kernel form, (uid, inode)) of the listeners on `port`."""
    wanted = f":{port:04X}"
    with contextlib.suppress(FileNotFoundError), (_PROC / "net" / table).open() as lines:
        next(lines, None)
        for line in lines:
            fields = line.split()
            # Listeners come first: on a busy host the rest is long.
            if fields[3] != _LISTEN:
                return
            if fields[1].endswith(wanted):
                yield fields[1].removesuffix(wanted), (int(fields[7]), int(fields[9]))


def _kernel_form(address: str) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    return "".join(f"{word:08X}" for (word,) in struct.iter_unpack("=I", packed))


def _find_process(uid: int, inode: int) -> tuple[int | None, str | None]:
    for folder in _PROC.iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                if folder.stat().st_uid == uid and _has_socket(folder, inode):
                    return int(folder.name), (folder / "comm").read_text("utf-8", "replace").strip()
    return None, None


def _has_socket(folder: Path, inode: int) -> bool:
    wanted = f"socket:[{inode}]"
    try:
        names = os.listdir(folder / "fd")  # noqa: PTH208 - a Path per descriptor doubles the cost
    except (FileNotFoundError, ProcessLookupError):
        return False
    for name in names:
        # A descriptor closed meanwhile is not the listener we saw.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if os.readlink(f"{folder}/fd/{name}") == wanted:  # noqa: PTH115
                return True
    return False


def _process_text(uid: int | None, pid: int | None, comm: str | None) -> str:
    if uid is None:
        return "a process that /proc does not name"
    if pid is None:
        return f"a process of uid {uid}"
    # The name is the process's own choice and may hold terminal escapes.
    return f"pid {pid} ({comm if comm and comm.isprintable() else ascii(comm)}) of uid {uid}"
