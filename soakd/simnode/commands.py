"""The one queue of Kad commands: 128 places, emptied only by the service loop.

Queueing has no time limit: with the queue full a call waits for room or for its client to leave.
An answer is waited for 5 s, then the call ends with 504 and its command keeps its place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from soakd.simnode.exchange import Exchange, Response, failure
from soakd.simnode.loop import Loop

CAPACITY = 128
ANSWER_S = 5.0


class _Waiting(NamedTuple):
    exchange: Exchange
    enqueue: Callable[[], None]


class CommandQueue:
    """Commands on their way to the service loop; runs them at once while the loop is running."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._queued: deque[Callable[[], None]] = deque()
        self._waiting: deque[_Waiting] = deque()
        self._running = False

    def post(self, exchange: Exchange, run: Callable[[], None], answer: Response) -> None:
        """Queue a command; the answer is given as soon as it is queued."""

        def enqueue() -> None:
            self._enqueue(run)
            exchange.answer(answer)

        self._when_room(exchange, enqueue)

    def ask(self, exchange: Exchange, run: Callable[[], Response]) -> None:
        """Queue a command and answer with what it returns, or 504."""

        def enqueue() -> None:
            if self._running:
                exchange.answer(run())
                return
            timer = self._loop.later(ANSWER_S, lambda: exchange.answer(failure(504)))
            exchange.on_end(timer.cancel)
            self._enqueue(lambda: exchange.answer(run()))

        self._when_room(exchange, enqueue)

    def resume(self) -> None:
        """Run what is queued, and from now on every command at once."""
        self._running = True
        while self._queued or self._waiting:
            while self._queued:
                self._queued.popleft()()
            self._admit()

    def pause(self) -> None:
        """Let commands queue up: the loop is busy with a new session."""
        self._running = False

    def _enqueue(self, run: Callable[[], None]) -> None:
        if self._running:
            run()
        else:
            self._queued.append(run)

    def _when_room(self, exchange: Exchange, enqueue: Callable[[], None]) -> None:
        if len(self._queued) < CAPACITY:
            enqueue()
        else:
            self._waiting.append(_Waiting(exchange, enqueue))

    def _admit(self) -> None:
        while self._waiting and len(self._queued) < CAPACITY:
            waiting = self._waiting.popleft()
            if not waiting.exchange.ended:
                waiting.enqueue()
