"""The service manager's environment, its socket, and what it is told."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from soakd.core.errors import HostError
from soakd.edge import systemd
from soakd.edge.systemd import Manager
from tests.run.kit import ROOT

OWN = str(os.getpid())
GUARD_S = 60


class Heard:
    """A manager's end of the notification socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def words(self) -> list[str]:
        """Every message so far."""
        words = []
        with suppress(BlockingIOError):
            while True:
                words.append(self.socket.recv(4096).decode())
        return words


@pytest.fixture(params=["path", "abstract"])
def heard(request: pytest.FixtureRequest, short_dir: Path) -> Iterator[tuple[Heard, Manager]]:
    """A manager that listens, and the manager that soakd sees."""
    address = f"{short_dir}/notify" if request.param == "path" else f"@soakd-test-{OWN}"
    end = Heard(address)
    yield end, Manager(notify_socket=address)
    end.socket.close()


# -- the environment ---------------------------------------------------------------------------


def test_without_a_manager_there_is_none() -> None:
    """A shell's environment says nothing of one."""
    env = {"HOME": "/root"}
    manager = Manager.take(env)
    assert manager == Manager()
    assert not manager.is_there
    assert manager.listener() is None


def test_environment_of_a_service_is_taken() -> None:
    """Read once and removed: a child that kept it could speak for us."""
    env = {
        "HOME": "/root",
        "NOTIFY_SOCKET": "/run/systemd/notify",
        "WATCHDOG_USEC": "60000000",
        "WATCHDOG_PID": OWN,
        "LISTEN_PID": OWN,
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "soakd.socket",
    }
    assert Manager.take(env) == Manager("/run/systemd/notify", 60.0, 1)
    assert env == {"HOME": "/root"}


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"LISTEN_PID": "1", "LISTEN_FDS": "1"}, Manager()),
        ({"LISTEN_FDS": "1"}, Manager()),
        ({"LISTEN_PID": OWN, "LISTEN_FDS": "many"}, Manager()),
        ({"LISTEN_PID": OWN, "LISTEN_FDS": "-1"}, Manager()),
        ({"WATCHDOG_PID": "1", "WATCHDOG_USEC": "5"}, Manager()),
        ({"WATCHDOG_USEC": "0"}, Manager()),
        ({"WATCHDOG_USEC": "2000000"}, Manager(watchdog_s=2.0)),
        ({"NOTIFY_SOCKET": "vsock:2:1234"}, Manager()),
        ({"NOTIFY_SOCKET": "@abstract"}, Manager(notify_socket="@abstract")),
    ],
)
def test_what_is_meant_for_others_is_not_believed(env: dict[str, str], expected: Manager) -> None:
    """Another process's sockets and watchdog, and values that no manager sends."""
    assert Manager.take(env) == expected


# -- what it is told ---------------------------------------------------------------------------


async def test_words_arrive_as_one_message(heard: tuple[Heard, Manager]) -> None:
    """On a socket with a path and on an abstract one."""
    end, manager = heard
    await manager.notify("READY=1", "STATUS=serving")
    await manager.notify("STOPPING=1")
    assert end.words() == ["READY=1\nSTATUS=serving", "STOPPING=1"]


