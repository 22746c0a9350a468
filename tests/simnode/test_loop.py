from __future__ import annotations

import os
import signal

import pytest

from soakd.simnode import loop as loop_module
from soakd.simnode.loop import Loop


def test_timers_fire_in_order_unless_cancelled(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first code given to stop counts."""
    # They are set at one instant, however long a busy machine takes for that.
    clock = [0.0]
    monkeypatch.setattr(loop_module, "now", lambda: clock[0])
    fired = list[str]()
    loop.later(0.002, lambda: loop.stop(3))
    loop.later(0.001, lambda: fired.append("b"))
    loop.later(0.0, lambda: fired.append("a"))
    loop.later(0.0, lambda: fired.append("never")).cancel()
    clock[0] = 1.0
    assert loop.run() == 3
    loop.stop(4)
    assert (loop.run(), fired) == (3, ["a", "b"])


def test_missed_ticks_are_skipped(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that jumps over ten ticks gives one call, not ten."""
    clock = [0.0]
    monkeypatch.setattr(loop_module, "now", lambda: clock[0])
    ticks = list[float]()

    def tick() -> None:
        ticks.append(clock[0])
        clock[0] = 10.5 if len(ticks) == 1 else clock[0]
        if len(ticks) == 2:
            loop.stop(0)

    loop.every(1.0, tick)
    clock[0] = 1.0
    loop.run()
    assert ticks == [1.0, 10.5]


def test_a_signal_is_a_call_in_the_loop(loop: Loop) -> None:
    """Each one, and no exception in the middle of something."""
    before = signal.getsignal(signal.SIGUSR1)
    try:
        loop.on_signal(signal.SIGUSR1, lambda: loop.stop(7))
        os.kill(os.getpid(), signal.SIGUSR1)
        assert loop.run() == 7
    finally:
        signal.signal(signal.SIGUSR1, before)
