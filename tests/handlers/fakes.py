"""A scheduler and a daemon that do what a test tells them, for handlers and server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import trio

from soakd.core.errors import UserError
from soakd.core.plan import Plan
from soakd.edge.peers import Peer
from soakd.handlers.context import Context, Event
from soakd.wire.messages import parse_run_id

OWNER = Peer(1000, 1000, (900,), "ann", member=True, admin=False)
OTHER = Peer(1001, 1001, (900,), "bob", member=True, admin=False)
STRANGER = Peer(1002, 1002, (), "eve", member=False, admin=False)
ADMIN = Peer(0, 0, (), "root", member=True, admin=True)

PLAN: dict[str, Any] = {
    "nodes": [
        {
            "name": "a",
            "source": "/dist/mule-a",
            "host": "127.0.0.1",
            "port": 17835,
            "roles": ["publisher"],
        },
        {
            "name": "b",
            "source": "/dist/mule-b",
            "host": "127.0.0.1",
            "port": 17836,
            "roles": ["searcher"],
        },
    ],
    "duration_s": 60.0,
    "run_tag": "t",
}


class FakeBundle:
    """Pieces given beforehand."""

    def __init__(self, pieces: list[bytes], log: list[str]) -> None:
        self.name = "soak-host-r7.tar.gz"
        self._pieces = pieces
        self._log = log

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            await trio.lowlevel.checkpoint()
            yield piece
            self._log.append("piece")


class FakeDesk:
    """The queue: says what it was asked, in the scheduler's list of calls."""

    def __init__(self, calls: list[tuple[Any, ...]]) -> None:
        self.calls = calls
        self.failure: Exception | None = None

    async def _note(self, *call: Any) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        self.calls.append(call)
        if self.failure is not None:
            raise self.failure
        return {"id": "r7", "state": "queued", "position": 1}

    async def entries(self) -> list[dict[str, Any]]:
        await self._note("entries")
        return [{"id": "r7", "owner": "ann"}, {"id": "r8", "owner": "bob"}]

    async def hold(self, run_id: int, peer: Peer) -> dict[str, Any]:
        return await self._note("hold", run_id, peer)

    async def release(self, run_id: int, peer: Peer) -> dict[str, Any]:
        return await self._note("release", run_id, peer)

    async def top(self, run_id: int, peer: Peer) -> dict[str, Any]:
        return await self._note("top", run_id, peer)

    async def extend(
        self, run_id: int, by_s: float, peer: Peer, *, dry_run: bool
    ) -> dict[str, Any]:
        return await self._note("extend", run_id, by_s, peer, dry_run)

    async def soak(self, run_id: int, keys: dict[str, Any], peer: Peer) -> dict[str, Any]:
        return await self._note("soak", run_id, keys, peer)

    async def label(self, run_id: int, peer: Peer, label: str | None) -> dict[str, Any]:
        return await self._note("label", run_id, peer, label)

    async def drain(self, peer: Peer, *, is_draining: bool) -> dict[str, Any]:
        await self._note("drain", peer, is_draining)
        return {"draining": is_draining, "running": 1, "queued": 2}


