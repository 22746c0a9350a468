from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
import trio.testing

from soakd.core.errors import HostError, NodeError
from soakd.edge import node_api, node_link
from soakd.edge.node_api import Answer, NodeApi
from soakd.edge.node_link import NodeCallError

Serve = Callable[[trio.SocketStream, bytes], Awaitable[None]]
TOKEN = "ab" * 32
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


def trusting(_port: int, _address: str) -> None:
    """Whoever listens is the node."""


class Node:
    """A scripted server: each request is answered by the next entry of `script`.

    Keeps what it was sent, and how many connections there were.
    """

    def __init__(self, script: list[Serve | bytes]) -> None:
        self.script = script
        self.requests: list[bytes] = []
        self.connections = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        async with stream:
            while (request := await self._request(stream)) is not None:
                self.requests.append(request)
                step = self.script.pop(0) if self.script else OK
                try:
                    if isinstance(step, bytes):
                        await stream.send_all(step)
                    else:
                        await step(stream, request)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return

    async def _request(self, stream: trio.SocketStream) -> bytes | None:
        data = b""
        while True:
            head, end, body = data.partition(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            if end and len(body) >= int(length or 0):
                return data
            try:
                more = await stream.receive_some(65536)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
            if not more:
                return None
            data += more


@asynccontextmanager
async def running(
    *script: Serve | bytes, host: str = "127.0.0.1"
) -> AsyncIterator[tuple[Node, int]]:
    """A node on a free port."""
    node = Node(list(script))
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host=host)
        nursery.start_soon(trio.serve_listeners, node.serve, [listener])
        yield node, int(listener.socket.getsockname()[1])
        nursery.cancel_scope.cancel()


async def hang(_stream: trio.SocketStream, _request: bytes) -> None:
    """Never answer."""
    await trio.sleep_forever()


async def hang_up(stream: trio.SocketStream, _request: bytes) -> None:
    """Close the connection instead of answering."""
    await stream.aclose()


