"""The server over real Unix sockets, with a scheduler that does what the test says.

Real clock: time-outs that must strike are short ones from `Limits`, `fail_after` is only a guard.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from soakd.connection import Limits
from soakd.edge.listen import bind_socket
from soakd.edge.peers import Accounts, Admission, Mode, Peer
from soakd.server import ServerContext, serve
from soakd.wire.frames import Response, encode_notification, encode_request, encode_response
from tests.handlers.fakes import ADMIN, OWNER, PLAN, STRANGER, FakeDaemon, FakeScheduler
from tests.wire_client import WireClient

GUARD_S = 15


class FixedAdmission(Admission):
    """Everybody who connects is the peer that the test wants."""

    def __init__(self, peer: Peer, mode: Mode = "system") -> None:
        super().__init__(mode, Accounts())
        self.peer = peer
        self.failure: Exception | None = None

    async def admit(self, _sock: object) -> Peer:
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        return self.peer


@dataclass
class Served:
    """A running server and what it was made of."""

    path: Path
    scheduler: FakeScheduler
    daemon: FakeDaemon
    admission: FixedAdmission
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    clients: list[WireClient] = field(default_factory=list)

    async def client(self, *, hello: bool = True) -> WireClient:
        """Connect a new client, which is closed at the end of the test."""
        client = WireClient(await trio.open_unix_socket(self.path))
        self.clients.append(client)
        if hello:
            await client.call("hello", client="test", protocol=1)
        return client


@asynccontextmanager
async def served(
    folder: Path, *, peer: Peer = OWNER, mode: Mode = "system", limits: Limits | None = None
) -> AsyncIterator[Served]:
    """Run a server for the block; leaving it cancels the server and waits for its end."""
    it = Served(folder / "s", FakeScheduler(folder), FakeDaemon(), FixedAdmission(peer, mode))
    context = ServerContext(it.scheduler, it.daemon, it.admission, limits or Limits())
    listening = bind_socket(it.path, "user")

    async def run(*, task_status: trio.TaskStatus[Any]) -> None:
        with it.scope:
            await serve(listening.socket, context=context, task_status=task_status)

    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(run)
            with trio.fail_after(GUARD_S):
                yield it
            it.scope.cancel()
    finally:
        for client in it.clients:
            client.stream.socket.close()
        listening.close()


@pytest.fixture
async def server(short_dir: Path) -> AsyncIterator[Served]:
    """Serve the owner of run r7, with the usual limits but for the patience at the end."""
    async with served(short_dir, limits=Limits(flush_s=0.05)) as it:
        yield it


async def test_hello_then_calls_are_answered(server: Served) -> None:
    """The plain case, over a real socket."""
    client = await server.client()
    assert (await client.call("run.status"))["id"] == "r7"
    assert (await client.fail("run.status", run="r9"))["code"] == "no_such_run"
    assert (await client.call("run.start", plan=PLAN))["position"] == 1
    assert (await client.call("hello", client="again", protocol=1))["uid"] == OWNER.uid


async def test_requests_are_served_side_by_side(server: Served) -> None:
    """A slow request holds nobody up; answers come as they are ready."""
    server.scheduler.hold = trio.Event()
    client = await server.client()
    slow = await client.send("run.start", plan=PLAN)
    assert (await client.call("run.status"))["id"] == "r7"
    server.scheduler.hold.set()
    assert (await client.answer(slow)).error is None


async def test_requests_in_one_packet_are_all_served(server: Served) -> None:
    """Frames are not packets."""
    client = await server.client()
    frames = b"".join(encode_request(n, "run.status", {}) for n in range(10, 14))
    await client.stream.send_all(frames)
    answers = [await client.next() for _ in range(4)]
    assert {answer.id for answer in answers if isinstance(answer, Response)} == {10, 11, 12, 13}


FOREIGN = """
import json, sys
from pynvim.msgpack_rpc import socket_session

class Refused(Exception):
    pass

session = socket_session(sys.argv[1])
session.error_wrapper = Refused
hello = session.request("hello", {"client": "pynvim", "protocol": 1})
status = session.request("run.status", {"run": "r7"})
info = session.request("daemon.info")
try:
    error = session.request("run.status", {"run": "r8"})
except Refused as refused:
    error = refused.args[0]
