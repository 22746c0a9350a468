"""Ports that somebody else holds, before a run and in the middle of one (docs/safety.md, 1)."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e import faults, inside
from tests.e2e.box import Box
from tests.e2e.host import alive, node_python
from tests.e2e.records import epoch
from tests.e2e.waiting import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.safety]

_AT_ONCE_S = 5.0
_NOBODY = 65534
_TIME_WAIT = "06"
_LISTEN = (
    "import socket, sys, time\n"
    "sock = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
    "print('listening', flush=True)\n"
    "time.sleep(100)\n"
)


@contextmanager
def _held(address: str, port: int) -> Iterator[socket.socket]:
    """A listener of this process; a wildcard of IPv6 takes IPv4 along."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen()
        yield sock


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0", "::"])
def test_a_held_port_fails_the_run_at_once_naming_its_holder(box: Box, address: str) -> None:
    """On one loopback address, the other, or all; no node is started, the holder is left alone."""
    port = box.ports[1]
    with _held(address, port) as sock:
        run = inside.start(box, "50")
        final = inside.wait(box, run, status=5)
        assert (final["cause"]["code"], final["cause"]["node"]) == ("port_busy", "b")
        text = final["cause"]["text"]
        assert f"cannot use port {port} for node b" in text
        assert f":{port} is held by pid {os.getpid()} (" in text
        assert f"of uid {os.getuid()}; end it or choose another port" in text
        assert epoch(final["ended_at"]) - epoch(final["started_at"]) < _AT_ONCE_S
        assert box.row(run)["shim_pid"] is None
        assert [node["pid"] for node in final["nodes"]] == [None, None]
        with socket.create_connection((sock.getsockname()[0], port), timeout=5):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_a_holder_of_another_user_is_named_and_lives(box: Box) -> None:
    """soakd says whose it is; nobody's process is ended for a port."""
    command = [node_python(), "-c", _LISTEN, str(box.ports[0])]
    holder = subprocess.Popen(
        command, user=_NOBODY, group=_NOBODY, extra_groups=[], stdout=subprocess.PIPE, cwd="/"
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"listening\n"
        final = inside.wait(box, inside.start(box, "50"), status=5)
        assert (final["cause"]["code"], final["cause"]["node"]) == ("port_busy", "a")
        assert f"pid {holder.pid} (" in final["cause"]["text"]
        assert f"of uid {_NOBODY}" in final["cause"]["text"]
        assert holder.poll() is None
    finally:
        holder.kill()
        holder.communicate()


def test_connections_of_the_run_before_do_not_hold_its_ports(box: Box) -> None:
    """TIME_WAIT is not busy: the next run starts on the same ports at once."""
    run = inside.start(box, "50")
    box.until_rounds(run, 1)
    clients = [http.client.HTTPConnection("127.0.0.1", port, timeout=5) for port in box.ports]
    for client in clients:
        client.request("GET", "/api/v1/health")
        assert client.getresponse().read() == b'{"ok":true}'
    # The nodes close first, so it is their side that lingers.
    inside.stop(box, run)
    for client in clients:
        client.close()
    wait_for(lambda: all(_lingers(port) for port in box.ports), "connections in TIME_WAIT")
    again = inside.start(box, "--rounds", "1")
    assert inside.wait(box, again)["verdict"] == "passed"
    assert all(_lingers(port) for port in box.ports)


def _lingers(port: int) -> bool:
    """Whether the node's end of a connection is in TIME_WAIT."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[1].endswith(f":{port:04X}") and row[3] == _TIME_WAIT for row in rows)


class _Listener(threading.Thread):
    """A stranger that takes over a port, and remembers all that it is told."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.heard = b""
        self.met = 0
        self._sock = self._bound(port)
        self._sock.settimeout(0.05)
        self._over = threading.Event()

    @staticmethod
    def _bound(port: int) -> socket.socket:
        until = time.monotonic() + 5
        while True:
            try:
                return socket.create_server(("127.0.0.1", port))
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.01)

    def run(self) -> None:
        while not self._over.is_set():
            with suppress(TimeoutError):
                client, _ = self._sock.accept()
                self.met += 1
                with client:
                    client.settimeout(1)
                    with suppress(OSError):
                        self.heard += client.recv(65536)

    def close(self) -> None:
        self._over.set()
        self.join()
        self._sock.close()


def test_a_stranger_that_takes_the_port_in_mid_run_hears_not_a_byte(box: Box) -> None:
    """The node lost its listener: rounds become errors that name the stranger, never misses."""
    run = inside.start(box, "50")
    status = box.until_rounds(run, 1)
    victim = status["nodes"][1]["pid"]
    faults.now(box, run, "b", "api-closed")
    stranger = _Listener(box.ports[1])
    stranger.start()
    try:
        before = box.status(run)["rounds"]
        wait_for(lambda: stranger.met >= 3, "soakd looks who is there")
        failed = before["error"] + 3
        after = box.until(run, lambda s: s["rounds"]["error"] >= failed, "rounds that failed")
        assert after["rounds"]["miss"] == 0
        assert stranger.heard == b""
        assert alive(victim)
        inside.stop(box, run)
    finally:
        stranger.close()
    assert stranger.heard == b""
    texts = [record["error"]["text"] for record in box.records(run) if record["error"]]
    assert any(f"is held by pid {os.getpid()} (" in text for text in texts), texts
