"""soakd's side of the shim: trust, framing and loss, with scripted and with real shims."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from soakd.core.errors import HostError
from soakd.edge import shim_client
from soakd.edge.shim_client import (
    Credentials,
    ShimConnection,
    ShimFds,
    ShimLost,
    ShimRefused,
    find_shim_python,
    process_ticks,
    shim_lock_is_free,
)
from soakd.edge.shim_client import python as pythons
from soakd.edge.shim_client import spawn as spawning
from soakd.shim import protocol

HELLO: dict[str, object] = {
    "event": "hello", "protocol": 1, "run": "r1", "nonce": "x", "pid": 1, "ticks": 2,
    "begun": True, "latest_end_boot_s": 1.5, "nodes": {}, "stopping": None, "journal_seq": 0,
}  # fmt: skip

Script = Callable[[dict[str, Any]], dict[str, object] | bytes | None]


def ok(result: dict[str, object]) -> Script:
    """A script that always answers with this result."""
    return lambda request: {"id": request["id"], "ok": result}


async def _play(stream: trio.abc.Stream, script: Script) -> None:
    decoder = protocol.Decoder()
    await stream.send_all(protocol.encode(HELLO))
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async for data in stream:
            for request in decoder.feed(bytes(data)):
                answer = script(request)
                if answer is None:
                    await stream.aclose()
                    return
                await stream.send_all(
                    answer if isinstance(answer, bytes) else protocol.encode(answer)
                )


@contextlib.asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[ShimConnection]:
    """A connection to a shim that answers by script, its pump running."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_play, theirs, script)
        connection = ShimConnection(ours)
        await connection.take_hello()
        nursery.start_soon(connection.pump)
        yield connection
        nursery.cancel_scope.cancel()


async def test_answers_find_their_calls() -> None:
    """Calls made together get their own answers, whatever the order."""

    def echo(request: dict[str, Any]) -> dict[str, object]:
        return {"id": request["id"], "ok": {"echo": request["node"]}}

    results: dict[str, object] = {}

    async def ask(connection: ShimConnection, node: str) -> None:
        results[node] = (await connection.call("inspect", timeout_s=5, node=node))["echo"]

    async with scripted(echo) as connection, trio.open_nursery() as nursery:
        for node in "abcdef":
            nursery.start_soon(ask, connection, node)
    assert results == {node: node for node in "abcdef"}


async def test_refusal_carries_code_and_text() -> None:
    """A no of the shim is data for the caller."""
    script: Script = lambda r: {"id": r["id"], "error": {"code": "busy", "text": "cannot"}}  # noqa: E731
    async with scripted(script) as connection:
        with pytest.raises(ShimRefused) as refused:
            await connection.call("launch", timeout_s=5)
        assert (refused.value.code, str(refused.value)) == ("busy", "cannot")
        with pytest.raises(ShimRefused, match="the limit is") as refused:
            await connection.call("launch", timeout_s=5, env="x" * 70_000)
        assert refused.value.code == "too_big"


@pytest.mark.parametrize("answer", [{"ok": []}, {}, {"error": "no"}])
async def test_answer_without_sense_is_a_loss(answer: dict[str, object]) -> None:
    """What a shim says is a user's input."""
    async with scripted(lambda r: {"id": r["id"], **answer}) as connection:
        with pytest.raises(ShimLost, match="makes no sense"):
            await connection.call("end", timeout_s=5)


@pytest.mark.parametrize("answer", [None, b"garbage\n", b"x" * 70_000])
async def test_lost_connection_ends_calls_and_events(answer: bytes | None) -> None:
    """EOF, garbage and endless lines: every caller hears it, and so does the reader of events."""
    async with scripted(lambda _: answer) as connection:
        with pytest.raises(ShimLost):
            await connection.call("end", timeout_s=5)
        with pytest.raises(trio.EndOfChannel):
            await connection.events.receive()
        with pytest.raises(ShimLost):
            await connection.call("end", timeout_s=5)