async def reset(stream: trio.SocketStream, _request: bytes) -> None:
    """End the connection by RST."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    await stream.aclose()


def close_after(data: bytes) -> Serve:
    """Send `data`, then close."""

    async def step(stream: trio.SocketStream, _request: bytes) -> None:
        await stream.send_all(data)
        await stream.aclose()

    return step


async def refused(api: NodeApi, method: str = "GET", **arguments: float) -> NodeCallError:
    """The error of a call that must fail."""
    with pytest.raises(NodeCallError) as caught:
        await api.call(method, "/x", token=None, **arguments)  # type: ignore[arg-type]
    return caught.value


async def test_a_get_says_what_the_contract_wants() -> None:
    """Exact bearer header, no compression, no Origin."""
    async with running(b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nwait") as (node, port):
        api = NodeApi("127.0.0.1", port, trusting)
        answer = await api.call("GET", "/api/v1/status?x=1", token=TOKEN)
        await api.aclose()
    assert answer == Answer(503, b"wait")
    lines = node.requests[0].decode().split("\r\n")
    assert lines[0] == "GET /api/v1/status?x=1 HTTP/1.1"
    assert {line.partition(":")[0].lower() for line in lines[1:] if line} == {
        "host", "accept-encoding", "authorization",
    }  # fmt: skip
    assert f"Authorization: Bearer {TOKEN}" in lines
    assert "Accept-Encoding: identity" in lines
    assert f"Host: 127.0.0.1:{port}" in lines


async def test_a_post_carries_compact_json() -> None:
    """With its length and type."""
    async with running() as (node, port):
        api = NodeApi("127.0.0.1", port, trusting)
        await api.call("POST", "/p", token=None, body={"file_id_hex": "ab", "file_size": 7})
        await api.call("POST", "/q", token=None)
        await api.aclose()
    head, _, body = node.requests[0].partition(b"\r\n\r\n")
    assert body == b'{"file_id_hex":"ab","file_size":7}'
    assert b"content-type: application/json" in head.lower()
    assert b"authorization" not in head.lower()
    assert node.requests[1].endswith(b"\r\n\r\n")


async def test_calls_share_one_connection_that_is_verified_once() -> None:
    """Before and after the connect, and never per call."""
    asked: list[tuple[int, str]] = []

    def verify(port: int, address: str) -> None:
        asked.append((port, address))

    async with running() as (node, port):
        api = NodeApi("127.0.0.1", port, verify)
        for _ in range(5):
            assert await api.call("GET", "/x", token=TOKEN) == Answer(200, b"{}")
        await api.aclose()
        await api.aclose()
    assert node.connections == 1
    assert asked == [(port, "127.0.0.1")] * 2


async def test_calls_of_several_tasks_take_turns() -> None:
    """One connection cannot carry two requests at a time."""
    async with running() as (node, port):
        api = NodeApi("127.0.0.1", port, trusting)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(lambda: api.call("GET", "/x", token=None))
        await api.aclose()
    assert (node.connections, len(node.requests)) == (1, 10)


@pytest.mark.slow
async def test_the_wait_for_ones_turn_is_not_the_nodes_fault() -> None:
    """A hanging call of one task does not time out the call of another."""
    async with running(hang) as (_, port):
        api = NodeApi("127.0.0.1", port, trusting)
        answers: list[Answer] = []

        async def second() -> None:
            await trio.testing.wait_all_tasks_blocked()
            answers.append(await api.call("GET", "/x", token=None, timeout_s=0.4))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(second)
            error = await refused(api, timeout_s=0.5)
        await api.aclose()
    assert error.kind == "timeout"
    assert answers == [Answer(200, b"{}")]


async def test_a_call_aside_that_hangs_makes_no_other_wait() -> None:
    """It has its own connection, proven like the first."""
    asked: list[str] = []
    async with running(hang) as (node, port):
        api = NodeApi("127.0.0.1", port, lambda _port, address: asked.append(address))

        async def sample() -> None:
            with pytest.raises(NodeCallError):
                await api.call("GET", "/aside", token=None, timeout_s=0.2, aside=True)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sample)
            while not node.requests:
                await trio.lowlevel.checkpoint()
            began_s = trio.current_time()
            assert await api.call("GET", "/x", token=None) == Answer(200, b"{}")
            assert trio.current_time() - began_s < 0.2
        assert await api.call("GET", "/y", token=None, aside=True) == Answer(200, b"{}")
        await api.aclose()
    assert node.connections == 3
    assert len(asked) == 6


async def test_localhost_is_both_loopback_addresses() -> None:
    """IPv4 first; verify hears the address that was really connected."""
    asked: list[str] = []
    async with running(host="::1") as (_, port):
        api = NodeApi("localhost", port, lambda _port, address: asked.append(address))
        assert await api.call("GET", "/x", token=None) == Answer(200, b"{}")
        await api.aclose()
    assert asked == ["127.0.0.1", "::1", "::1"]


async def test_an_ipv6_host_stands_in_brackets() -> None:
    """In the Host header and in errors."""
    async with running(host="::1") as (node, port):
        api = NodeApi("::1", port, trusting)
        await api.call("GET", "/x", token=None)
        await api.aclose()
    assert f"Host: [::1]:{port}".encode() in node.requests[0]
    error = await refused(NodeApi("::1", port, trusting))
    assert error.message == f"cannot GET /x on [::1]:{port}: Connection refused"


async def test_nobody_listening_is_refused() -> None:
    """The node is not up yet, or down."""
    async with running() as (_, port):
        pass
    error = await refused(NodeApi("127.0.0.1", port, trusting))
    assert (error.kind, error.code, error.text) == ("refused", "api_refused", "Connection refused")


async def test_a_foreign_listener_hears_nothing() -> None:
    """Above all no token."""

    def object_(port: int, address: str) -> None:
        raise NodeError("foreign", f"{address}:{port} is nc's")

    async with running() as (node, port):
        api = NodeApi("127.0.0.1", port, object_)
        with pytest.raises(NodeCallError) as caught:
            await api.call("GET", "/x", token=TOKEN)
        await api.aclose()
    assert (caught.value.kind, caught.value.text) == ("foreign", f"127.0.0.1:{port} is nc's")
    assert node.requests == []


@pytest.mark.parametrize("objections", [[True, False, False, False], [True, False, True, False]])
async def test_a_connection_made_while_the_listener_changed_is_not_used(
    objections: list[bool],
) -> None:
    """Whoever listened before the node may have accepted it and closed the port."""
    steps = list(objections)

    def verify(_port: int, _address: str) -> None:
        if steps.pop(0):
            raise NodeError("foreign", "not the node")

    async with running() as (node, port):
        api = NodeApi("127.0.0.1", port, verify)
        if objections[2]:
            assert (await refused(api)).kind == "foreign"
            assert node.requests == []
        else:
            assert await api.call("GET", "/x", token=TOKEN) == Answer(200, b"{}")
            assert (node.connections, len(node.requests)) == (2, 1)
        await api.aclose()


async def test_a_restarted_node_is_verified_again() -> None:
    """An idle connection that ended is replaced, for any method, before anything is sent."""
    asked: list[str] = []
    async with running(close_after(OK), OK, close_after(OK)) as (node, port):
        api = NodeApi("127.0.0.1", port, lambda _port, address: asked.append(address))
        for method in ("GET", "POST", "POST", "POST"):
            assert await api.call(method, "/x", token=None) == Answer(200, b"{}")
            await trio.testing.wait_all_tasks_blocked(0.01)
        await api.aclose()
    assert (node.connections, len(asked), len(node.requests)) == (3, 6, 4)


async def test_an_idle_connection_that_was_reset_is_replaced() -> None:
    """Also for a POST: nothing was sent on it yet."""
    gone = trio.Event()

    async def answer_and_reset(stream: trio.SocketStream, request: bytes) -> None:
        await stream.send_all(OK)
        await trio.testing.wait_all_tasks_blocked()
        await reset(stream, request)
        gone.set()

    async with running(answer_and_reset, OK) as (node, port):
        api = NodeApi("127.0.0.1", port, trusting)
        await api.call("GET", "/x", token=None)
        await gone.wait()
        assert await api.call("POST", "/x", token=None) == Answer(200, b"{}")
        await api.aclose()
    assert (node.connections, len(node.requests)) == (2, 2)


async def test_an_answer_that_is_reset_half_way_is_lost() -> None:
    """And not repeated: the node had begun to answer."""

    async def half(stream: trio.SocketStream, request: bytes) -> None:
        await stream.send_all(OK[:-1])
        await trio.testing.wait_all_tasks_blocked()
        await reset(stream, request)

    async with running(half) as (node, port):
        api = NodeApi("127.0.0.1", port, trusting)
        error = await refused(api)
        await api.aclose()
    assert (error.kind, error.text) == ("lost", "Connection reset by peer")
    assert len(node.requests) == 1


@pytest.mark.parametrize("end", [hang_up, reset])
async def test_a_get_on_an_idle_connection_that_dies_is_sent_once_more(end: Serve) -> None:
    """Its end may have crossed our request."""
    async with running(OK, end, OK) as (node, port):
        api = NodeApi("127.0.0.1", port, trusting)
        await api.call("GET", "/x", token=None)
        assert await api.call("GET", "/x", token=None) == Answer(200, b"{}")
        await api.aclose()
    assert (node.connections, len(node.requests)) == (2, 3)


@pytest.mark.parametrize("end", [hang_up, reset])
async def test_a_post_is_never_repeated(end: Serve) -> None:
    """A publish that perhaps happened must not happen twice."""
    async with running(OK, end, OK) as (node, port):
        api = NodeApi("127.0.0.1", port, trusting)
        await api.call("GET", "/x", token=None)
        assert (await refused(api, "POST")).kind == "lost"
        assert len(node.requests) == 2
        assert await api.call("POST", "/x", token=None) == Answer(200, b"{}")
        await api.aclose()


async def test_a_get_is_repeated_only_once() -> None:
    """A node that hangs up on everybody is lost."""
    async with running(OK, hang_up, hang_up) as (node, port):
        api = NodeApi("127.0.0.1", port, trusting)
        await api.call("GET", "/x", token=None)
        assert (await refused(api)).kind == "lost"
        await api.aclose()
    assert len(node.requests) == 3


async def test_a_new_connection_that_dies_is_lost() -> None:
    """It was not idle: nothing to excuse it."""
    async with running(hang_up) as (node, port):
        api = NodeApi("127.0.0.1", port, trusting)
        assert (await refused(api)).kind == "lost"
        assert len(node.requests) == 1
        await api.aclose()


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
LARGE = b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", "protocol"),
        (b"\x00\xff garbage \r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n", "protocol"),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}", "protocol"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 101\r\n\r\n" + b"x" * 101, "too_big"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n65\r\n" + b"x" * 101, "too_big"),
        (LARGE, "too_big"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 10_000, "too_big"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000, "too_big"),
        (CHUNKED + (b"1;" + b"z" * 10_000 + b"\r\nx\r\n") * 50, "too_big"),
    ],
    ids=[
        "ssh", "garbage", "length", "digits", "upgrade", "gzip", "body", "chunked", "header",
        "headers", "interim", "padding",
    ],
)  # fmt: skip
async def test_what_is_not_an_answer_ends_the_connection(
    sent: bytes, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next call has a clean one."""
    monkeypatch.setattr(node_link, "MAX_BODY_BYTES", 100)
    async with running(sent) as (node, port):
        api = NodeApi("127.0.0.1", port, trusting)
        assert (await refused(api)).kind == kind
        assert await api.call("GET", "/x", token=None) == Answer(200, b"{}")
        await api.aclose()
    assert node.connections == 2


