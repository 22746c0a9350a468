"""Trying again until it succeeds."""

from __future__ import annotations

import itertools

import trio
from trio.testing import MockClock

from soakd.insist import insist


async def test_what_fails_is_done_again_with_longer_and_longer_pauses(
    autojump_clock: MockClock,
) -> None:
    """Each refusal is told; the pauses end at a minute."""
    times: list[float] = []
    told: list[str] = []

    async def act() -> None:
        await trio.lowlevel.checkpoint()
        times.append(trio.current_time())
        if len(times) < 9:
            raise OSError(f"refusal {len(times)}")

    await insist(act, lambda refusal: told.append(str(refusal)))
    pauses = [round(later - earlier) for earlier, later in itertools.pairwise(times)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert told == [f"refusal {number}" for number in range(1, 9)]


async def test_nobody_needs_to_hear_of_refusals(autojump_clock: MockClock) -> None:
    """They stand in the log."""
    left = [OSError("no"), OSError("no")]

    async def act() -> None:
        await trio.lowlevel.checkpoint()
        if left:
            raise left.pop()

    await insist(act)
    assert left == []