async def test_silence_ends_with_the_time_out(autojump_clock: trio.testing.MockClock) -> None:
    """No answer in time is a loss; a late answer disturbs nobody."""
    held: list[dict[str, object]] = []

    def late(request: dict[str, Any]) -> dict[str, object] | bytes:
        answer: dict[str, object] = {"id": request["id"], "ok": {}}
        if not held:
            held.append(answer)
            return b""
        return protocol.encode(held[0]) + protocol.encode(answer)

    async with scripted(late) as connection:
        with pytest.raises(ShimLost, match="did not answer in 7 s"):
            await connection.call("stage", timeout_s=7)
        assert await connection.call("end", timeout_s=7) == {}


async def test_unread_events_hold_the_shim_back() -> None:
    """A full channel stops the reading; once it is read, everything comes, in order."""
    count = 3 * shim_client.connection.EVENTS_BUFFERED

    def flood(request: dict[str, Any]) -> bytes:
        events = [protocol.encode({"event": "stderr", "n": n}) for n in range(count)]
        return b"".join(events) + protocol.encode({"id": request["id"], "ok": {}})

    async with scripted(flood) as connection, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: connection.call("stop", timeout_s=5))
        await trio.testing.wait_all_tasks_blocked()
        assert connection.events.statistics().current_buffer_used == count // 3
        assert [(await connection.events.receive())["n"] for _ in range(count)] == [*range(count)]


async def test_reader_of_events_may_leave() -> None:
    """Closing `events` drops them and does not end the calls."""
    event = protocol.encode({"event": "stderr"})
    async with scripted(lambda r: event + protocol.encode({"id": r["id"], "ok": {}})) as connection:
        connection.events.close()
        assert await connection.call("stop", timeout_s=5) == {}


async def test_half_sent_frame_ends_the_connection() -> None:
    """After a cancelled send nothing may follow: the other side would read nonsense."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(theirs.send_all, protocol.encode(HELLO))
        connection = ShimConnection(ours)
        await connection.take_hello()
    with pytest.raises(ShimLost, match="did not answer"):
        await connection.call("stop", timeout_s=0.01)
    with pytest.raises(ShimLost, match="is lost"):
        await connection.call("stop", timeout_s=5)


@pytest.mark.parametrize(
    ("total", "pieces", "code"),
    [
        (protocol.MAX_FILE_BYTES + 1, [b"x"], "too_big"),
        (10, [b"x", b""], "changed"),
        (2, [b"xyz"], "changed"),
    ],
)
async def test_file_that_will_not_hold_still_is_refused(
    total: int, pieces: list[bytes], code: str
) -> None:
    """Too big, shrinking, or longer than it says."""
    parts = iter(pieces * 10)

    def answer(request: dict[str, Any]) -> dict[str, object]:
        data = base64.b64encode(next(parts)).decode()
        return {"id": request["id"], "ok": {"data": data, "total": total}}

    async with scripted(answer) as connection:
        with pytest.raises(ShimRefused) as refused:
            await connection.read_file("a", "x")
        assert refused.value.code == code


@pytest.mark.parametrize("result", [{}, {"data": "!", "total": 1}, {"data": "", "total": None}])
async def test_piece_without_sense_is_a_loss(result: dict[str, object]) -> None:
    """No data, no base64, no size."""
    async with scripted(ok(result)) as connection:
        with pytest.raises(ShimLost, match="makes no sense"):
            await connection.read_file("a", "x")


# Connecting and trust.


@pytest.fixture
def bound(short_dir: Path) -> Iterator[socket.socket]:
    """Return a listening socket of this process at 1.sock."""
    sock = spawning._bind(short_dir, 1)
    assert (short_dir / "1.sock").stat().st_mode & 0o777 == 0o600
    sock.listen()
    yield sock
    sock.close()


async def test_stranger_on_the_socket_is_not_trusted(short_dir: Path, bound: socket.socket) -> None:
    """The kernel says who listens; another uid or pid is refused before a byte is read."""
    uid = os.geteuid()
    for wrong in ((uid + 1, None), (uid, os.getpid() + 1)):
        with pytest.raises(ShimLost, match=f"process {os.getpid()} of uid {uid} listens"):
            await shim_client.connect_shim(short_dir, 1, *wrong)


async def test_missing_or_silent_shim_is_a_loss(
    short_dir: Path, bound: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No socket, a closed one, one that says nothing, one that says the wrong thing."""
    uid = os.geteuid()
    with pytest.raises(ShimLost, match="No such file"):
        await shim_client.connect_shim(short_dir, 2, uid, None)
    monkeypatch.setattr(shim_client.connection, "CONNECT_TIMEOUT_S", 0.05)
    with pytest.raises(ShimLost, match="no answer"):
        await shim_client.connect_shim(short_dir, 1, uid, None)
    bound.accept()[0].close()
    monkeypatch.undo()

    async def answer(data: bytes) -> None:
        peer = (await trio.to_thread.run_sync(bound.accept))[0]
        peer.sendall(data)
        peer.close()

    wrong = {b"": "closed", b'{"event":"x"}\n': "no hello", b"\0\n": "cannot read"}
    for data, cause in wrong.items():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer, data)
            with pytest.raises(ShimLost, match=cause):
                await shim_client.connect_shim(short_dir, 1, uid, None)
    bound.close()
    with pytest.raises(ShimLost, match="refused"):
        await shim_client.connect_shim(short_dir, 1, uid, None)