async def test_deaf_or_missing_manager_is_no_failure(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounded too: the loop must go on."""
    monkeypatch.setattr(systemd, "SEND_S", 0.05)
    end = Heard(f"{short_dir}/n")
    manager = Manager(notify_socket=f"{short_dir}/n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as others:
        others.connect(f"{short_dir}/n")
        with suppress(BlockingIOError):
            while True:
                others.send(b"more than the kernel keeps for a reader that does not read")
        with trio.fail_after(GUARD_S):
            await manager.notify("READY=1")
    assert "READY=1" not in end.words()
    end.socket.close()
    await manager.notify("READY=1")
    await Manager(notify_socket=f"{short_dir}/none").notify("READY=1")
    await Manager().notify("READY=1")


async def test_life_is_told_while_the_store_answers(
    heard: tuple[Heard, Manager], autojump_clock: trio.testing.MockClock
) -> None:
    """A third of the watchdog's time apart; a store that hangs lets the watchdog run out."""
    end, manager = heard
    manager = replace(manager, watchdog_s=3.0)
    hangs = trio.Event()
    asked = 0

    async def answer() -> None:
        nonlocal asked
        asked += 1
        if hangs.is_set():
            await trio.sleep_forever()

    with trio.move_on_after(3.5):
        await manager.keep_alive(answer, lambda: f"asked {asked}")
    assert end.words() == [f"WATCHDOG=1\nSTATUS=asked {count}" for count in (1, 2, 3, 4)]
    hangs.set()
    with trio.move_on_after(100):
        await manager.keep_alive(answer, lambda: "never said")
    assert end.words() == []


async def test_status_is_told_without_a_watchdog_too(
    heard: tuple[Heard, Manager], autojump_clock: trio.testing.MockClock
) -> None:
    """For `systemctl status`."""
    end, manager = heard
    with trio.move_on_after(systemd.ALIVE_EVERY_S * 1.5):
        await manager.keep_alive(trio.lowlevel.checkpoint, lambda: "serving")
    assert end.words() == ["STATUS=serving", "STATUS=serving"]


# -- the socket --------------------------------------------------------------------------------


def passed(sock: socket.socket, count: int = 1) -> Manager:
    """A manager that has passed this socket."""
    os.set_inheritable(sock.fileno(), True)
    return Manager(listen_fds=count, first_fd=sock.fileno())


def listening(path: Path, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """A socket as systemd makes it."""
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(os.fspath(path))
    sock.listen()
    return sock


def test_passed_socket_is_served(short_dir: Path) -> None:
    """And no child inherits it."""
    theirs = listening(short_dir / "s")
    manager = passed(theirs)
    ours = manager.listener()
    assert ours is not None
    assert not os.get_inheritable(ours.fileno())
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(short_dir / "s"))
    ours.accept()[0].close()
    ours.close()
    theirs.detach()


def _internet() -> socket.socket:
    sock = socket.socket(socket.AF_INET)
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock


def _abstract() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(f"\0soakd-test-listener-{OWN}")
    sock.listen()
    return sock


def _connected() -> socket.socket:
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_internet, "family AF_INET, not AF_UNIX"),
        (lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), "SOCK_DGRAM, not SOCK_STREAM"),
        (lambda: socket.socket(socket.AF_UNIX), "nobody listens on it"),
        (_connected, "nobody listens on it"),
        (_abstract, "it has no path"),
    ],
)
def test_any_other_socket_is_refused(make: Callable[[], socket.socket], words: str) -> None:
    """With what it is, and where to mend it."""
    theirs = make()
    with pytest.raises(HostError, match=f"{words}.*; see soakd.socket"):
        passed(theirs).listener()
    theirs.detach()


def test_more_than_one_socket_is_refused(short_dir: Path) -> None:
    """soakd has one door."""
    with listening(short_dir / "s") as theirs, pytest.raises(HostError, match="2 sockets"):
        passed(theirs, 2).listener()


def test_descriptor_that_is_no_socket_is_refused(short_dir: Path) -> None:
    """Somebody has set the variables by hand."""
    with (short_dir / "file").open("wb") as file:
        manager = Manager(listen_fds=1, first_fd=file.fileno())
        with pytest.raises(HostError, match=f"descriptor {file.fileno()}"):
            manager.listener()


@pytest.mark.slow
def test_soakd_serves_the_socket_of_a_real_activator(
    short_dir: Path, child_env: dict[str, str]
) -> None:
    """systemd-socket-activate starts it with the first client; the socket's file outlives it."""
    path = short_dir / "s.sock"
    before = os.umask(0o177)
    try:
        activator = subprocess.Popen(
            ["systemd-socket-activate", "--listen", str(path), "--setenv=PYTHONPATH",
             *(f"--setenv={name}" for name in child_env if name.startswith("COVERAGE")),
             sys.executable, "-m", "soakd", "--state", str(short_dir / "state")],
            env={**child_env, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, umask=0o022,
        )  # fmt: skip
    finally:
        os.umask(before)
    with activator:
        assert activator.stderr is not None
        assert b"Listening on" in activator.stderr.readline()
        path.chmod(0o600)
        done = subprocess.run(
            [sys.executable, "-m", "soakctl", "--socket", str(path), "daemon", "shutdown"],
            env={**child_env, "PYTHONPATH": str(ROOT)}, timeout=GUARD_S, check=False,
            capture_output=True,
        )  # fmt: skip
        said = activator.communicate(timeout=GUARD_S)[1]
        assert (done.returncode, activator.returncode) == (0, 0), (done, said)
    assert path.is_socket()
    assert not path.with_name("s.sock.lock").exists()
