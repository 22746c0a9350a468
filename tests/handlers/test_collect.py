"""Streaming a bundle."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from soakd.wire.frames import MAX_DATA_BYTES
from tests.handlers.calls import call
from tests.handlers.fakes import Caller


async def test_a_bundle_arrives_in_numbered_chunks_with_its_digest() -> None:
    """Name, length and SHA-256 come last, so that the client can check what it wrote."""
    caller = Caller()
    data = os.urandom(2 * MAX_DATA_BYTES + 200)
    caller.scheduler.pieces = [data[:100], b"", data[100:]]
    result = await call(caller, "run.collect", run="r7", full=True)
    chunks = [params for _method, params in caller.heard]
    assert [chunk["seq"] for chunk in chunks] == [1, 2, 3, 4]
    assert max(len(chunk["data"]) for chunk in chunks) == MAX_DATA_BYTES
    assert b"".join(chunk["data"] for chunk in chunks) == data
    assert result == {
        "name": "soak-host-r7.tar.gz",
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    assert caller.scheduler.calls == [("collect", 7, True, False)]
    assert caller.scheduler.packed.is_set()


class PlainIterator:
    """A bundle whose iterator is no generator."""

    name = "x.tar.gz"

    def __init__(self) -> None:
        self.pieces = [b"abc"]

    def __aiter__(self) -> PlainIterator:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self.pieces:
            raise StopAsyncIteration
        return self.pieces.pop()


async def test_any_asynchronous_iterator_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only generators need closing."""
    caller = Caller()

    @asynccontextmanager
    async def collect(_run_id: int, **_options: bool) -> AsyncIterator[PlainIterator]:
        yield PlainIterator()

    monkeypatch.setattr(caller.scheduler, "collect", collect)
    assert (await call(caller, "run.collect"))["bytes"] == 3