watched = session.request("run.watch", {"run": "r7"})
event = session.next_message()
json.dump([hello, status, info, error, watched, event], sys.stdout)
"""


@pytest.mark.slow
async def test_a_foreign_messagepack_rpc_client_is_served(server: Served) -> None:
    """The wire is MessagePack-RPC as publicly specified: pynvim's session, not ours, speaks it."""
    server.scheduler.events = [{"seq": 1, "kind": "end", "data": {"state": "finished"}}]
    server.scheduler.finished = True
    command = [sys.executable, "-W", "ignore", "-c", FOREIGN, str(server.path)]
    done = await trio.run_process(command, capture_stdout=True)
    hello, status, info, error, watched, event = json.loads(done.stdout)
    assert hello["protocol"] == 1
    assert status == server.scheduler.full_status()
    assert info["version"] == "0.1.0"
    assert error["code"] == "no_such_run"
    assert watched == {"run": "r7", "last_seq": 1}
    assert event[:2] == ["notification", "run.event"]
    assert event[2][0]["data"] == {"state": "finished"}


async def test_a_watch_is_notifications_first_and_the_response_last(server: Served) -> None:
    """In the order of the events, with other calls in between."""
    client = await server.client()
    watch = await client.send("run.watch", run="r7")
    await server.scheduler.watching.wait()
    feed = server.scheduler.feed
    assert feed is not None
    await feed.send({"seq": 1, "kind": "state", "data": {}})
    assert (await client.call("run.status"))["id"] == "r7"
    await feed.send({"seq": 2, "kind": "end", "data": {}})
    server.scheduler.end()
    assert (await client.answer(watch)).result == {"run": "r7", "last_seq": 2}
    assert [note.params["seq"] for note in client.notes] == [1, 2]


async def test_a_client_that_closes_ends_its_streams(server: Served) -> None:
    """Nobody watches for a client that is gone."""
    client = await server.client()
    await client.send("run.watch")
    await server.scheduler.watching.wait()
    await client.stream.aclose()
    await server.scheduler.unwatched.wait()


async def test_a_submission_is_finished_after_its_client_has_gone(server: Served) -> None:
    """A run is queued or not, never half: the client's end does not cancel it."""
    server.scheduler.hold = trio.Event()
    client = await server.client()
    await client.send("run.start", plan=PLAN)
    await server.scheduler.submitting.wait()
    await client.stream.aclose()
    other = await server.client()
    assert (await other.call("run.status"))["id"] == "r7"
    server.scheduler.hold.set()
    await server.scheduler.submitted.wait()


async def test_what_never_ends_is_cancelled_after_its_client(short_dir: Path) -> None:
    """The patience with requests of a client that has gone is limited."""
    async with served(short_dir, limits=Limits(finish_s=0.02)) as server:
        server.scheduler.hold = trio.Event()
        client = await server.client()
        await client.send("run.start", plan=PLAN)
        await client.stream.send_eof()
        assert await client.last_words() is None
        assert not server.scheduler.submitted.is_set()


async def test_a_half_closed_client_still_gets_its_answer(server: Served) -> None:
    """A script may send, shut down its side and read."""
    client = await server.client()
    request_id = await client.send("run.status")
    await client.stream.send_eof()
    assert (await client.answer(request_id)).error is None
    assert await client.last_words() is None


async def test_nothing_is_served_before_hello(server: Served) -> None:
    """The request is answered with what is missing, then the connection ends."""
    client = await server.client(hello=False)
    assert (await client.fail("run.list"))["code"] == "bad_frame"
    words = await client.last_words()
    assert words is not None
    assert "before hello" in words["message"]
    client = await server.client(hello=False)
    await client.stream.send_all(encode_notification("hello", {}))
    assert (await client.fail("run.start", plan=PLAN))["code"] == "bad_frame"
    assert server.scheduler.calls == []


async def test_another_major_is_told_and_sent_away(server: Served) -> None:
    """The remedy is in the answer."""
    client = await server.client(hello=False)
    assert (await client.fail("hello", client="t", protocol=2))["code"] == "version"
    words = await client.last_words()
    assert words is not None
    assert words["code"] == "version"


@pytest.mark.parametrize("sent", [b"", b"\x94\x00"])
async def test_a_handshake_has_five_seconds(short_dir: Path, sent: bytes) -> None:
    """Here 20 ms: a silent or dripping client is not kept."""
    async with served(short_dir, limits=Limits(handshake_s=0.02)) as server:
        client = await server.client(hello=False)
        if sent:
            await client.stream.send_all(sent)
        words = await client.last_words()
        assert words is not None
        assert words["code"] == "timeout"


