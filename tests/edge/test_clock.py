from __future__ import annotations

import time
from pathlib import Path

import pytest
import trio

from soakd.edge import clock


def test_boot_clock_is_the_kernels_boottime() -> None:
    """Processes of one boot can compare their readings."""
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= clock.boot_now() <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_wall_clock_is_the_epoch() -> None:
    """Records carry epoch seconds."""
    assert abs(clock.wall_now() - time.time()) < 1


def test_boot_id_is_the_kernels() -> None:
    """Another boot id means that every process is gone."""
    assert clock.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@pytest.mark.parametrize(
    ("epoch", "text"),
    [
        (0.0, "1970-01-01T00:00:00Z"),
        (1_700_000_000.0, "2023-11-14T22:13:20Z"),
        (1_700_000_000.25, "2023-11-14T22:13:20.250Z"),
        (1_700_000_000.9996, "2023-11-14T22:13:21Z"),
    ],
)
def test_rfc3339_has_a_fraction_only_where_there_is_one(epoch: float, text: str) -> None:
    """Whole seconds look whole, and rounding carries."""
    assert clock.rfc3339(epoch) == text


def test_script_time_looks_like_the_scripts_date() -> None:
    """The format is `date +%Y-%m-%dT%H:%M:%S%z` in UTC."""
    assert clock.script_time(1_700_000_000.9) == "2023-11-14T22:13:20+0000"


async def test_sleep_until_boot_ends_at_its_instant() -> None:
    """It never ends early."""
    until = clock.boot_now() + 0.03
    await clock.sleep_until_boot(until)
    assert clock.boot_now() >= until


async def test_sleep_until_a_past_instant_is_one_checkpoint() -> None:
    """A loop around it stays cancellable."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await clock.sleep_until_boot(clock.boot_now() - 5)
    assert scope.cancelled_caught


async def test_sleep_until_boot_notices_a_resume_within_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trio's sleep does not count a suspend, so no single nap is longer than a second."""
    now = 100.0
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        nonlocal now
        naps.append(seconds)
        now += seconds if len(naps) < 3 else 3600

    monkeypatch.setattr(clock, "boot_now", lambda: now)
    monkeypatch.setattr(trio, "sleep", nap)
    await clock.sleep_until_boot(1000.0)
    assert naps == [1.0, 1.0, 1.0]
