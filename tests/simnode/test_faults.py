"""What faults do to the process of a node and to its listeners."""

from __future__ import annotations

import os
import re
import signal
import socket
import time

import pytest

from soakd.simnode.failures import FAILURES
from tests.simnode.simnodes import MakeNode, SimNode, status_field, tell, wait_until

# Most of a fault is what signals and the end of a process do: little of it are lines of ours.
pytestmark = pytest.mark.unmeasured

PANIC = re.compile(r"^thread '.*'( \(\d+\))? panicked at", re.MULTILINE)


def is_free(port: int) -> bool:
    """Say whether nobody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return True
    return False


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_exit(make_node: MakeNode, code: int) -> None:
    """Any code, after readiness, and nothing said."""
    node = make_node(faults=[f"exit@0.1:{code}"])
    node.run()
    assert node.wait() == code
    assert (node.err(), "kad service started" in node.out()) == ("", True)


def test_exit_in_the_warm_up(make_node: MakeNode) -> None:
    """Counted from the start, the API may be open but the node not ready."""
    node = make_node(warmup_secs=600, faults=["exit@start+0.3:3"])
    node.run()
    assert node.wait() == 3
    assert ("api server listening" in node.out(), "service started" in node.out()) == (True, False)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("SIGSEGV", signal.SIGSEGV),
        ("abrt", signal.SIGABRT),
        ("9", signal.SIGKILL),
        ("SIGTERM", signal.SIGTERM),
        ("INT", signal.SIGINT),
        ("PIPE", signal.SIGPIPE),
        ("40", 40),
    ],
)
def test_die(make_node: MakeNode, name: str, number: int) -> None:
    """By any signal that kills, without a core."""
    node = make_node(faults=[f"die:{name}"])
    node.run()
    assert node.wait() == -number
    assert not list(node.folder.glob("core*"))


def test_panic(make_node: MakeNode) -> None:
    """On the main thread it ends the process."""
    node = make_node(faults=["panic:index out of bounds"])
    node.run()
    assert node.wait() == 101
    assert PANIC.search(node.err())
    assert "thread 'main'" in node.err()
    assert "\nindex out of bounds\n" in node.err()


def test_panic_in_a_background_thread(node: SimNode) -> None:
    """The API is gone, the process is not."""
    tell(node, "panic-thread")
    wait_until(lambda: not node.listening())
    assert PANIC.search(node.err())
    assert "api server stopped" not in node.out()
    assert node.process is not None
    assert node.process.poll() is None


@pytest.mark.parametrize("cause", sorted(FAILURES))
def test_failed_starts(make_node: MakeNode, cause: str) -> None:
    """Each with its one line and code 1, before any file but the lock is made."""
    node = make_node(faults=[f"fail:{cause}"])
    node.run()
    assert node.wait() == 1
    assert node.err() == f"Error: {FAILURES[cause]}\n"
    assert not (node.folder / "data" / "api.token").exists()


def test_a_fatal_error_later(make_node: MakeNode) -> None:
    """As when the bridge refuses a new session."""
    node = make_node(faults=["fail@0.1:sam-unreachable"])
    node.run()
    assert node.wait() == 1
    assert "kad service started" in node.out()
    assert node.err().startswith("Error: App(Sam(Io { op: ")


def test_stop(node: SimNode) -> None:
    """Stopped until somebody continues it."""
    tell(node, "stop")
    assert node.process is not None
    pid = node.process.pid
    wait_until(lambda: status_field(pid, "State").startswith("T"))
    os.kill(pid, signal.SIGCONT)
    wait_until(node.ready)


@pytest.mark.parametrize("when", ["start", "0"])
def test_ignored_signals(make_node: MakeNode, when: str) -> None:
    """SIGINT, SIGTERM, SIGHUP; SIGKILL remains."""
    node = make_node(faults=[f"ignore@{when}:INT,SIGTERM,HUP"])
    process = node.run()
    wait_until(node.ready)
    wait_until(lambda: int(status_field(process.pid, "SigIgn"), 16) & 0x4003 == 0x4003)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
    time.sleep(0.1)
    assert node.ready()
    assert "Ctrl-C" not in node.out()
    node.kill()


@pytest.mark.parametrize(("stream", "name"), [("", "out"), (":out", "out"), (":err", "err")])
def test_print(node: SimNode, stream: str, name: str) -> None:
    """So many bytes, while the API goes on."""
    tell(node, f"print:20M{stream}")
    assert node.ready()
    path = node.folder / name
    wait_until(lambda: path.stat().st_size >= 20_000_000)
    assert path.read_bytes().count(b"x") >= 20_000_000 // 128 * 127
    assert node.ready()


@pytest.mark.parametrize(("mode", "health", "status"), [("node", 200, 403), ("web", 404, 404)])
def test_port_taken(make_node: MakeNode, mode: str, health: int, status: int) -> None:
    """The node lives without an API; the other one answers, and ends soon after the node."""
    node = make_node(faults=[f"port-taken:{mode}"])
    process = node.run()
    wait_until(lambda: "kad service started" in node.out())
    assert "api server stopped error=failed to bind API listener: " in node.out()
    bearer = {"authorization": f"Bearer {node.token()}"}
    assert node.raw("GET", "/api/v1/health", host="::1")[0] == health
    assert node.raw("GET", "/api/v1/status", headers=bearer)[0] == status
    log = (node.folder / "data" / "sim.foreign").read_text()
    assert log == "GET /api/v1/health -\nGET /api/v1/status bearer\n"
    assert process.poll() is None
    node.kill()
    wait_until(lambda: is_free(node.port))


def test_port_taken_by_somebody_silent(make_node: MakeNode) -> None:
    """Accepts, reads and never answers."""
    node = make_node(faults=["port-taken:silent"])
    node.run()
    wait_until(lambda: "kad service started" in node.out())
    with socket.create_connection(("::1", node.port), timeout=0.3) as sock:
        sock.sendall(b"GET /api/v1/health HTTP/1.1\r\n\r\n")
        with pytest.raises(TimeoutError):
            sock.recv(1)
    node.kill()
    wait_until(lambda: is_free(node.port))


@pytest.mark.parametrize(("family", "open_at"), [("4", "127.0.0.1"), ("6", "::1")])
def test_one_family(make_node: MakeNode, family: str, open_at: str) -> None:
    """The other address refuses, with the WARN of the real program."""
    node = make_node(faults=[f"one-family:{family}"])
    node.run()
    wait_until(lambda: "api loopback listener unavailable" in node.out())
    wait_until(lambda: "kad service started" in node.out())
    assert node.raw("GET", "/api/v1/health", host=open_at)[0] == 200
    other = "::1" if family == "4" else "127.0.0.1"
    with pytest.raises(ConnectionRefusedError):
        node.raw("GET", "/api/v1/health", host=other)