@pytest.mark.parametrize(
    "part", [b"HT", b"HTTP/1.1 200 OK\r\ncont", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"]
)
async def test_half_an_answer_is_lost(part: bytes) -> None:
    """The node died in the middle; that is not a protocol error, and not repeated."""
    async with running(OK, close_after(part)) as (node, port):
        api = NodeApi("127.0.0.1", port, trusting)
        await api.call("GET", "/x", token=None)
        assert (await refused(api)).kind == "lost"
        await api.aclose()
    assert len(node.requests) == 2


async def test_a_body_that_is_announced_too_big_is_not_awaited() -> None:
    """Not a byte of it is needed to refuse it."""
    async with running(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n") as (_, port):
        api = NodeApi("127.0.0.1", port, trusting)
        error = await refused(api)
        await api.aclose()
    assert error.kind == "too_big"
    assert "announced with 100000000 bytes" in error.text


async def test_answers_without_length_chunked_and_with_interim_are_whole() -> None:
    """All forms HTTP/1.1 allows, the first of which ends its connection."""
    closing = close_after(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
    chunked = (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"
    )
    interim = b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK
    redirect = b"HTTP/1.1 303 See Other\r\nlocation: http://x/\r\ncontent-length: 0\r\n\r\n"
    async with running(closing, chunked, interim, redirect) as (node, port):
        api = NodeApi("127.0.0.1", port, trusting)
        answers = [await api.call("GET", "/x", token=None) for _ in range(4)]
        await api.aclose()
    assert answers == [
        Answer(200, b"until the end"), Answer(200, b"abcd"), Answer(200, b"{}"), Answer(303, b""),
    ]  # fmt: skip
    assert node.connections == 2


async def test_a_dripping_server_is_cut_off_in_time() -> None:
    """The limit is on the whole call, not on each read."""

    async def drip(stream: trio.SocketStream, _request: bytes) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while True:
            await stream.send_all(b"x")
            await trio.sleep(0.01)

    async with running(drip, OK) as (node, port):
        api = NodeApi("127.0.0.1", port, trusting)
        error = await refused(api, timeout_s=0.1)
        assert error.kind == "timeout"
        assert error.text == "no whole answer within 0.1 s"
        assert await api.call("GET", "/x", token=None) == Answer(200, b"{}")
        await api.aclose()
    assert node.connections == 2


async def test_a_cancelled_call_leaves_no_half_answer_behind() -> None:
    """The next call must not read the one before's."""
    asked = trio.Event()

    async def late(stream: trio.SocketStream, _request: bytes) -> None:
        asked.set()
        await trio.sleep(0.02)
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nold")

    async with running(OK, late, OK) as (node, port):
        api = NodeApi("127.0.0.1", port, trusting)
        await api.call("GET", "/x", token=None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: api.call("GET", "/x", token=None))
            await asked.wait()
            nursery.cancel_scope.cancel()
        assert await api.call("GET", "/x", token=None) == Answer(200, b"{}")
        await api.aclose()
    assert node.connections == 2


async def test_unasked_bytes_on_an_idle_connection_are_not_an_answer() -> None:
    """A node that answers twice poisons nothing."""
    async with running(OK + OK.replace(b"{}", b"[]")) as (node, port):
        api = NodeApi("127.0.0.1", port, trusting)
        await api.call("GET", "/x", token=None)
        assert await api.call("GET", "/x", token=None) == Answer(200, b"{}")
        await api.aclose()
    assert node.connections == 2


async def test_a_listener_that_accepts_nobody_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connecting has its own, shorter limit."""
    monkeypatch.setattr(node_api, "CONNECT_S", 0.05)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        with trio.move_on_after(0.01) as cancelled:
            await NodeApi("127.0.0.1", port, trusting).call("GET", "/x", token=None)
        error = await refused(NodeApi("127.0.0.1", port, trusting))
        for sock in waiting:
            sock.close()
    assert cancelled.cancelled_caught
    assert error.kind == "timeout"
    assert error.text == "127.0.0.1 did not take the connection within 0.05 s"


@pytest.mark.parametrize("token", ["a\r\nX-Evil: 1", "\x1b[2J", "päss", "a\n"])
async def test_a_token_cannot_bring_headers_of_its_own(token: str) -> None:
    """It comes from a file that the user writes."""
    with pytest.raises(NodeCallError, match="characters no header may hold"):
        await NodeApi("127.0.0.1", 1, trusting).call("GET", "/x", token=token)


async def test_a_request_that_is_not_http_is_not_sent() -> None:
    """Our own mistake ends as an error, with the connection closed."""
    async with running() as (node, port):
        api = NodeApi("127.0.0.1", port, trusting)
        assert (await refused(api, "G ET")).kind == "protocol"
        await api.aclose()
    assert node.requests == []


async def test_without_descriptors_the_host_is_to_blame(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the node."""

    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(HostError, match="cannot make a socket: Too many open files"):
        await NodeApi("127.0.0.1", 1, trusting).call("GET", "/x", token=None)


async def test_another_transport_can_take_its_place() -> None:
    """Shells are tested with httpx.MockTransport."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200, json={"path": request.url.path, "body": json.loads(request.content)}
        )

    api = NodeApi("127.0.0.1", 1, trusting, transport=httpx.MockTransport(answer))
    reply = await api.call("POST", "/p", token=None, body={"a": 1})
    await api.aclose()
    assert json.loads(reply.body) == {"path": "/p", "body": {"a": 1}}