async def test_a_client_that_closes_before_hello_is_nothing_special(server: Served) -> None:
    """Port scanners and `test -S` do that."""
    client = await server.client(hello=False)
    await client.stream.aclose()
    client = await server.client(hello=False)
    await client.stream.send_eof()
    words = await client.last_words()
    assert words is not None
    assert words["code"] == "bad_frame"


GARBAGE = {
    "not MessagePack": b"\xc1",
    "GET / HTTP/1.1": b"GET / HTTP/1.1\r\n\r\n",
    "a response": encode_response(1, None, None),
    "too deep": b"\x91" * 2000,
    "huge array": b"\xdd\xff\xff\xff\xff",
    "id in use": encode_request(5, "run.watch", {}) + encode_request(5, "run.watch", {}),
}


@pytest.mark.parametrize("hello", [True, False])
@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
async def test_a_malformed_frame_ends_that_connection_only(
    server: Served, data: bytes, *, hello: bool
) -> None:
    """The offender hears why; everybody else goes on."""
    neighbour = await server.client()
    client = await server.client(hello=hello)
    await client.stream.send_all(data)
    words = await client.last_words()
    assert words is not None
    assert words["code"] == "bad_frame"
    assert (await neighbour.call("run.status"))["id"] == "r7"


async def test_a_malformed_request_is_answered_before_the_end(server: Served) -> None:
    """Its author sees which request was wrong."""
    client = await server.client()
    await client.stream.send_all(bytes.fromhex("940009a16d01"))
    response = await client.answer(9)
    assert response.error is not None
    assert response.error["code"] == "bad_frame"
    assert await client.last_words() is not None


async def test_positional_params_are_refused_and_the_connection_goes_on(server: Served) -> None:
    """Valid MessagePack-RPC that no method of ours takes."""
    client = await server.client()
    await client.stream.send_all(bytes.fromhex("940009aa72756e2e73746174757391a27237"))
    response = await client.answer(9)
    assert response.error is not None
    assert response.error["code"] == "bad_params"
    assert (await client.call("run.status"))["id"] == "r7"


async def test_unknown_notifications_are_ignored(server: Served) -> None:
    """The protocol is additive; a notification wants no answer."""
    client = await server.client()
    await client.stream.send_all(encode_notification("future", {}))
    assert (await client.call("run.status"))["id"] == "r7"


async def test_requests_in_flight_are_limited_and_streams_apart(short_dir: Path) -> None:
    """One more is refused with an answer; the connection goes on."""
    async with served(short_dir, limits=Limits(max_requests=2, max_streams=1)) as server:
        server.scheduler.hold = trio.Event()
        client = await server.client()
        slow = [await client.send("run.start", plan=PLAN) for _ in range(2)]
        assert "2 are under way" in (await client.fail("run.status"))["message"]
        await client.send("run.watch")
        assert "1 are under way" in (await client.fail("run.watch"))["message"]
        server.scheduler.hold.set()
        for request_id in slow:
            assert (await client.answer(request_id)).error is None
        assert (await client.call("run.status"))["id"] == "r7"


async def test_collect_needs_a_connection_of_its_own(server: Served) -> None:
    """Beside a watch it is refused; after everything else has ended it is served."""
    client = await server.client()
    watch = await client.send("run.watch")
    error = await client.fail("run.collect")
    assert error["code"] == "refused"
    await server.scheduler.watching.wait()
    server.scheduler.end()
    await client.answer(watch)
    result = await client.call("run.collect")
    assert b"".join(note.params["data"] for note in client.notes) == b"abcdef"  # type: ignore[misc]
    assert result["bytes"] == 6


async def test_nothing_is_served_beside_a_collect(server: Served) -> None:
    """A bundle fills the queue: another answer would wait behind it."""
    server.scheduler.pieces = [b"x" * 100_000] * 100
    client = await server.client()
    collect = await client.send("run.collect")
    status = await client.send("run.status")
    answers: dict[int, Response] = {}
    while len(answers) < 2:
        message = await client.next()
        assert message is not None
        if isinstance(message, Response):
            answers[message.id] = message
    assert answers[collect].error is None
    assert answers[status].error is not None


async def test_a_bundle_is_made_no_faster_than_it_is_read(server: Served) -> None:
    """Back-pressure reaches the packing: memory does not grow with the bundle."""
    server.scheduler.pieces = [b"x" * 100_000] * 300
    client = await server.client()
    await client.send("run.collect")
    before = -1
    while len(server.scheduler.log) > before:
        before = len(server.scheduler.log)
        await trio.testing.wait_all_tasks_blocked(0.01)
    assert 0 < before < 40
    await client.stream.aclose()
    await server.scheduler.packed.wait()


