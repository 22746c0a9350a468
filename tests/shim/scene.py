"""Processes of every kind around a dead run: leftovers that must go, strangers that must stay."""

from __future__ import annotations

import contextlib
import os
import pty
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from soakd.edge import shim_client
from soakd.edge.shim_client import Credentials, SweepOrder, Swept
from soakd.shim import sweep, system
from soakd.shim.evidence import Order
from soakd.shim.sweep import Sweep
from tests.shim import harness

BARE = {"PATH": "/usr/bin:/bin"}
READY_S = 10.0
# No job control: what is put into the background keeps its pid through setsid and exec.
_ORPHAN = 'cd "$1" && shift && { setsid "$@" </dev/null >/dev/null 2>&1 & echo $!; }'
_ON_TTY = 'cd "$1" && tty="$2" && shift 2 && { setsid -c "$@" <"$tty" >/dev/null 2>&1 & echo $!; }'


def alive(pid: int) -> bool:
    """Whether it is there and no zombie."""
    fields = system.stat_fields(pid)
    return fields is not None and fields[0] not in "ZX"


def start_as(pid: int, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """A new process that has just this pid, once it is free."""
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        if system.stat_fields(pid) is not None:
            time.sleep(0.001)
            continue
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        found = subprocess.Popen(["sleep", "100"], cwd="/", env=env)
        if found.pid == pid:
            return found
        found.kill()
        found.wait()
    raise AssertionError(f"pid {pid} could not be had again")


class Scene:
    """A run folder whose shim is dead, and what stands around it."""

    def __init__(self, folder: Path, credentials: Credentials | None = None) -> None:
        self.folder = folder
        self.credentials = credentials
        self.nonce = secrets.token_hex(8)
        self.made: list[int] = []
        self.home = folder / "nodes" / "mule-a"
        self.programs: tuple[tuple[int, int], ...] = ()
        self.started_ticks = own_ticks()

    def open(self) -> None:
        """Make the folders; a binary of the run's own stands in them."""
        harness.make_folders(self.folder, self.credentials).close()
        self.home.mkdir()
        program = self.home / "rust-mule"
        program.write_bytes(Path("/bin/sleep").read_bytes())
        program.chmod(0o755)
        for path in (self.home.parent, self.home):
            path.chmod(0o755)
        info = program.stat()
        self.programs = ((info.st_dev, info.st_ino),)

    def env(self, **more: str) -> dict[str, str]:
        """The environment of a node of this run."""
        return {**BARE, "SOAK_RUN_NONCE": self.nonce, **more}

    def orphan(
        self, *argv: str, cwd: Path, env: dict[str, str] = BARE, uid: int | None = None
    ) -> int:
        """A process that its parent left, in a session of its own, without a terminal."""
        return self._start(_ORPHAN, [str(cwd), *argv], env, uid)

    def on_terminal(self, *argv: str, cwd: Path, tty: str) -> int:
        """The same with a controlling terminal."""
        return self._start(_ON_TTY, [str(cwd), tty, *argv], BARE, None)

    def _start(self, script: str, args: list[str], env: dict[str, str], uid: int | None) -> int:
        who = {} if uid is None else {"user": uid, "group": uid, "extra_groups": []}
        done = subprocess.run(
            ["/bin/sh", "-c", script, "sh", *args],
            env=env,
            stdout=subprocess.PIPE,
            check=True,
            **who,  # type: ignore[call-overload]
        )
        pid = int(done.stdout)
        self.made.append(pid)
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            fields = system.stat_fields(pid)
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            if fields and fields[3] == str(pid) and not words.startswith(b"setsid\0"):
                return pid
            time.sleep(0.005)
        raise AssertionError(f"process {pid} did not start")

    def order(self) -> SweepOrder:
        """What soakd would ask for."""
        return SweepOrder(str(self.folder / "nodes"), self.nonce, self.started_ticks, self.programs)

    async def sweep(self, python: str = "/usr/bin/python3") -> Swept:
        """A sweep as soakd does it."""
        fds = harness.open_fds(self.folder)
        try:
            return await shim_client.sweep_run(
                self.order(),
                python=python,
                run="r7",
                shim_dir=self.folder / "shim",
                lock_path=self.folder / "shim.lock",
                credentials=self.credentials,
                fds=fds,
            )
        finally:
            fds.close()

    def close(self) -> None:
        """End whatever was made here."""
        for pid in (*self.made, *self._standing()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _standing(self) -> Iterator[int]:
        """Children of what was made stand where their parents stood."""
        for path in Path("/proc").glob("[0-9]*/cwd"):
            with contextlib.suppress(OSError):
                if str(path.readlink()).startswith(str(self.folder)):
                    yield int(path.parent.name)


def own_ticks() -> int:
    """The present instant as a process that starts now would bear it."""
    child = subprocess.Popen(["/bin/sleep", "100"])
    ticks = system.start_ticks(child.pid)
    child.kill()
    child.wait()
    assert ticks is not None
    return ticks


@contextlib.contextmanager
def terminal() -> Iterator[str]:
    """A pseudo terminal that somebody has opened; its path."""
    master, slave = pty.openpty()
    try:
        yield os.ttyname(slave)
    finally:
        os.close(slave)
        os.close(master)


def in_process(made: Scene, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """A sweep that this process does itself."""
    monkeypatch.setattr(sweep, "heir", lambda: 1)
    return Sweep(
        Order(str(made.home.parent), made.nonce, made.started_ticks, frozenset(made.programs))
    )
