from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from soakd.core.errors import HostError
from soakd.edge import ports

pytestmark = pytest.mark.safety


@contextmanager
def listening(address: str, *, v6only: bool = True, reuse: bool = True) -> Iterator[socket.socket]:
    """A listener of our own on a free port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        sock.bind((address, 0))
        sock.listen()
        yield sock


def port_of(sock: socket.socket) -> int:
    """The port a socket is bound to."""
    return int(sock.getsockname()[1])


def inode_of(sock: socket.socket) -> int:
    """The inode of a socket."""
    return os.fstat(sock.fileno()).st_ino


def test_an_unused_port_is_free() -> None:
    """Trying leaves nothing behind: it is free a second time."""
    with listening("127.0.0.1") as sock:
        port = port_of(sock)
    assert ports.check_free(port) is None
    assert ports.check_free(port) is None


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0", "::"])
@pytest.mark.parametrize("reuse", [True, False])
def test_a_held_port_is_not_free_and_its_holder_named(address: str, *, reuse: bool) -> None:
    """On either loopback address, or on all addresses, SO_REUSEADDR or not."""
    with listening(address, reuse=reuse) as sock:
        holder = ports.check_free(port_of(sock))
        assert holder is not None
        assert (holder.uid, holder.pid) == (os.getuid(), os.getpid())
        assert re.fullmatch(
            rf"\S+:{port_of(sock)} is held by pid {os.getpid()} \(.+\) of uid {os.getuid()}",
            holder.text,
        )


def test_a_connection_of_the_past_does_not_hold_a_port() -> None:
    """TIME_WAIT of the run before must not block the next one."""
    with listening("127.0.0.1") as sock:
        port = port_of(sock)
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = sock.accept()
            accepted.close()
    assert ports.check_free(port) is None


def test_a_port_bound_without_listening_has_a_holder_without_name() -> None:
    """/proc/net does not list it, yet no node could listen there."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        holder = ports.check_free(port_of(sock))
    assert holder is not None
    assert holder.text.endswith("is held by a process that /proc does not name")


def test_a_port_we_may_not_try_is_a_host_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a free port, and not a held one."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(HostError, match=r"cannot try port 80 on 127.0.0.1: Permission denied"):
        ports.check_free(80)


def test_a_family_the_host_does_not_have_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without IPv6 can run nodes."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    assert ports.check_free(17835) is None


@pytest.mark.parametrize(
    ("address", "called", "v6only"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.2", "127.0.0.2", True),
        ("0.0.0.0", "127.0.0.2", True),
        ("::ffff:127.0.0.2", "127.0.0.2", False),
        ("0.0.0.0", "127.0.0.1", True),
        ("::", "127.0.0.1", False),
        ("::1", "::1", True),
        ("::", "::1", True),
    ],
)
def test_the_answering_listener_is_found(address: str, called: str, *, v6only: bool) -> None:
    """By its uid and the inode of its socket."""
    with listening(address, v6only=v6only) as sock:
        assert ports.listener_of(port_of(sock), called) == (os.getuid(), inode_of(sock))
    assert ports.listener_of(port_of_closed(sock), called) is None


def port_of_closed(_: socket.socket) -> int:
    """A port nobody listens on."""
    with listening("127.0.0.1") as sock:
        return port_of(sock)


def test_the_exact_address_answers_before_the_wildcard() -> None:
    """As the kernel delivers: a foreign wildcard listener does not matter then."""
    with socket.socket() as wildcard, socket.socket() as exact:
        for sock in (wildcard, exact):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        wildcard.bind(("0.0.0.0", 0))
        exact.bind(("127.0.0.1", port_of(wildcard)))
        wildcard.listen()
        exact.listen()
        assert ports.listener_of(port_of(exact), "127.0.0.1") == (os.getuid(), inode_of(exact))


@pytest.mark.parametrize(
    ("listens", "called"), [("127.0.0.1", "127.0.0.2"), ("127.0.0.2", "127.0.0.1")]
)
def test_a_listener_of_another_loopback_address_does_not_answer(listens: str, called: str) -> None:
    """The whole of 127.0.0.0/8 is loopback, and each address anybody's."""
    with listening(listens) as sock:
        assert ports.listener_of(port_of(sock), called) is None


def test_a_connected_socket_is_no_listener() -> None:
    """Only state LISTEN counts."""
    with listening("127.0.0.1") as sock, socket.create_connection(sock.getsockname()) as client:
        accepted, _ = sock.accept()
        with accepted:
            assert ports.listener_of(port_of(client), "127.0.0.1") is None


def test_a_process_owns_the_sockets_it_holds() -> None:
    """And no others."""
    program = [sys.executable, "-S", "-c", "input()"]
    with (
        listening("127.0.0.1") as sock,
        subprocess.Popen(program, stdin=subprocess.PIPE) as child,
    ):
        inode = inode_of(sock)
        assert ports.owns_inode(os.getpid(), inode)
        assert not ports.owns_inode(child.pid, inode)
        child.communicate(b"\n")
    assert not ports.owns_inode(os.getpid(), inode)


def test_a_process_that_is_gone_owns_nothing() -> None:
    """A node may end while we look."""
    with subprocess.Popen([sys.executable, "-S", "-c", "pass"]) as child:
        child.wait()
        assert not ports.owns_inode(child.pid, 1)


def test_what_we_may_not_see_is_a_host_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not evidence against the node."""

    def refuse(*_: object) -> bool:
        raise PermissionError

    monkeypatch.setattr(ports, "_has_socket", refuse)
    with pytest.raises(HostError, match="CAP_SYS_PTRACE"):
        ports.owns_inode(1, 1)
    assert ports.describe_listener(os.getuid(), 1) == f"a process of uid {os.getuid()}"


def test_a_listener_is_described_with_pid_and_name() -> None:
    """For the message that names a foreign process."""
    comm = Path("/proc/self/comm").read_text().strip()
    with listening("127.0.0.1") as sock:
        text = ports.describe_listener(os.getuid(), inode_of(sock))
    assert text == f"pid {os.getpid()} ({comm}) of uid {os.getuid()}"


def test_a_hostile_process_name_is_escaped() -> None:
    """It will be shown on somebody's terminal."""
    holder = ports.Holder(1, "::1", 5, 6, "\x1b[31mred")
    assert holder.text == r"[::1]:1 is held by pid 6 ('\x1b[31mred') of uid 5"
