"""What the heavy lies of a node cost soakd in memory, each alone in a box of its own.

`-s` shows the figures; docs/benchmarks.md has them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from soakd.simnode import order
from tests.e2e.box import Box
from tests.e2e.misbehaviour import Memory
from tests.e2e.waiting import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.safety]

GROWTH_MB = 6.0
CALLS = 8
"""Calls that must have failed before the figure is taken."""


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """Yield a soakd of the test's own."""
    box = Box(tmp_path)
    box.install(outcomes=["hit"])
    try:
        box.serve()
        yield box
    finally:
        box.close()


@pytest.mark.parametrize(
    ("fault", "calls"),
    [
        ("endless-headers", CALLS),
        ("endless-body", CALLS),
        pytest.param("gzip-bomb", CALLS, marks=pytest.mark.campaign),
        pytest.param("big-body", CALLS, marks=pytest.mark.campaign),
        pytest.param("drip", 1, marks=pytest.mark.campaign),
    ],
)
def test_a_heavy_lie_alone_costs_little_memory(box: Box, fault: str, calls: int) -> None:
    """The most that soakd and the shim ever had, over what they had before the fault."""
    run = box.start("300", WAIT_BETWEEN="0.2")
    box.until_rounds(run, 5)
    memories = {"soakd": Memory(box.daemon.pid), "shim": Memory(box.row(run)["shim_pid"])}
    for memory in memories.values():
        memory.begin()
    before = box.status(run)["rounds"]["error"]
    began_s = time.monotonic()
    order(box.node(run, "b") / "data", fault)
    wait_for(lambda: box.status(run)["rounds"]["error"] - before >= calls, f"{calls} errors", 120.0)
    for memory in memories.values():
        memory.look()
    took_s = time.monotonic() - began_s
    figures = ", ".join(f"{name} {memory}" for name, memory in memories.items())
    print(f"\n{fault}: {calls} rounds in {took_s:.0f} s: {figures}")  # noqa: T201
    box.ctl("stop", run)
    for memory in memories.values():
        assert memory.grown_mb <= GROWTH_MB
    assert box.status(run)["rounds"]["miss"] == 0