# Starting.


def make_fds(folder: Path) -> ShimFds:
    """Descriptors as soakd opens them."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    names = ("shim.ndjson", "shim.lock", "a.out", "runner.out")
    journal, lock, out, runner = (os.open(folder / n, flags, 0o600) for n in names)
    return ShimFds(journal=journal, lock=lock, out={"a": out}, runner_out=runner)


async def start(folder: Path, python: str = "/usr/bin/python3") -> shim_client.SpawnedShim:
    """Spawn a shim of our own uid in a folder."""
    fds = make_fds(folder)
    try:
        return await shim_client.spawn_shim(
            python=python,
            run="r1",
            nonce="n",
            shim_dir=folder,
            n=1,
            credentials=None,
            fds=fds,
            env={},
        )
    finally:
        fds.close()


@pytest.mark.slow
async def test_spawned_shim_holds_the_lock_and_can_be_abandoned(short_dir: Path) -> None:
    """It reports when it listens; before begin it goes without a trace when told so."""
    shim = await start(short_dir)
    assert process_ticks(shim.pid) == shim.ticks
    assert not shim_lock_is_free(short_dir / "shim.lock")
    await shim.abandon()
    assert shim.process.returncode == 0
    assert shim_lock_is_free(short_dir / "shim.lock")
    assert process_ticks(shim.pid) is None


@pytest.mark.slow
async def test_second_shim_on_a_held_lock_does_not_start(short_dir: Path) -> None:
    """Two shims of one run cannot be."""
    fd = os.open(short_dir / "shim.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(HostError, match="did not report"):
        await start(short_dir)
    os.close(fd)
    assert "BlockingIOError" in (short_dir / "runner.out").read_text()


@pytest.mark.slow
async def test_shim_that_hangs_at_the_start_is_killed(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No report in time: an error, and no process."""
    monkeypatch.setattr(spawning, "READY_TIMEOUT_S", 0.1)
    monkeypatch.setattr(spawning, "ABANDON_TIMEOUT_S", 0.1)
    monkeypatch.setattr(spawning, "shim_zip", lambda _: b"")
    hang = short_dir / "python"
    hang.write_text("#!/bin/sh\nexec sleep 100\n")
    hang.chmod(0o755)
    with pytest.raises(HostError, match="did not report"):
        await start(short_dir, str(hang))


