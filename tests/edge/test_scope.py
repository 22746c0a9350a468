"""Asking systemd for a scope: a real bus, and a peer that answers as systemd may.

That a real systemd understands us is for tests/systemd/test_boot.py.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from jeepney import (
    DBusAddress,
    Message,
    MessageType,
    message_bus,
    new_error,
    new_method_return,
    new_signal,
)
from jeepney.io.trio import DBusConnection, open_dbus_connection

from soakd.core.errors import HostError
from soakd.edge import scope
from soakd.edge.scope import ScopeOrder, scope_name, start_scope

NAME = "org.freedesktop.systemd1"
MANAGER = DBusAddress("/org/freedesktop/systemd1", NAME, f"{NAME}.Manager")
ORDER = ScopeOrder("soak-r7.scope", 4711, "Soak r7 of soakd", 12.5)
GUARD_S = 60
CONFIG = """<busconfig><type>session</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/>
<allow own="*"/></policy>
</busconfig>"""


@pytest.fixture
def bus(short_dir: Path) -> Iterator[str]:
    """A bus of the test's own; its path."""
    tool = shutil.which("dbus-daemon")
    assert tool, "cannot make a bus: there is no dbus-daemon; apt-get install dbus-daemon"
    path = short_dir / "bus"
    (short_dir / "bus.conf").write_text(CONFIG.format(path=path))
    with subprocess.Popen(
        [tool, "--nofork", "--print-address", f"--config-file={short_dir}/bus.conf"],
        stdout=subprocess.PIPE,
    ) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline().startswith(b"unix:path=")
        yield str(path)
        daemon.terminate()


class Systemd:
    """A peer in systemd's place: answers each StartTransientUnit by the next of its answers."""

    def __init__(self, connection: DBusConnection) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._connection = connection

    async def serve(self, *answers: Callable[[Systemd, Message], Awaitable[None]]) -> None:
        """Answer; the last answer stands for all further calls."""
        left = list(answers)
        while True:
            message = await self._connection.receive()
            if message.header.message_type == MessageType.method_call:
                self.calls.append(message.body)
                await (left.pop(0) if len(left) > 1 else left[0])(self, message)

    async def accept(self, call: Message, job: str) -> None:
        """Say that the job has begun."""
        await self._connection.send(new_method_return(call, "o", (job,)))

    async def refuse(self, call: Message, name: str, text: str) -> None:
        """Say no."""
        await self._connection.send(new_error(call, name, "s", (text,)))

    async def ended(self, job: str, result: str) -> None:
        """Say that a job has ended."""
        body = (1, job, ORDER.name, result)
        await self._connection.send(new_signal(MANAGER, "JobRemoved", "uoss", body))


@asynccontextmanager
async def systemd(
    bus: str, *answers: Callable[[Systemd, Message], Awaitable[None]]
) -> AsyncIterator[Systemd]:
    """A peer on the bus that owns systemd's name."""
    with trio.fail_after(GUARD_S):
        async with await open_dbus_connection(f"unix:path={bus}") as connection:
            async with connection.router() as router:
                await router.send_and_get_reply(message_bus.RequestName(NAME))
            peer = Systemd(connection)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.serve, *answers)
                yield peer
                nursery.cancel_scope.cancel()


async def done(peer: Systemd, call: Message) -> None:
    """The answer of a systemd that does it, in the middle of other work."""
    await peer.ended("/job/1", "failed")
    await peer.accept(call, "/job/2")
    await peer.ended("/job/3", "canceled")
    await peer.ended("/job/2", "done")


async def exists(peer: Systemd, call: Message) -> None:
    """The answer of a systemd that has not forgotten the last scope of that name."""
    await peer.refuse(call, f"{NAME}.UnitExists", "Unit soak-r7.scope already exists.")


