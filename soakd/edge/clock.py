"""The only place that asks what time it is.

Durations and deadlines use CLOCK_BOOTTIME, which goes on during suspend and is
comparable between processes of one boot; the wall clock serves records only.
Trio's own clock does neither (its offset differs per process), so it never
leaves a task. Decisions do not live here: core functions are *given* ``now_s``.
"""

from __future__ import annotations

import datetime as dt
import functools
import time
from pathlib import Path

import trio

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
RECHECK_S = 1.0
"""Longest nap of `sleep_until_boot`: after a resume a deadline is noticed within this time."""


def boot_now() -> float:
    """Seconds since boot, suspend included; comparable across processes of one boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wall_now() -> float:
    """Seconds since the epoch; for records only, since it may jump."""
    return time.time()


@functools.cache
def boot_id() -> str:
    """The kernel's id of this boot: another id means that every process recorded under it is gone.

    Raises:
        OSError: /proc is not mounted.
    """
    return _BOOT_ID.read_text("ascii").strip()


def rfc3339(epoch: float) -> str:
    """`epoch` as UTC for the wire: whole seconds without, others with a millisecond fraction."""
    moment = dt.datetime.fromtimestamp(round(epoch, 3), dt.UTC)
    spec = "milliseconds" if moment.microsecond else "seconds"
    return moment.isoformat(timespec=spec).replace("+00:00", "Z")


def script_time(epoch: float) -> str:
    """`epoch` as the scripts wrote it (``date +%Y-%m-%dT%H:%M:%S%z``), in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime(epoch))


async def sleep_until_boot(t_s: float) -> None:
    """Sleep until `boot_now()` reaches `t_s`; a past instant is still one checkpoint.

    Naps are at most `RECHECK_S` long because trio's sleep does not count the
    time a machine was suspended. Cancellation ends it at once.
    """
    while (left := t_s - boot_now()) > 0:  # noqa: ASYNC110 - only the clock can end this wait
        await trio.sleep(min(left, RECHECK_S))
    await trio.lowlevel.checkpoint()
