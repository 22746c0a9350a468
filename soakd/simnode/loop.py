"""A small event loop: sockets, timers and one signal, in one thread.

asyncio would cost 8 MB and 60 ms of start-up in a program of which benches start many.
"""

from __future__ import annotations

import heapq
import selectors
import signal
import socket
from collections.abc import Callable
from typing import Protocol

from soakd.simnode.clock import now

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class Pollable(Protocol):
    """Something with a descriptor."""

    def fileno(self) -> int:
        """Return the descriptor."""
        ...


class Timer:
    """A call in the future; `cancel` makes it nothing."""

    __slots__ = ("_call", "due")

    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due = due
        self._call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Forget the call; harmless when it has been made."""
        self._call = None

    def fire(self) -> None:
        """Make the call, once."""
        call, self._call = self._call, None
        if call is not None:
            call()


class Loop:
    """Runs callbacks until somebody says with which code the process ends."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = 0
        self._code: int | None = None
        self._wakeup: tuple[socket.socket, ...] = ()

    def add(self, item: Pollable, events: int, call: Callable[[int], None]) -> None:
        """Call `call(events)` when the descriptor is ready."""
        self._selector.register(item, events, call)

    def change(self, item: Pollable, events: int, call: Callable[[int], None]) -> None:
        """Wait for other events on a known descriptor."""
        self._selector.modify(item, events, call)

    def remove(self, item: Pollable) -> None:
        """Stop waiting for a descriptor."""
        self._selector.unregister(item)

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call once, `seconds` from now."""
        timer = Timer(now() + max(0.0, seconds), call)
        self._count += 1
        heapq.heappush(self._timers, (timer.due, self._count, timer))
        return timer

    def every(self, seconds: float, call: Callable[[], None]) -> None:
        """Call for ever, each `seconds`; ticks that come too late are skipped, not made up."""
        due = now() + seconds

        def tick() -> None:
            nonlocal due
            missed = int((now() - due) / seconds)
            due += seconds * (missed + 1)
            self.later(due - now(), tick)
            call()

        self.later(seconds, tick)

    def on_signal(self, number: int, call: Callable[[], None]) -> None:
        """From now on make this call, in the loop, each time the signal arrives."""
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        # The byte in the pipe says it all; without a handler Python would not write one.
        signal.signal(number, lambda _number, _frame: None)

        def drain(_events: int) -> None:
            for byte in reader.recv(4096):
                if byte == number:
                    call()

        self._wakeup = (reader, writer)
        self.add(reader, READ, drain)

    def close(self) -> None:
        """Let go of the selector and of the signal; sockets belong to whoever added them."""
        self._selector.close()
        if self._wakeup:
            signal.set_wakeup_fd(-1)
        for sock in self._wakeup:
            sock.close()

    def stop(self, code: int) -> None:
        """End `run` with this code after the current callback; the first code counts."""
        if self._code is None:
            self._code = code

    def run(self) -> int:
        """Run until `stop`, and return its code; exceptions of callbacks propagate."""
        while self._code is None:
            for key, events in self._selector.select(self._patience()):
                key.data(events)
                if self._code is not None:
                    break
            self._fire_due()
        return self._code

    def _patience(self) -> float | None:
        return max(0.0, self._timers[0][0] - now()) if self._timers else None

    def _fire_due(self) -> None:
        if not self._timers:
            return
        moment = now()
        while self._code is None and self._timers and self._timers[0][0] <= moment:
            heapq.heappop(self._timers)[2].fire()