async def test_scope_is_ordered_with_all_that_a_run_needs(bus: str) -> None:
    """Returns when its own job has ended, whatever other jobs do."""
    async with systemd(bus, done) as peer:
        await start_scope(ORDER, bus)
    [(name, mode, properties, auxiliary)] = peer.calls
    assert (name, mode, auxiliary) == ("soak-r7.scope", "fail", [])
    assert dict(properties) == {
        "Description": ("s", "Soak r7 of soakd"),
        "PIDs": ("au", [4711]),
        "Slice": ("s", "soak.slice"),
        "Before": ("as", ["soakd.service"]),
        "KillSignal": ("i", 2),
        "TimeoutStopUSec": ("t", 12_500_000),
        "CollectMode": ("s", "inactive-or-failed"),
    }


async def test_name_of_an_ended_scope_is_waited_for(bus: str) -> None:
    """A run whose shim was replaced gets a scope of the same name; the old one takes a moment."""
    async with systemd(bus, exists, exists, done) as peer:
        await start_scope(ORDER, bus)
    assert len(peer.calls) == 3


async def test_name_that_stays_taken_is_refused(bus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of somebody else live in it."""
    monkeypatch.setattr(scope, "NAME_FREE_S", 0.1)
    async with systemd(bus, exists):
        with pytest.raises(HostError, match=r"soak-r7.scope for the run: .* already exists"):
            await start_scope(ORDER, bus)


async def test_refusal_is_passed_on(bus: str) -> None:
    """With systemd's own words and what to do."""

    async def deny(peer: Systemd, call: Message) -> None:
        await peer.refuse(call, "org.freedesktop.DBus.Error.AccessDenied", "Permission denied")

    async with systemd(bus, deny) as peer:
        with pytest.raises(HostError, match="Permission denied; see `systemctl status dbus`"):
            await start_scope(ORDER, bus)
    assert len(peer.calls) == 1


async def test_refusal_without_a_text_shows_its_name(bus: str) -> None:
    """Better than nothing."""

    async def deny(peer: Systemd, call: Message) -> None:
        await peer._connection.send(new_error(call, "org.example.No"))

    async with systemd(bus, deny):
        with pytest.raises(HostError, match=r"org\.example\.No"):
            await start_scope(ORDER, bus)


async def test_job_that_fails_is_a_failure(bus: str) -> None:
    """The shim may have died meanwhile."""

    async def fail(peer: Systemd, call: Message) -> None:
        await peer.accept(call, "/job/9")
        await peer.ended("/job/9", "failed")

    async with systemd(bus, fail):
        with pytest.raises(HostError, match="its job ended as 'failed'"):
            await start_scope(ORDER, bus)


async def test_bus_without_systemd_says_so(bus: str) -> None:
    """Another init, with dbus installed."""
    with pytest.raises(HostError, match=r"org\.freedesktop\.systemd1"):
        await start_scope(ORDER, bus)


async def test_host_without_a_bus_says_so(short_dir: Path) -> None:
    """And names where it was looked for."""
    with pytest.raises(HostError, match=rf"bus {short_dir}/none: No such file or directory"):
        await start_scope(ORDER, f"{short_dir}/none")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"", "the bus closed the connection"),
        (b"REJECTED EXTERNAL\r\n", "Authentication failed"),
        (None, "no answer in 0.1 s"),
    ],
)
async def test_strange_bus_is_no_bus(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch, said: bytes | None, words: str
) -> None:
    """It ends, rejects or is silent: bounded, and told."""
    monkeypatch.setattr(scope, "START_S", 0.1 if said is None else GUARD_S)

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        if said is None:
            await trio.sleep_forever()
        elif said:
            await stream.send_all(said)

    listener = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    await listener.bind(f"{short_dir}/bus")
    listener.listen()
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, answer, [trio.SocketListener(listener)])
        with pytest.raises(HostError, match=words):
            await start_scope(ORDER, f"{short_dir}/bus")
        nursery.cancel_scope.cancel()


def test_name_of_a_scope_tells_state_folders_apart() -> None:
    """The default folder needs no tag; two soakds on one host may both have a run r7."""
    assert scope_name("r7", None) == "soak-r7.scope"
    assert scope_name("r7", "0123abcd") == "soak-r7-0123abcd.scope"
