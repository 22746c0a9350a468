"""Fixtures of the shim's tests."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.shim import harness
from tests.shim.scene import Scene


@pytest.fixture
async def shim(
    short_dir: Path, child_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[harness.RunningShim]:
    """Return a connected shim of our own uid, run from the sources."""
    harness.run_from_source(monkeypatch, child_env)
    async with harness.running_shim(short_dir) as running:
        yield running


@pytest.fixture
async def dropped(short_dir: Path) -> AsyncIterator[harness.RunningShim]:
    """Return a connected shim of the user nobody, run as shipped: a zip, /usr/bin/python3."""
    if os.geteuid() != 0:
        pytest.skip("only root can run a shim with another uid")
    async with harness.running_shim(short_dir, harness.NOBODY) as running:
        yield running


@pytest.fixture
def dead(
    short_dir: Path, child_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scene]:
    """Return a run of our own uid whose shim is gone; its sweeper runs from the sources."""
    harness.run_from_source(monkeypatch, child_env)
    made = Scene(short_dir)
    made.open()
    yield made
    made.close()
    assert (short_dir / "runner.out").read_text() == ""


@pytest.fixture
def dead_of_nobody(short_dir: Path) -> Iterator[Scene]:
    """Return a dead run of the user nobody, swept as shipped."""
    made = Scene(short_dir, harness.NOBODY)
    made.open()
    yield made
    made.close()
    assert (short_dir / "runner.out").read_text() == ""