async def test_spawn_that_cannot_be_is_a_host_error(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing interpreter, one that went away since, and a socket that is there already."""
    with pytest.raises(HostError, match="cannot compile the shim with /nonexistent"):
        await start(short_dir, "/nonexistent/python3")
    monkeypatch.setattr(spawning, "shim_zip", lambda _: b"")
    with pytest.raises(HostError, match="cannot start the shim"):
        await start(short_dir, "/nonexistent/python3")
    with pytest.raises(HostError, match="cannot bind"):
        await start(short_dir)


@pytest.mark.slow
async def test_zip_runs_on_a_python_of_another_magic(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Foreign byte code is passed over for the sources beside it."""
    foreign = pythons._COMPILE.replace("importlib.util.MAGIC_NUMBER", r'b"\0\0\r\n"')
    monkeypatch.setattr(pythons, "_COMPILE", foreign)
    code = shim_client.build_zip(Path(str(protocol.__file__)).parent, sys.executable)
    monkeypatch.setattr(spawning, "shim_zip", lambda _: code)
    await (await start(short_dir)).abandon()


@pytest.mark.slow
async def test_shim_refuses_a_specification_that_is_none(short_dir: Path) -> None:
    """Run by hand it says what is wrong and ends with 1."""
    path = short_dir / "shim.zip"
    path.write_bytes(shim_client.build_zip(Path(str(protocol.__file__)).parent, None))
    for text in ("{}", "[", '{"fds":3}'):
        done = await trio.run_process(
            ["/usr/bin/python3", "-I", "-S", str(path), text],
            check=False,
            capture_stderr=True,
        )
        assert done.returncode == 1
        assert b"Error" in done.stderr


@pytest.mark.slow
async def test_peer_of_another_uid_is_turned_away(short_dir: Path) -> None:
    """Even with the socket's file open to all, only root and soakd's uid are heard."""
    if os.geteuid() != 0:
        pytest.skip("only root can connect with another uid")
    shim = await start(short_dir)
    short_dir.chmod(0o755)
    (short_dir / "1.sock").chmod(0o666)
    code = "import socket,sys; s=socket.socket(1); s.connect(sys.argv[1]); print(s.recv(9))"
    done = await trio.run_process(
        ["/usr/bin/python3", "-I", "-S", "-c", code, str(short_dir / "1.sock")],
        capture_stdout=True,
        user=65534,
        group=65534,
        extra_groups=[],
    )
    assert done.stdout == b"b''\n"
    await shim.abandon()


def test_lock_of_a_run_without_shims_is_free(short_dir: Path) -> None:
    """A file that is not there is held by nobody."""
    assert shim_lock_is_free(short_dir / "shim.lock")


def test_credentials_are_complete() -> None:
    """There is no way to name a uid alone."""
    with pytest.raises(TypeError):
        Credentials(65534)  # type: ignore[call-arg]


# The interpreter.


@pytest.mark.slow
def test_first_fitting_python_is_taken() -> None:
    """The system's Python serves all users; the configured one is the only one asked."""
    assert find_shim_python(user_mode=False) == "/usr/bin/python3"
    assert find_shim_python(sys.executable, user_mode=True) == sys.executable


@pytest.mark.slow
def test_unfit_pythons_are_refused_with_reasons(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative, missing, no Python, too old, out of others' reach: each says why."""
    fake = short_dir / "python"
    fake.write_text("#!/bin/sh\necho 3 9 /usr\n")
    fake.chmod(0o755)
    reached = {
        "python3": "absolute path",
        "/nonexistent/python3": "not an executable",
        "/bin/true": "does not run",
        str(fake): "is Python 3.9",
    }
    for path, why in reached.items():
        with pytest.raises(HostError, match=why):
            find_shim_python(path, user_mode=True)
    fake.write_text("#!/bin/sh\necho 3 12 /usr\n")
    monkeypatch.setattr(pythons, "shim_zip", lambda _: b"")
    short_dir.chmod(0o700)
    assert find_shim_python(str(fake), user_mode=True) == str(fake)
    with pytest.raises(HostError, match=f"other users cannot pass {short_dir}"):
        find_shim_python(str(fake), user_mode=False)
    monkeypatch.setattr(pythons, "PROBE_TIMEOUT_S", 0.05)
    fake.write_text("#!/bin/sh\nexec sleep 100\n")
    with pytest.raises(HostError, match="does not run"):
        find_shim_python(str(fake), user_mode=True)


def test_shim_modules_need_only_what_the_probe_looked_for() -> None:
    """A Python that passed the probe can run the shim: its modules load with -I -S."""
    root = str(Path(__file__).parents[2])
    code = "import sys; sys.path.insert(0, sys.argv[1]); import soakd.shim.main"
    subprocess.run([sys.executable, "-I", "-S", "-c", code, root], check=True)
