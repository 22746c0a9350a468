"""Plays one `source_probe` round: does what `core.rounds` asks for, tells it what came of it.

Nothing is decided here. A round may be cut from outside at any step (stop, a dead node): the step
under way is abandoned, the machine is told why, and it ends the round. Called by `soakd.measure`.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Protocol, assert_never

import trio

from soakd.core import rounds
from soakd.core.errors import NodeError, SoakError
from soakd.edge.clock import boot_now, sleep_until_boot

FILE_ID_BYTES = 16
MIN_FILE_SIZE_BYTES = 1024
MAX_FILE_SIZE_BYTES = 5_001_023


class Sources(Protocol):
    """A searcher's answer: the raw body and the source ids in it."""

    @property
    def body(self) -> str:
        """As the node sent it."""

    @property
    def source_ids(self) -> tuple[str, ...]:
        """Ids in the node's order."""


class ProbeNode(Protocol):
    """The calls that a round makes on one node; a call that fails raises `SoakError`."""

    async def publish_source(self, file_id: str, size_bytes: int) -> str:
        """Queues a publish and returns the raw answer."""

    async def search_sources(self, file_id: str, size_bytes: int) -> str:
        """Queues a search and returns the raw answer."""

    async def sources(self, file_id: str) -> Sources:
        """Reads the source table for a file."""


def random_file() -> tuple[str, int]:
    """A fresh 128-bit file id (32 hex digits) and a size in bytes.

    Ids are never reused: rows in nodes never expire.
    """
    size = MIN_FILE_SIZE_BYTES + secrets.randbelow(MAX_FILE_SIZE_BYTES - MIN_FILE_SIZE_BYTES + 1)
    return secrets.token_hex(FILE_ID_BYTES), size


class Player:
    """One round under way.

    `phase` names its step at any time; `interrupt` ends it early from another task.
    """

    def __init__(
        self,
        spec: rounds.RoundSpec,
        publisher: ProbeNode,
        searcher: ProbeNode,
        take_snapshots: Callable[[bool], Awaitable[rounds.NodeIdle | None]],
        on_phase: Callable[[str], None],
    ) -> None:
        """Prepares a round; nothing is called before `play`.

        Args:
            spec: what the round machine is given.
            publisher: the node that publishes.
            searcher: the node that searches and is read.
            take_snapshots: reads and records both status objects; raises `SoakError` when one could
                not be had. With True it also asks whether both nodes did their part.
            on_phase: hears of every new step.
        """
        self.spec = spec
        self.began_s = boot_now()
        self._publisher = publisher
        self._searcher = searcher
        self._take_snapshots = take_snapshots
        self._on_phase = on_phase
        self._interrupt: rounds.Cut | rounds.NodeDown | None = None
        self._step_scope: trio.CancelScope | None = None

    def interrupt(self, event: rounds.Cut | rounds.NodeDown) -> None:
        """Ends the round now, classified by the round machine; the first interrupt wins."""
        if self._interrupt is None:
            self._interrupt = event
            if self._step_scope is not None:
                self._step_scope.cancel()

    async def play(self) -> rounds.RoundResult:
        """Plays the round to its end; cancelled from outside it ends without a result."""
        state = rounds.begin(self.spec, boot_now())
        while True:
            self._on_phase(rounds.phase(state))
            todo = rounds.todo(state)
            if isinstance(todo, rounds.Finished):
                return todo.result
            event = await self._step(todo)
            state = rounds.advance(state, event, boot_now())

    async def _step(self, todo: rounds.Do) -> rounds.Event:
        if self._interrupt is None:
            with trio.CancelScope() as self._step_scope:
                return await self._perform(todo)
        # Only `interrupt` cancels this scope: an outer cancellation has already left through the
        # `with`.
        assert self._interrupt is not None
        return self._interrupt

    async def _perform(self, todo: rounds.Do) -> rounds.Event:
        spec = self.spec
        try:
            match todo:
                case rounds.Publish():
                    return rounds.Answered(
                        await self._publisher.publish_source(spec.file_id, spec.file_size), ()
                    )
                case rounds.Search():
                    return rounds.Answered(
                        await self._searcher.search_sources(spec.file_id, spec.file_size), ()
                    )
                case rounds.EarlyRead() | rounds.DatingRead() | rounds.DecidingRead():
                    seen = await self._searcher.sources(spec.file_id)
                    return rounds.Answered(seen.body, seen.source_ids)
                case rounds.TakeSnapshots(doubts=doubts):
                    idle = await self._take_snapshots(doubts)
                    return rounds.Answered("", ()) if idle is None else idle
                case rounds.SleepUntil(t_s=t_s):
                    await sleep_until_boot(t_s)
                    return rounds.Woke()
                case rounds.Finished():
                    raise AssertionError("a finished round has no step left")
                case _:
                    assert_never(todo)
        except NodeError as error:
            return rounds.CallFailed(error.message)
        except SoakError as error:
            return rounds.CallFailed(str(error))
