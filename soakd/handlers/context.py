"""What a handler may use: the caller, the scheduler, the daemon, and a way to send notifications.

Handlers translate between the wire and the scheduler and decide nothing about runs. The protocols
here are what they expect; the real scheduler and the tests' fakes both satisfy them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import trio

from soakd.core.plan import Plan
from soakd.edge.peers import Peer

Event = dict[str, Any]
"""One event of a run: `{seq, kind, data}`, seq from 1 without holes (a gap event covers some)."""


class ClientGone(Exception):
    """The client reads no more; nothing that is sent to it can arrive."""


class BundleStream(Protocol):
    """The bytes of a bundle as they are made, and the file name they should get."""

    name: str

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over pieces of any size."""


class Desk(Protocol):
    """What the handlers need of the queue; every method may raise a SoakError."""

    async def entries(self) -> list[dict[str, Any]]:
        """Return a QueueEntry for each run that has a slot or waits for one."""

    async def hold(self, run_id: int, peer: Peer) -> Mapping[str, Any]:
        """Keep a queued run back; returns a PlaceResult.

        Raises:
            UserError: `refused`, it is not queued.
        """

    async def release(self, run_id: int, peer: Peer) -> Mapping[str, Any]:
        """Let a held run go on waiting; raises as `hold`."""

    async def top(self, run_id: int, peer: Peer) -> Mapping[str, Any]:
        """Put a queued run before all others; raises as `hold`."""

    async def extend(
        self, run_id: int, by_s: float, peer: Peer, *, dry_run: bool
    ) -> Mapping[str, Any]:
        """Let the rounds of a run start for longer; returns an ExtendResult.

        Raises:
            UserError: `refused`, with the longest possible extension where there is one.
        """

    async def soak(self, run_id: int, keys: dict[str, Any], peer: Peer) -> Mapping[str, Any]:
        """Ask kept nodes for rounds; returns a SoakResult.

        Raises:
            UserError: `bad_plan`, or `refused`.
        """

    async def label(self, run_id: int, peer: Peer, label: str | None) -> Mapping[str, Any]:
        """Give a run another label, or none; returns a LabelResult.

        Raises:
            UserError: `bad_plan`, it is no label.
        """

    async def drain(self, peer: Peer, *, is_draining: bool) -> Mapping[str, Any]:
        """Start no run any more, or go on; returns a DrainResult."""


class Scheduler(Protocol):
    """What the handlers need of the scheduler; every method may raise a SoakError."""

    @property
    def desk(self) -> Desk:
        """The queue."""

    @property
    def is_draining(self) -> bool:
        """Return whether no run is started."""

    async def submit(self, peer: Peer, plan: Plan, sha256: dict[str, str]) -> Mapping[str, Any]:
        """Queue a plan; returns a StartResult."""

    async def resolve(self, run: str | None, peer: Peer) -> int:
        """Return the number of the run named, or of the peer's active or latest one.

        Raises:
            UserError: `no_such_run`.
        """

    async def allowed(self, run_id: int, peer: Peer) -> bool:
        """Return whether the peer is the owner of the run, or an admin."""

    async def status(self, run_id: int, peer: Peer) -> Mapping[str, Any]:
        """Return a StatusResult, or a PublicRun if the peer is not allowed."""

    async def list_runs(self, peer: Peer, *, all_runs: bool) -> list[dict[str, Any]]:
        """Return runs, newest first: the peer's own, or everybody's."""

    async def stop(self, run_id: int, peer: Peer) -> Mapping[str, Any]:
        """Ask a run to stop (cancel it if queued) and return its status without waiting."""

    async def plan(self, run_id: int) -> Mapping[str, Any]:
        """Return what a run was asked to do, a PlanResult."""

    async def flows(self, run_id: int) -> Mapping[str, Any]:
        """Return the outcomes of a run by flow, a FlowsResult."""

    async def forget(self, run_id: int, peer: Peer) -> Mapping[str, Any]:
        """End the blocked lease of a finished run; returns a ForgetResult.

        Raises:
            UserError: `refused`, it has none.
        """

    def watch(
        self, run_id: int, after: int | None
    ) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[Event]]:
        """Subscribe to a run's events; the channel closes after `end`, at once if that is past."""

    def log_path(self, run_id: int, node: str | None, *, answers: bool = False) -> Path:
        """Return the log file of a node, or of the run itself, in the root-owned run folder."""

    def is_finished(self, run_id: int) -> bool:
        """Return whether nothing of the run will write any more."""

    def collect(
        self, run_id: int, *, full: bool, keep_destinations: bool
    ) -> AbstractAsyncContextManager[BundleStream]:
        """Start packing a bundle; leaving the block ends its helpers."""


class Daemon(Protocol):
    """What the handlers need of the daemon itself."""

    version: str
    mode: Literal["system", "user"]

    async def info(self) -> Mapping[str, Any]:
        """Return a DaemonInfo."""

    async def shutdown(self, peer: Peer) -> None:
        """Ask the daemon to stop all runs and end; returns before that."""


@dataclass(frozen=True, slots=True)
class Context:
    """One request: who asks, with what, and which run it concerns.

    Attributes:
        notify: sends one notification; waits while the client is slow; raises ClientGone.
        run_id: the run that `dispatch` has resolved, and for `owner` methods checked.
    """

    peer: Peer
    scheduler: Scheduler
    daemon: Daemon
    notify: Callable[[str, dict[str, object]], Awaitable[None]]
    run_id: int | None = None

    @property
    def run(self) -> int:
        """The number of the run; only for methods that take the parameter `run`."""
        if self.run_id is None:
            raise AssertionError("a method without the parameter `run` asked for its run")
        return self.run_id


Handler = Callable[[Context, dict[str, Any]], Awaitable[Mapping[str, Any]]]