class FakeScheduler:
    """Run r7 of uid 1000; everything else does not exist."""

    is_draining = False

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder if folder is not None else Path("/nonexistent")
        self.owner_uid = OWNER.uid
        self.calls: list[tuple[Any, ...]] = []
        self.desk = FakeDesk(self.calls)
        self.finished = False
        self.pieces: list[bytes] = [b"abc", b"def"]
        self.log: list[str] = []
        self.submitting = trio.Event()
        self.submitted = trio.Event()
        self.packed = trio.Event()
        self.events: list[Event] = []
        self.watching = trio.Event()
        self.unwatched = trio.Event()
        self.feed: trio.MemorySendChannel[Event] | None = None
        self.hold: trio.Event | None = None
        self.failure: Exception | None = None
        self.extra: dict[str, Any] = {}

    async def submit(self, peer: Peer, plan: Plan, sha256: dict[str, str]) -> dict[str, Any]:
        self.calls.append(("submit", peer, plan, sha256))
        self.submitting.set()
        if self.hold is not None:
            await self.hold.wait()
        self.submitted.set()
        return {
            "id": "r7",
            "state": "queued",
            "position": 1,
            "expected_start": None,
            "promised": False,
            "reason": None,
        }

    async def resolve(self, run: str | None, peer: Peer) -> int:
        await trio.lowlevel.checkpoint()
        number = 7 if run is None else parse_run_id(run)
        if number != 7:
            raise UserError("no_such_run", f"cannot find run {run}", {"run": run})
        return number

    async def allowed(self, run_id: int, peer: Peer) -> bool:
        await trio.lowlevel.checkpoint()
        return peer.admin or peer.uid == self.owner_uid

    def full_status(self) -> dict[str, Any]:
        return {
            "id": "r7",
            "owner": "ann",
            "label": "x",
            "state": "running",
            "nodes": [{"name": "a", "pid": 1}],
            "reason": None,
            **self.extra,
        }

    async def status(self, run_id: int, peer: Peer) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        return self.full_status()

    async def list_runs(self, peer: Peer, *, all_runs: bool) -> list[dict[str, Any]]:
        await trio.lowlevel.checkpoint()
        self.calls.append(("list_runs", peer, all_runs))
        mine = self.full_status()
        return [mine, {**mine, "id": "r6", "owner": "bob"}] if all_runs else [mine]

    async def stop(self, run_id: int, peer: Peer) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        self.calls.append(("stop", run_id, peer))
        return {**self.full_status(), "state": "stopping"}

    async def forget(self, run_id: int, peer: Peer) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        self.calls.append(("forget", run_id, peer))
        if self.failure is not None:
            raise self.failure
        return {"id": "r7", "pids": [4711, 4712]}

    @asynccontextmanager
    async def watch(
        self, run_id: int, after: int | None
    ) -> AsyncIterator[trio.MemoryReceiveChannel[Event]]:
        self.calls.append(("watch", run_id, after))
        self.feed, receive = trio.open_memory_channel[Event](100)
        for event in self.events:
            self.feed.send_nowait(event)
        if self.finished:
            self.feed.close()
        self.watching.set()
        try:
            async with receive:
                yield receive
        finally:
            self.unwatched.set()

    def end(self) -> None:
        """The run ends: its watch closes."""
        assert self.feed is not None
        self.finished = True
        self.feed.close()

    async def plan(self, run_id: int) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        self.calls.append(("plan", run_id))
        return {
            "id": "r7",
            "state": "running",
            "created_at": "2026-11-22T16:59:00Z",
            "plan": PLAN,
            "sha256": {"a": "0" * 64},
        }

    async def flows(self, run_id: int) -> dict[str, Any]:
        self.calls.append(("flows", run_id))
        await trio.lowlevel.checkpoint()
        return {"id": "r7", "flows": []}

    def log_path(self, run_id: int, node: str | None, *, answers: bool = False) -> Path:
        if answers:
            return self.folder / "answers.ndjson"
        return self.folder / ("runner.log" if node is None else f"{node}.out")

    def is_finished(self, run_id: int) -> bool:
        return self.finished

    @asynccontextmanager
    async def collect(
        self, run_id: int, *, full: bool, keep_destinations: bool
    ) -> AsyncIterator[FakeBundle]:
        self.calls.append(("collect", run_id, full, keep_destinations))
        try:
            yield FakeBundle(self.pieces, self.log)
        finally:
            self.packed.set()


class FakeDaemon:
    """Says what it is and remembers who wanted it to end."""

    version = "0.1.0"
    mode: Literal["system", "user"] = "system"

    def __init__(self) -> None:
        self.asked_by: Peer | None = None

    async def info(self) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        return {"version": self.version, "mode": self.mode}

    async def shutdown(self, peer: Peer) -> None:
        await trio.lowlevel.checkpoint()
        self.asked_by = peer


@dataclass
class Caller:
    """A peer that calls handlers directly and keeps the notifications it got."""

    peer: Peer = OWNER
    scheduler: FakeScheduler = field(default_factory=FakeScheduler)
    daemon: FakeDaemon = field(default_factory=FakeDaemon)
    heard: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    news: trio.Event = field(default_factory=trio.Event)

    async def notify(self, method: str, params: dict[str, object]) -> None:
        await trio.lowlevel.checkpoint()
        self.heard.append((method, params))
        self.news.set()
        self.news = trio.Event()

    async def wait_heard(self, count: int) -> None:
        """Wait for that many notifications in all."""
        while len(self.heard) < count:
            await self.news.wait()

    @property
    def context(self) -> Context:
        return Context(self.peer, self.scheduler, self.daemon, self.notify)
