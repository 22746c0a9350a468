"""A live node: to whom its token is given, what its answers mean, what is noticed about it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from soakd.core import readiness
from soakd.core.errors import HostError, NodeError, SoakError
from soakd.core.plan import NodePlan
from soakd.drivers import rust_mule
from soakd.drivers.driver import NodeConfig
from soakd.edge import ports
from soakd.edge.clock import boot_now
from soakd.edge.node_api import NodeApi
from soakd.edge.pidfds import start_ticks
from soakd.listeners import Process
from soakd.node import RESOURCE_SAMPLE_S, Access, LiveNode
from tests.run.kit import NO_PROCESS, TICKS, UID, VirtualTime, child_gone

TOKEN = "ab" * 32
CONFIG = NodeConfig("", (), "data", (), 4.0)
PLAN = NodePlan("a", "/dist/a", "127.0.0.1", 20_000, ("publisher",))


class Sink:
    """Where observations go."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str | None, dict[str, Any]]] = []
        self.samples: list[str] = []
        self.usage: list[dict[str, Any]] = []
        self.calls: list[tuple[str, str, str | None]] = []

    def call_ended(self, node: str, route: str, error: SoakError | None) -> None:
        self.calls.append((node, route, None if error is None else error.code))

    def event(self, kind: str, node: str | None, data: dict[str, Any]) -> None:
        self.events.append((kind, node, data))

    def status_sample(self, node: str, body: str) -> None:
        self.samples.append(body)

    def resources(self, node: str, sample: dict[str, Any]) -> None:
        self.usage.append(sample)


class Scripted:
    """A node whose HTTP side is a function."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer: Callable[[httpx.Request], httpx.Response] = lambda _: httpx.Response(200)
        self.requests: list[httpx.Request] = []
        self.token: bytes | Exception = TOKEN.encode() + b"\n"
        self.read: list[str] = []
        self.kept: list[str] = []
        transport = httpx.MockTransport(self._respond)

        def make(host: str, port: int, verify: Any) -> NodeApi:
            return NodeApi(host, port, verify, transport=transport)

        monkeypatch.setattr("soakd.node.NodeApi", make)
        process = Process(os.getpid(), start_ticks(os.getpid()) or 0, UID)
        self.sink = Sink()
        self.node = LiveNode(
            PLAN,
            CONFIG,
            process,
            Access(rust_mule.DRIVER, self._read_file, self._keep),
            self.sink,
        )

    def _respond(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer(request)

    async def _read_file(self, path: str) -> bytes:
        await trio.lowlevel.checkpoint()
        self.read.append(path)
        if isinstance(self.token, Exception):
            raise self.token
        return self.token

    async def _keep(self, token: str) -> None:
        await trio.lowlevel.checkpoint()
        self.kept.append(token)


@pytest.fixture
def scripted(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> Scripted:
    VirtualTime(autojump_clock).install(monkeypatch)
    return Scripted(monkeypatch)


def status(uptime: int) -> httpx.Response:
    return httpx.Response(200, json={"uptime_secs": uptime})


class Tokenless(rust_mule.RustMule):
    files = replace(rust_mule.DRIVER.files, token=None)


async def test_a_token_that_the_program_does_not_have_is_no_file(scripted: Scripted) -> None:
    """A driver that asks for one all the same gets an answer, and no file of another program."""
    access = Access(Tokenless(), scripted._read_file, scripted._keep)
    plan = NodePlan("a", "/dist/a", "127.0.0.1", 20_000, ("publisher",))
    node = LiveNode(plan, CONFIG, scripted.node.process, access, scripted.sink)
    with pytest.raises(NodeError, match="cannot read a token of node a: it has none"):
        await node.status()
    assert (scripted.read, scripted.requests) == ([], [])


# -- readiness ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (httpx.Response(200, json={"uptime_secs": 1}), readiness.Ready()),
        (httpx.Response(503), readiness.Warming503()),
        (httpx.Response(403), readiness.Forbidden403()),
        (httpx.Response(500, text="x\ny"), readiness.Bad("HTTP 500 'x\\ny'")),
    ],
)
async def test_answer_to_status_says_how_ready_the_node_is(
    scripted: Scripted,
    autojump_clock: MockClock,
    answer: httpx.Response,
    expected: readiness.Answer,
) -> None:
    """200, 503 and 403 have their meaning; the rest is told as it came."""
    scripted.answer = lambda _: answer
    assert await scripted.node.readiness() == expected
    assert scripted.read == ["data/api.token"]
    assert scripted.requests[0].headers["authorization"] == f"Bearer {TOKEN}"


async def test_every_poll_after_a_403_reads_the_token_again(
    scripted: Scripted, autojump_clock: MockClock
) -> None:
    """The node may have written it since."""
    scripted.answer = lambda _: httpx.Response(403)
    for _ in range(3):
        await scripted.node.readiness()
    assert len(scripted.read) == 3


async def test_node_without_a_token_yet_is_not_up(
    scripted: Scripted, autojump_clock: MockClock
) -> None:
    """It writes the file before it listens; nothing is sent without one."""
    scripted.token = NodeError("no_file", "cannot read data/api.token: missing")
    assert await scripted.node.readiness() == readiness.Refused()
    assert scripted.requests == []
    with pytest.raises(NodeError, match="cannot read the API token of node a") as error:
        await scripted.node.status()
    assert TOKEN not in str(error.value)


@pytest.mark.parametrize("token", [b"x\r\nX-Evil: 1", b"\xff" * 10, b"", b" \n"])
async def test_token_that_is_none_is_never_sent(
    scripted: Scripted, autojump_clock: MockClock, token: bytes
) -> None:
    """It comes from a file of the user's; half-written it may be empty."""
    scripted.token = token
    answer = await scripted.node.readiness()
    assert isinstance(answer, readiness.Bad | readiness.Refused)
    assert not any(request.headers.get("authorization") for request in scripted.requests)


