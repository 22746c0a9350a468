"""The suite side by side: it mostly waits, so several workers (pytest-xdist) share it.

A file is one piece of work: one worker runs its tests, one after the other, as without workers, for
they share a box, a machine or a campaign. Tests of different files must bear each other: their
folders, names and ports (`tests.ports`) are their own, and they wait for states, not for time.
Long files begin first; else the last of them would run alone in the end. Each worker measures its
coverage, and the process that started them judges the sum (`tests.coverage_gates`).

`-n 0` runs everything in one process, as a debugger wants it.
"""

from __future__ import annotations

import importlib
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

PER_CORE = 2
"""Workers: tests that wait leave the core to others."""
MOST = 8
"""Workers on a host of many cores: each of them collects all tests first."""
LONGEST_FIRST = (
    "e2e/test_misbehaviour.py",
    "systemd/test_boot.py",
    "e2e/test_blocked.py",
    "e2e/test_queue_acts.py",
    "test_house.py",
    "simnode/test_lies.py",
    "run/test_run.py",
    "e2e/test_safety_stop.py",
    "e2e/test_selftest.py",
    "run/test_keeping.py",
    "e2e/test_safety_start.py",
    "e2e/test_misbehaviour_early.py",
    "e2e/test_users.py",
    "e2e/test_safety_restart.py",
    "e2e/test_safety_strangers.py",
    "e2e/test_demo.py",
)
"""Files that take half a minute or more; the order of the others matters little."""
_PASS = re.compile(r"\bpass(\d+)\b")


def told_to_worker(config: pytest.Config) -> dict[str, Any] | None:
    """What this process was told if it runs tests for another one, else None."""
    told: dict[str, Any] | None = getattr(config, "workerinput", None)
    return told


def count_workers(config: pytest.Config) -> int:
    """How many workers are worth their start: none for chosen files, a search by name, or `-s`."""
    all_files = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if not all_files or config.option.keyword or config.option.capture == "no":
        return 0
    return min(MOST, PER_CORE * len(os.sched_getaffinity(0)))


def longest_first(items: list[pytest.Item]) -> None:
    """Sort tests by file, within each pass of `--repeat`, so that long files begin first."""
    root = Path(__file__).parent
    rank = {root / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: (_pass_of(item.nodeid), rank.get(item.path, len(rank))))


def own_share(place: int, workers: int) -> list[str]:
    """Name every n-th test module for the n-th worker, so that all are of about the same size."""
    root = Path(__file__).parent
    files = sorted(root.rglob("test_*.py"), key=lambda path: (path.stat().st_size, path))
    return [
        ".".join(path.relative_to(root.parent).with_suffix("").parts)
        for path in files[place::workers]
    ]


def load_own_share(told: dict[str, Any]) -> None:
    """Import a worker's share of the test files before it collects: the others find it compiled.

    pytest rewrites the asserts of each file, for which it takes three quarters of the time to
    collect all tests; what one process has rewritten the others may read.
    """
    place, workers = int(told["workerid"].removeprefix("gw")), int(told["workercount"])
    for name in own_share(place, workers):
        # What is wrong with it is told when it is collected.
        with suppress(Exception):
            importlib.import_module(name)


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # xdist does not tell its types
    """Hands out the tests of one file together; with `--repeat`, those of one pass."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        """Keeps the order of the tests."""
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return f"{nodeid.partition('::')[0]} {_pass_of(nodeid)}"


def _pass_of(nodeid: str) -> int:
    found = _PASS.search(nodeid.partition("[")[2])
    return int(found[1]) if found else 1
