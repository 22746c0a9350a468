"""Processes that not even SIGKILL ends: the v1 freezer holds them until they are thawed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.waiting import wait_for

_USUAL = Path("/sys/fs/cgroup/freezer")


class Freezer:
    """One cgroup of the v1 freezer hierarchy; whoever is frozen in it is out of reach."""

    def __init__(self, hierarchy: Path) -> None:
        """Makes the cgroup."""
        self._path = hierarchy / f"soakd-test-{os.getpid()}"
        self._path.mkdir()

    def freeze(self, pid: int) -> None:
        """Take a process out of reach of every signal; returns when it is."""
        self._freeze("cgroup.procs", pid)

    def freeze_thread(self, tid: int) -> None:
        """The same with one thread alone, as a disk does that does not answer it."""
        self._freeze("tasks", tid)

    def thaw(self) -> None:
        """Let everybody go on, with the signals that came meanwhile."""
        (self._path / "freezer.state").write_text("THAWED")

    def close(self) -> None:
        """Thaw, and remove the cgroup once nobody is in it."""
        self.thaw()
        wait_for(lambda: not (self._path / "cgroup.procs").read_text(), "nobody is frozen")
        self._path.rmdir()

    def _freeze(self, list_name: str, number: int) -> None:
        (self._path / list_name).write_text(str(number))
        (self._path / "freezer.state").write_text("FROZEN")
        wait_for(lambda: self._state() == "FROZEN", f"{number} is frozen")

    def _state(self) -> str:
        return (self._path / "freezer.state").read_text().strip()


@contextmanager
def hierarchy(folder: Path) -> Iterator[Path | None]:
    """The v1 freezer hierarchy, mounted in a folder if the host has it not; None if it cannot be.

    Args:
        folder: an empty one.
    """
    if (_USUAL / "cgroup.procs").exists():
        yield _USUAL
        return
    mount = ("mount", "-t", "cgroup", "-o", "freezer", "none", str(folder))
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(("umount", str(folder)), check=True)
