"""The stop ladder: SIGINT repeated, SIGTERM, SIGKILL to the groups, SIGKILL to all that is left.

Driven by `step` from the main loop, never blocking for long. Every rung is reported before the
next instant is computed, so that a journal read later tells what was really sent.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from soakd.shim import protocol, system
from soakd.shim.processes import Processes

PASS_S = 0.005
"""Pause between two looks of the last rungs."""
SLICE_S = 0.02
"""How long one look may kill in a tight loop: what forks itself on must be caught in the act."""
RETRY_S = 1.0
MAX_PIDS = 256


class Ladder:
    """One descent, from the first SIGINT to nothing left.

    Args:
        processes: whom it is about.
        grace_s: how long SIGINT is given.
        report: called with an event name and its facts.
    """

    def __init__(
        self,
        processes: Processes,
        grace_s: float,
        report: Callable[[str, dict[str, object]], None],
    ) -> None:
        self._processes = processes
        self._grace_s = grace_s
        self._report = report
        self._until_s = 0.0
        self._next_s = 0.0
        self._sent = 0
        self.rung: str | None = None
        self.reason: str | None = None
        self.left: list[int] | None = None

    @property
    def active(self) -> bool:
        """Whether it is under way."""
        return self.rung is not None

    @property
    def clear(self) -> bool:
        """Whether it has ended and nothing is left."""
        return self.left == []

    def start(self, reason: str, now_s: float) -> None:
        """Begin the descent; a second reason changes nothing."""
        if self.reason is None:
            self.reason = reason
            self._enter("sigint", now_s, self._grace_s)

    def step(self, now_s: float) -> float | None:
        """Do what is due.

        Returns:
            When to be called again at the latest; None when there is nothing to come.
        """
        if self.rung == "sigint":
            self._ask(signal.SIGINT, now_s, protocol.SIGINT_REPEAT_S)
        if self.rung == "sigterm":
            self._ask(signal.SIGTERM, now_s, protocol.SIGTERM_GRACE_S)
        if self.rung == "sigkill":
            self._kill_groups(now_s)
        if self.rung == "sweep":
            self._sweep(now_s)
        if self.rung is None:
            return self._retry(now_s)
        return min(self._next_s, self._until_s)

    def _enter(self, rung: str, now_s: float, lasts_s: float) -> None:
        self.rung = rung
        self._sent = 0
        self._next_s = now_s
        self._until_s = now_s + lasts_s

    def _ask(self, number: signal.Signals, now_s: float, every_s: float) -> None:
        if not self._processes.running():
            self._enter("sigkill", now_s, protocol.SIGKILL_GRACE_S)
            return
        if now_s >= self._next_s and (self._sent == 0 or now_s < self._until_s):
            self._say(self._processes.signal_nodes(number))
            self._next_s = now_s + every_s
        elif now_s >= self._until_s:
            if number == signal.SIGINT:
                self._enter("sigterm", now_s, protocol.SIGTERM_GRACE_S)
            else:
                self._enter("sigkill", now_s, protocol.SIGKILL_GRACE_S)

    def _kill_groups(self, now_s: float) -> None:
        killed = self._processes.kill_groups()
        if killed and self._sent == 0:
            self._say(killed)
        self._processes.collect()
        # The groups are dead, or they do not die: whoever left them is met by the sweep.
        if not killed or now_s >= self._until_s:
            self._enter("sweep", now_s, protocol.SWEEP_S)
        else:
            self._next_s = now_s + PASS_S

    def _sweep(self, now_s: float) -> None:
        killed = self._kill_for_a_while()
        if killed and self._sent == 0:
            self._say(killed)
        living = self._processes.living_children()
        if living and now_s < self._until_s:
            self._next_s = now_s + PASS_S
            return
        self._finish(living, now_s)

    def _kill_for_a_while(self) -> list[int]:
        first = self._processes.kill_children()
        until = system.boot_now() + SLICE_S
        while self._processes.kill_children() and system.boot_now() < until:
            self._processes.collect()
        self._processes.collect()
        return first

    def _finish(self, left: list[int], now_s: float) -> None:
        self._processes.collect()
        self.rung = None
        self.left = left[:MAX_PIDS]
        self._next_s = now_s + RETRY_S
        self._report("stopped", {"left": self.left, "reason": self.reason})

    def _retry(self, now_s: float) -> float | None:
        if not self.left:
            return None
        if now_s >= self._next_s:
            self._next_s = now_s + RETRY_S
            self._processes.kill_children()
            self._processes.collect()
            if not self._processes.living_children():
                self._finish([], now_s)
                return None
        return self._next_s

    def _say(self, pids: list[int]) -> None:
        self._sent += 1
        facts: dict[str, object] = {"rung": self.rung, "pids": pids[:MAX_PIDS], "n": self._sent}
        self._report("rung", facts)
