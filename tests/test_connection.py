"""Time-outs of one connection in virtual time: memory streams, no socket, no thread."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair

from soakd.connection import Connection, Limits, say_bye
from soakd.wire.errors import WireError
from soakd.wire.frames import Decoder, Message, Notification, encode_request
from tests.handlers.fakes import OWNER, PLAN, FakeDaemon, FakeScheduler

HELLO = encode_request(1, "hello", {"client": "t", "protocol": 1})

Stream = trio.StapledStream[Any, Any]


@asynccontextmanager
async def connected(scheduler: FakeScheduler) -> AsyncIterator[tuple[Stream, trio.Event]]:
    """Run a connection with the limits of production; the event is set when it has ended."""
    ours, theirs = lockstep_stream_pair()
    ended = trio.Event()

    async def run() -> None:
        await Connection(theirs, OWNER, scheduler, FakeDaemon(), Limits()).run()
        await theirs.aclose()
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield ours, ended
        nursery.cancel_scope.cancel()


async def read_message(stream: Stream, decoder: Decoder) -> Message:
    """Read exactly one message."""
    while True:
        data = await stream.receive_some(1)
        assert data
        for message in decoder.feed(data):
            return message


async def test_hello_is_waited_for_five_seconds(autojump_clock: MockClock) -> None:
    """Then the client hears why it is sent away."""
    async with connected(FakeScheduler()) as (stream, ended):
        message = await read_message(stream, Decoder())
        assert isinstance(message, Notification)
        assert message.params["code"] == "timeout"
        assert trio.current_time() == pytest.approx(5.0, abs=0.1)
        assert await stream.receive_some() == b""
        await ended.wait()


async def test_a_client_that_reads_nothing_is_left_after_ten_seconds(
    autojump_clock: MockClock,
) -> None:
    """Its streams end with it."""
    scheduler = FakeScheduler()
    async with connected(scheduler) as (stream, ended):
        await stream.send_all(HELLO)
        await read_message(stream, Decoder())
        await stream.send_all(encode_request(2, "run.watch", {}))
        await scheduler.watching.wait()
        began = trio.current_time()
        assert scheduler.feed is not None
        await scheduler.feed.send({"seq": 1, "kind": "event", "data": {}})
        await ended.wait()
        assert scheduler.unwatched.is_set()
        assert trio.current_time() - began == pytest.approx(10, abs=0.1)


async def test_a_bundle_waits_a_minute_for_progress_and_not_longer(
    autojump_clock: MockClock,
) -> None:
    """A reader that takes a chunk every 50 s gets its bundle; a stopped one is left after 60 s."""
    scheduler = FakeScheduler()
    scheduler.pieces = [b"x" * 60_000] * 30
    decoder = Decoder()
    async with connected(scheduler) as (stream, ended):
        await stream.send_all(HELLO)
        await read_message(stream, decoder)
        await stream.send_all(encode_request(2, "run.collect", {}))
        for _ in range(5):
            await trio.sleep(50)
            assert isinstance(await read_chunk(stream, decoder), Notification)
        began = trio.current_time()
        await ended.wait()
        assert trio.current_time() - began == pytest.approx(60, abs=0.1)
        assert scheduler.packed.is_set()


async def read_chunk(stream: Stream, decoder: Decoder) -> Message:
    """Read one message in large pieces; the lockstep stream never mixes two sends."""
    while True:
        data = await stream.receive_some(100_000)
        assert data
        for message in decoder.feed(data):
            return message


async def test_a_long_frame_needs_only_progress(autojump_clock: MockClock) -> None:
    """An answer of many pieces may take longer than the time-out of one."""
    scheduler = FakeScheduler()
    scheduler.extra = {f"k{n}": "x" * 200_000 for n in range(4)}
    async with connected(scheduler) as (stream, _ended):
        decoder = Decoder()
        await stream.send_all(HELLO)
        await read_message(stream, decoder)
        await stream.send_all(encode_request(2, "run.status", {}))
        began = trio.current_time()
        messages: list[Message] = []
        while not messages:
            await trio.sleep(8)
            messages = decoder.feed(await stream.receive_some(100_000))
        assert trio.current_time() - began > 60


async def test_a_request_may_go_on_for_ten_seconds_after_its_client(
    autojump_clock: MockClock,
) -> None:
    """A submission gets time to end well, not for ever."""
    scheduler = FakeScheduler()
    scheduler.hold = trio.Event()
    async with connected(scheduler) as (stream, ended):
        await stream.send_all(HELLO)
        await read_message(stream, Decoder())
        await stream.send_all(encode_request(2, "run.start", {"plan": PLAN}))
        await scheduler.submitting.wait()
        began = trio.current_time()
        await stream.aclose()
        await ended.wait()
        assert trio.current_time() - began == pytest.approx(10, abs=0.1)
        assert not scheduler.submitted.is_set()


async def test_a_goodbye_is_not_waited_for(autojump_clock: MockClock) -> None:
    """Who is not served and does not read costs a second."""
    _ours, theirs = lockstep_stream_pair()
    await say_bye(theirs, WireError("refused", "cannot serve you"))
    assert trio.current_time() == pytest.approx(1, abs=0.1)