async def test_a_client_that_does_not_read_is_dropped(short_dir: Path) -> None:
    """Its watch ends, its neighbours do not notice."""
    async with served(short_dir, limits=Limits(send_timeout_s=0.05, flush_s=0.05)) as server:
        client = await server.client()
        neighbour = await server.client()
        await client.send("run.watch")
        await server.scheduler.watching.wait()
        feed = server.scheduler.feed
        assert feed is not None
        with pytest.raises(trio.BrokenResourceError):
            await fill(feed)
        assert (await neighbour.call("run.status"))["id"] == "r7"
        assert await client.last_words() is None


async def fill(feed: trio.MemorySendChannel[dict[str, Any]]) -> None:
    """Send large events until the watch has ended."""
    seq = 0
    while True:
        seq += 1
        await feed.send({"seq": seq, "kind": "event", "data": {"text": "x" * 20_000}})


async def test_an_answer_too_large_for_a_frame_is_an_error(server: Served) -> None:
    """The client hears of it instead of waiting."""
    server.scheduler.extra = {"text": "x" * 2_000_000}
    client = await server.client()
    error = await client.fail("run.status")
    assert error["code"] == "internal"
    assert "cannot send the answer" in error["message"]


async def test_connections_of_one_uid_are_limited(short_dir: Path) -> None:
    """The one too many is told; a closed one makes room."""
    async with served(short_dir, limits=Limits(max_connections_per_uid=2)) as server:
        first, _second = await server.client(), await server.client()
        third = await server.client(hello=False)
        words = await third.last_words()
        assert words is not None
        assert words["code"] == "refused"
        await first.stream.send_eof()
        assert await first.last_words() is None
        await server.client()


async def test_connections_of_all_users_are_limited_but_not_roots(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An admin gets in when users have taken everything."""
    uid = 1000
    monkeypatch.setattr("soakd.server.peer_ids", lambda _sock: (uid, uid))
    async with served(short_dir, limits=Limits(max_connections=1)) as server:
        await server.client()
        late = await server.client(hello=False)
        words = await late.last_words()
        assert words is not None
        assert "all users together" in words["message"]
        uid = 0
        assert (await (await server.client()).call("run.status"))["id"] == "r7"


async def test_user_mode_sends_others_away(short_dir: Path) -> None:
    """Should somebody get that far, a private soakd says whom it serves."""
    async with served(short_dir, peer=STRANGER, mode="user") as server:
        client = await server.client(hello=False)
        words = await client.last_words()
        assert words is not None
        assert words["code"] == "not_allowed"


async def test_in_system_mode_a_stranger_may_say_hello(short_dir: Path) -> None:
    """It learns that it is no member, and that is all."""
    async with served(short_dir, peer=STRANGER) as server:
        client = await server.client()
        assert (await client.fail("run.list"))["code"] == "not_allowed"


async def test_a_connection_that_fails_inside_does_not_end_the_server(server: Served) -> None:
    """A bug in the handling of one connection is that connection's end only."""
    server.admission.failure = RuntimeError("account database on fire")
    client = await server.client(hello=False)
    assert await client.last_words() is None
    server.admission.failure = None
    await server.client()


async def test_the_end_of_the_daemon_is_announced(server: Served) -> None:
    """A watching client hears that soakd goes, after everything sent before."""
    client = await server.client()
    await client.send("run.watch")
    await server.scheduler.watching.wait()
    feed = server.scheduler.feed
    assert feed is not None
    await feed.send({"seq": 1, "kind": "state", "data": {}})
    while not client.notes:
        message = await client.next()
        assert not isinstance(message, Response)
        client.notes.append(message)  # type: ignore[arg-type]
    server.scope.cancel()
    words = await client.last_words()
    assert words is not None
    assert words["code"] == "no_daemon"


async def test_shutdown_is_answered_before_the_daemon_ends(short_dir: Path) -> None:
    """The client knows that its request was taken."""
    async with served(short_dir, peer=ADMIN) as server:
        client = await server.client()
        assert await client.call("daemon.shutdown") == {}
        assert server.daemon.asked_by == ADMIN


@pytest.fixture(autouse=True)
def _no_leftovers(short_dir: Path) -> Iterator[None]:
    """Every test leaves an empty folder: neither socket nor lock."""
    yield
    assert [path.name for path in short_dir.iterdir()] == []
