"""Plays one round: does what `core.rounds` asks for, tells it what came of it.

Nothing is decided here. A round may be cut from outside at any step (stop, a dead node): the step
under way is abandoned, the machine is told why, and it ends the round. Called by `soakd.measure`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol, assert_never

import trio

from soakd.core import rounds
from soakd.core.errors import SoakError
from soakd.edge.clock import boot_now, sleep_until_boot

OnAnswer = Callable[[str, str, str], None]
"""Hears of each answer: node, step and raw body."""


def unheard(node: str, step: str, body: str) -> None:
    """Hears of answers that nobody keeps."""


class Seen(NamedTuple):
    """What a read showed: the raw body, and the ids in it that count as found."""

    body: str
    ids: tuple[str, ...]


class Calls(Protocol):
    """The calls that a round makes on its two nodes; one that fails raises `SoakError`."""

    async def publish(self) -> str:
        """Publishes on the publisher and returns the raw answer."""

    async def search(self) -> str:
        """Searches on the searcher and returns the raw answer."""

    async def read(self) -> Seen:
        """Reads on the searcher what it knows by now."""

    async def ask_publisher(self) -> None:
        """Asks the publisher for its own part: one that stands still says `queued` all the same."""


class Player:
    """One round under way.

    `phase` names its step at any time; `interrupt` ends it early from another task.
    """

    def __init__(
        self,
        spec: rounds.RoundSpec,
        calls: Calls,
        take_snapshots: Callable[[bool], Awaitable[rounds.NodeIdle | None]],
        on_phase: Callable[[str], None],
    ) -> None:
        """Prepares a round; nothing is called before `play`.

        Args:
            spec: what the round machine is given.
            calls: what is done on the nodes.
            take_snapshots: reads and records the status objects; raises `SoakError` when one could
                not be had. With True it also asks whether both nodes did their part.
            on_phase: hears of every new step.
        """
        self.spec = spec
        self.calls = calls
        self.began_s = boot_now()
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
        try:
            match todo:
                case rounds.Publish():
                    return rounds.Answered(await self.calls.publish())
                case rounds.Search():
                    return rounds.Answered(await self.calls.search())
                case rounds.EarlyRead() | rounds.DatingRead() | rounds.DecidingRead():
                    return rounds.Answered(*await self.calls.read())
                case rounds.TakeSnapshots(doubts=doubts):
                    idle = await self._take_snapshots(doubts)
                    return rounds.Answered("") if idle is None else idle
                case rounds.SleepUntil(t_s=t_s):
                    await sleep_until_boot(t_s)
                    return rounds.Woke()
                case rounds.Finished():
                    raise AssertionError("a finished round has no step left")
                case _:
                    assert_never(todo)
        except SoakError as error:
            return rounds.CallFailed(error.message)