async def test_token_file_that_was_named_must_be_there(
    scripted: Scripted, autojump_clock: MockClock
) -> None:
    """Somebody else runs the node: that the file is missing is no sign of an early moment."""
    access = Access(rust_mule.DRIVER, scripted._read_file, scripted._keep, "/x/a.token")
    node = LiveNode(PLAN, CONFIG, MYSELF, access, scripted.sink)
    scripted.token = NodeError("no_file", "cannot open /x/a.token: no such file")
    answer = await node.readiness()
    assert isinstance(answer, readiness.NoToken)
    assert "/x/a.token: no such file" in answer.text
    assert scripted.read == ["/x/a.token"]


async def test_hanging_node_is_a_bad_answer_in_time(
    scripted: Scripted, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve seconds, whatever it does."""

    async def hang(_request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    scripted.node._http._lanes[0].transport = httpx.MockTransport(hang)
    begun_s = trio.current_time()
    answer = await scripted.node.readiness()
    assert isinstance(answer, readiness.Bad)
    assert "no whole answer within 12 s" in answer.text
    assert trio.current_time() - begun_s <= 12.1


# -- calls of a round --------------------------------------------------------------------------


async def test_calls_return_what_the_node_said(
    scripted: Scripted, autojump_clock: MockClock
) -> None:
    """Raw, since the records are."""
    body = '{"queued": true, "uptime_secs": 1, "sources": [{"source_id_hex": "k"}]}'
    scripted.answer = lambda _: httpx.Response(200, text=body)
    node = scripted.node
    assert await node.publish_source("f", 1) == await node.search_sources("f", 1) == body
    assert (await node.sources("f")).source_ids == ("k",)
    assert await node.status() == body
    await node.close()


async def test_own_kad_id_is_learnt_once_and_only_when_it_is_clear(
    scripted: Scripted, autojump_clock: MockClock
) -> None:
    """A fresh file has one source on its publisher: the publisher."""
    ids: list[str] = []
    scripted.answer = lambda _: httpx.Response(
        200, json={"sources": [{"source_id_hex": each} for each in ids]}
    )
    await scripted.node.learn_kad_id("f")
    assert scripted.node.kad_id is None
    ids += ["x", "y"]
    await scripted.node.learn_kad_id("f")
    assert scripted.node.kad_id is None
    ids.pop()
    for _ in range(3):
        await scripted.node.learn_kad_id("f")
    assert scripted.node.kad_id == "x"
    assert len(scripted.requests) == 3


async def test_what_each_call_came_to_is_told(
    scripted: Scripted, autojump_clock: MockClock
) -> None:
    """By route; a refused token is told from other errors, and never counts as an answer."""
    scripted.answer = lambda _: httpx.Response(200, json={"queued": True, "sources": []})
    await scripted.node.publish_source("f", 1)
    await scripted.node.sources("f")
    scripted.answer = lambda _: httpx.Response(403)
    with pytest.raises(NodeError):
        await scripted.node.search_sources("f", 1)
    assert scripted.sink.calls == [
        ("a", "/kad/publish_source", None),
        ("a", "/kad/sources", None),
        ("a", "/kad/search_sources", "token_refused"),
    ]


async def test_a_replaced_token_is_an_event_without_its_value(
    scripted: Scripted, autojump_clock: MockClock
) -> None:
    """It is used at once; the first token is no news."""
    scripted.answer = lambda _: status(1)
    await scripted.node.status()
    fresh = "cd" * 32
    scripted.token = fresh.encode()
    scripted.answer = lambda request: (
        status(2) if request.headers["authorization"] == f"Bearer {fresh}" else httpx.Response(403)
    )
    await scripted.node.status()
    [(kind, node, data)] = scripted.sink.events
    assert (kind, node) == ("token_replaced", "a")
    assert "data/api.token" in data["text"]
    assert fresh not in str(data)
    assert scripted.kept == [TOKEN, fresh]


async def test_a_replaced_token_is_told_once_though_two_calls_meet_it(
    scripted: Scripted, autojump_clock: MockClock
) -> None:
    """The sampler and a round, refused at the same time, read the same new one."""
    scripted.answer = lambda _: status(1)
    await scripted.node.status()
    scripted.token = b"cd" * 32
    scripted.answer = lambda _: httpx.Response(403)
    with trio.move_on_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scripted.node.watch_status)
            with pytest.raises(NodeError):
                await scripted.node.status()
            await trio.sleep_forever()
    assert [kind for kind, _, _ in scripted.sink.events] == ["token_replaced"]
    assert scripted.kept == [TOKEN, "cd" * 32]


async def test_the_sampler_that_hangs_makes_no_round_wait(
    scripted: Scripted, autojump_clock: MockClock
) -> None:
    """It has a connection of its own: a round's time is made of the round's calls."""

    async def hang(_request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    scripted.answer = lambda _: httpx.Response(200, json={"sources": []})
    scripted.node._http._lanes[1].transport = httpx.MockTransport(hang)
    begun_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scripted.node.watch_status)
        await trio.sleep(1)
        await scripted.node.sources("0" * 32)
        assert trio.current_time() - begun_s < 1.5
        await trio.sleep(12)
        nursery.cancel_scope.cancel()
    assert [route for _, route, code in scripted.sink.calls if code is not None] == ["/status"]


# -- watching ----------------------------------------------------------------------------------


async def watch(scripted: Scripted, seconds: float) -> Sink:
    with trio.move_on_after(seconds):
        await scripted.node.watch_status()
    return scripted.sink


async def test_each_snapshot_is_handed_on_once(
    scripted: Scripted, autojump_clock: MockClock
) -> None:
    """Looked at twice per window of 4 s, it is the same until the next window."""
    scripted.answer = lambda _: status(int(trio.current_time() // 4))
    sink = await watch(scripted, 39)
    assert len(sink.samples) == len(set(sink.samples)) == 10
    assert sink.events == []
    assert len(scripted.requests) == 20


async def test_service_loop_that_began_anew_is_noticed(
    scripted: Scripted, autojump_clock: MockClock
) -> None:
    """Its uptime went back."""
    uptimes = iter([100, 104, 3, 7])
    scripted.answer = lambda _: status(next(uptimes))
    sink = await watch(scripted, 7)
    data = {"uptime_before_s": 104, "uptime_s": 3}
    assert sink.events == [("sam_session_recreated", "a", data)]
    assert len(sink.samples) == 4


async def test_a_node_knows_since_when_its_loop_has_run(
    scripted: Scripted, autojump_clock: MockClock
) -> None:
    """It was idle while it stalls, and at the moment of a new beginning."""
    begun_s = trio.current_time()
    scripted.answer = lambda _: status(5)
    assert not scripted.node.was_idle(boot_now())
    await watch(scripted, 20)
    assert scripted.node.was_idle(boot_now())
    uptimes = iter([6, 1, 2])
    scripted.answer = lambda _: status(next(uptimes))
    await watch(scripted, 5)
    assert scripted.node.was_idle(begun_s)
    assert not scripted.node.was_idle(boot_now() + 0.1)


async def test_loop_that_stands_still_is_noticed_once(
    scripted: Scripted, autojump_clock: MockClock
) -> None:
    """After two windows without a new snapshot; its end is told, and the next one again."""
    begun_s = trio.current_time()
    scripted.answer = lambda _: status(5 if trio.current_time() < begun_s + 100 else 9)
    sink = await watch(scripted, 200)
    kinds = [kind for kind, _, _ in sink.events]
    assert kinds == ["loop_stalled", "trouble_over", "loop_stalled"]
    assert sink.events[1][2]["kind"] == "loop_stalled"
    assert 8 < sink.events[0][2]["for_s"] < 14
    assert len(sink.samples) == 2


async def test_sampling_goes_on_after_a_failure(
    scripted: Scripted, autojump_clock: MockClock
) -> None:
    """The sink hears of each call; what a streak of bad ones means is not decided here."""
    answers = iter([httpx.Response(500), httpx.Response(200, text="x"), status(1), status(2)])
    scripted.answer = lambda _: next(answers)
    sink = await watch(scripted, 7)
    assert [code for _, _, code in sink.calls] == ["bad_status", "bad_answer", None, None]
    assert {(node, route) for node, route, _ in sink.calls} == {("a", "/status")}
    assert sink.events == []
    assert [json.loads(body)["uptime_secs"] for body in sink.samples] == [1, 2]


async def test_resources_are_sampled_while_the_process_lives(
    scripted: Scripted, autojump_clock: MockClock
) -> None:
    """Every ten seconds; a process that is gone, or another of its pid, ends it."""
    sink = scripted.sink
    with trio.move_on_after(3 * RESOURCE_SAMPLE_S - 1):
        await scripted.node.watch_resources()
    assert len(sink.usage) == 3
    assert sink.usage[0]["rss_bytes"] > 1_000_000
    for process in (Process(NO_PROCESS, TICKS, UID), Process(os.getpid(), 1, UID)):
        scripted.node.process = process
        await scripted.node.watch_resources()
    assert len(sink.usage) == 3


# -- whom the token is given to ----------------------------------------------------------------


class Listener:
    """A real listener in this process; it keeps every byte it got."""

    def __init__(self, port: int, host: str) -> None:
        self.port, self.host = port, host
        self.got = b""

    async def serve(self, stream: trio.SocketStream) -> None:
        async for data in stream:
            self.got += bytes(data)
            if b"\r\n\r\n" in self.got:
                await stream.send_all(
                    b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"uptime_secs":5}'
                )


@asynccontextmanager
async def listening(host: str = "127.0.0.1") -> AsyncIterator[Listener]:
    async with trio.open_nursery() as nursery:
        opened = await trio.open_tcp_listeners(0, host=host)
        made = Listener(opened[0].socket.getsockname()[1], host)
        nursery.start_soon(trio.serve_listeners, made.serve, opened)
        yield made
        nursery.cancel_scope.cancel()


def live_node(port: int, process: Process, host: str = "127.0.0.1") -> LiveNode:
    async def token(_path: str) -> bytes:
        await trio.lowlevel.checkpoint()
        return TOKEN.encode()

    async def keep(_token: str) -> None:
        await trio.lowlevel.checkpoint()

    plan = NodePlan("a", "/a", host, port, ("publisher",))
    return LiveNode(plan, CONFIG, process, Access(rust_mule.DRIVER, token, keep), Sink())


MYSELF = Process(os.getpid(), start_ticks(os.getpid()) or 0, UID)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
@pytest.mark.safety
async def test_token_goes_to_the_nodes_own_listener(host: str) -> None:
    """Proven by the kernel's tables, on either loopback address."""
    async with listening("127.0.0.1" if host == "localhost" else host) as listener:
        node = live_node(listener.port, MYSELF, host)
        assert await node.readiness() == readiness.Ready()
        await node.close()
    assert f"Bearer {TOKEN}".encode() in listener.got


@pytest.mark.safety
async def test_foreign_process_on_the_port_gets_no_token() -> None:
    """It is named, and hears not a byte."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]) as child:
        try:
            async with listening() as listener:
                process = Process(child.pid, start_ticks(child.pid) or 0, UID)
                node = live_node(listener.port, process)
                answer = await node.readiness()
                assert isinstance(answer, readiness.Foreign)
                assert f"pid {os.getpid()}" in answer.text
                with pytest.raises(NodeError, match="is held by"):
                    await node.publish_source("f", 1)
                await node.close()
        finally:
            child_gone(child)
    assert listener.got == b""


@pytest.mark.safety
async def test_listener_of_another_user_gets_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even with the node's own socket: a fork of it under another uid is not the node."""
    async with listening() as listener:
        node = live_node(listener.port, Process(os.getpid(), MYSELF.ticks, UID + 1))
        assert isinstance(await node.readiness(), readiness.Foreign)
        await node.close()
    assert listener.got == b""


async def test_nobody_on_the_port_is_a_refusal() -> None:
    """Not up yet."""
    with socket.socket() as bound:
        # Bound and not listening: nobody else can begin to listen there meanwhile.
        bound.bind(("127.0.0.1", 0))
        node = live_node(bound.getsockname()[1], MYSELF)
        assert await node.readiness() == readiness.Refused()
        await node.close()


async def test_listener_that_the_kernel_does_not_show_gets_no_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No proof, no token."""
    monkeypatch.setattr(ports, "listener_of", lambda _port, _address: None)
    async with listening() as listener:
        node = live_node(listener.port, MYSELF)
        with pytest.raises(NodeError, match="cannot talk to node a"):
            await node.status()
        await node.close()
    assert listener.got == b""


async def test_proof_that_may_not_be_looked_for_gives_no_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """soakd without CAP_SYS_PTRACE says so instead of trusting."""

    def may_not(_pid: int, _inode: int) -> bool:
        raise HostError("internal", "cannot see the descriptors: soakd lacks CAP_SYS_PTRACE")

    monkeypatch.setattr(ports, "owns_inode", may_not)
    async with listening() as listener:
        node = live_node(listener.port, MYSELF)
        answer = await node.readiness()
        await node.close()
    assert isinstance(answer, readiness.Bad)
    assert "CAP_SYS_PTRACE" in answer.text
    assert listener.got == b""


def test_listeners_are_told_apart_by_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """`::1`, `127.0.0.1` and `127.0.0.2` may have different listeners."""
    asked: list[str] = []

    def look(_port: int, address: str) -> None:
        asked.append(address)

    monkeypatch.setattr(ports, "listener_of", look)
    node = live_node(1, MYSELF)
    for host in ("127.0.0.1", "::1", "127.0.0.2"):
        with pytest.raises(NodeError):
            node._verify(1, host)
    assert asked == ["127.0.0.1", "::1", "127.0.0.2"]
