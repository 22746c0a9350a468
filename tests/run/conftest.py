"""Fixtures of the run layer's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from soakd.edge import ports
from soakd.edge.schema import MEMORY
from soakd.edge.store import Store
from soakd.node import LiveNode
from tests.run.kit import FakeNet, FakeShim, VirtualTime, World, make_host, replace_everywhere

GUARD_S = 20_000


@pytest.fixture
def virtual_time(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> VirtualTime:
    """Time that jumps to the next thing to come; no thread and no process may be used with it."""
    made = VirtualTime(autojump_clock)
    made.install(monkeypatch)
    return made


@pytest.fixture
def store() -> Iterator[Store]:
    """A store of its own that lives in memory."""
    made = Store(MEMORY)
    yield made
    made.close()


@pytest.fixture
def world(
    virtual_time: VirtualTime,
    tmp_path: Path,
    store: Store,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    """A host whose shims and nodes live in memory and in virtual time."""
    nursery.start_soon(guard)
    # The host's real ports are others' business: a neighbour may try the same one just now.
    monkeypatch.setattr(ports, "check_free", lambda _port: None)
    shim = FakeShim(nursery)
    shim.install(monkeypatch)
    made = World(make_host(tmp_path, store), shim, FakeNet(), virtual_time)
    replace_everywhere(monkeypatch, LiveNode, made.node)
    return made


async def guard() -> None:
    """With nothing else to come time jumps here: a run that hangs fails instead."""
    await trio.sleep(GUARD_S)
    raise TimeoutError(f"nothing ended within {GUARD_S} virtual seconds")
