"""Real shims for the tests: spawned as soakd does it, watched, and surely gone afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from soakd.edge import shim_client
from soakd.edge.clock import boot_now
from soakd.edge.shim_client import Credentials, ShimConnection, ShimFds, SpawnedShim
from soakd.edge.shim_client import spawn as spawning

ROOT = Path(__file__).resolve().parents[2]
NOBODY = Credentials(65534, 65534, ())
GUARD_S = 60.0
_APPEND = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC

Event = dict[str, Any]


class RunningShim:
    """A shim with its folder, and every event it sent so far."""

    def __init__(self, folder: Path, credentials: Credentials | None) -> None:
        self.folder = folder
        self.nonce = secrets.token_hex(8)
        self.credentials = credentials
        self.events: list[Event] = []
        self.spawned: SpawnedShim
        self.link: ShimConnection
        self.sound = True
        self._news = trio.Event()

    @property
    def nodes(self) -> Path:
        """Where node folders are made."""
        return self.folder / "nodes"

    @property
    def uid(self) -> int:
        """Whom the shim runs as."""
        return self.credentials.uid if self.credentials else os.geteuid()

    @property
    def journal(self) -> list[Event]:
        """The shim's own journal."""
        return [json.loads(line) for line in (self.folder / "shim.ndjson").read_text().splitlines()]

    def output(self, node: str = "a") -> str:
        """What a node wrote."""
        return (self.folder / f"{node}.out").read_text()

    async def call(self, verb: str, **params: object) -> dict[str, Any]:
        """Ask the shim."""
        return await self.link.call(verb, timeout_s=GUARD_S, **params)

    async def begin(self, **changes: object) -> dict[str, Any]:
        """Begin with short times."""
        params: dict[str, object] = {
            "nodes_root": str(self.nodes),
            "latest_end_boot_s": boot_now() + 1000,
            "orphan_grace_s": 600,
            "stop_grace_s": 0.2,
        }
        return await self.call("begin", **(params | changes))

    async def stage(self, source: Path, node: str = "a", **changes: object) -> dict[str, Any]:
        """Stage a source folder as soakd does for rust-mule."""
        params: dict[str, object] = {
            "node": node,
            "source": str(source),
            "dir": f"mule-{node}",
            "exclude": ["data/logs"],
            "by_content": ["rust-mule", "config.toml"],
            "max_bytes": 1 << 30,
        }
        return await self.call("stage", **(params | changes))

    async def launch(self, node: str = "a", **changes: object) -> dict[str, Any]:
        """Launch the staged program; the nonce marks it for the clean-up."""
        params: dict[str, object] = {
            "node": node,
            "argv": ["./rust-mule"],
            "env": {"PATH": os.environ["PATH"], "SOAK_TEST": self.nonce},
            "rlimits": {},
        }
        return await self.call("launch", **(params | changes))

    async def run_program(self, script: str, node: str = "a") -> dict[str, Any]:
        """Begin, stage a shell script as the node program, and launch it."""
        await self.begin()
        await self.stage(program(self.folder / f"source-{node}", script), node)
        return await self.launch(node)

    async def wait_for(self, event: str, **facts: object) -> Event:
        """The first event of that kind with these facts, past or to come."""
        with trio.fail_after(GUARD_S):
            while True:
                for found in self.events:
                    if found["event"] == event and facts.items() <= found.items():
                        return found
                self._news = trio.Event()
                await self._news.wait()

    async def wait_exit(self) -> int:
        """The shim's exit status."""
        with trio.fail_after(GUARD_S):
            return await self.spawned.process.wait()

    def rungs(self) -> list[str]:
        """The rungs taken, each once, in order."""
        found = [str(e["rung"]) for e in self.journal if e["event"] == "rung"]
        return list(dict.fromkeys(found))

    async def listen(self, link: ShimConnection) -> None:
        """Collect events for ever."""
        async for event in link.events:
            self.events.append(event)
            self._news.set()

    def survivors(self) -> list[int]:
        """Living processes that bear the test's label."""
        label = f"SOAK_TEST={self.nonce}".encode()
        return [
            int(p.parent.name) for p in Path("/proc").glob("[0-9]*/environ") if _bears(p, label)
        ]


def _bears(environ: Path, label: bytes) -> bool:
    try:
        return label in environ.read_bytes().split(b"\0")
    except OSError:
        return False


def program(folder: Path, script: str) -> Path:
    """A source folder whose `rust-mule` is a shell script."""
    folder.mkdir(mode=0o755, exist_ok=True)
    path = folder / "rust-mule"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    (folder / "config.toml").write_text("[api]\nport = 1\n")
    return folder


def make_folders(folder: Path, credentials: Credentials | None) -> ShimFds:
    """A run folder as soakd makes it, and its descriptors."""
    folder.chmod(0o711)
    (folder / "shim").mkdir(mode=0o700)
    nodes = folder / "nodes"
    nodes.mkdir(mode=0o700)
    if credentials is not None:
        os.chown(nodes, credentials.uid, credentials.gid)
    return open_fds(folder)


def open_fds(folder: Path) -> ShimFds:
    """The descriptors of a run folder that stands."""
    return ShimFds(
        journal=os.open(folder / "shim.ndjson", _APPEND, 0o640),
        lock=os.open(folder / "shim.lock", _APPEND, 0o600),
        out={n: os.open(folder / f"{n}.out", _APPEND, 0o640) for n in ("a", "b")},
        runner_out=os.open(folder / "runner.out", _APPEND, 0o640),
    )


def run_from_source(
    monkeypatch: pytest.MonkeyPatch, child_env: Mapping[str, str], sabotage: str = "pass"
) -> None:
    """Have shims run from the source tree under this Python, where coverage sees them.

    Args:
        monkeypatch: undoes it after the test.
        child_env: what makes coverage start in the child.
        sabotage: statements executed in the shim before its main.
    """
    code = f"import sys; from soakd.shim import main\n{sabotage}\nsys.exit(main.main(sys.argv))"
    original = spawning._open

    async def from_source(
        argv: list[str],
        inherited: tuple[int, ...],
        credentials: Credentials | None,
        runner_out: int,
        env: Mapping[str, str],
    ) -> trio.Process:
        argv = [sys.executable, "-c", code, argv[-1]]
        env = {**env, **child_env, "PYTHONPATH": str(ROOT)}
        return await original(argv, inherited, credentials, runner_out, env)

    monkeypatch.setattr(spawning, "_open", from_source)


async def spawn(shim: RunningShim, python: str = "/usr/bin/python3") -> None:
    """Make the run folder and start its first shim."""
    fds = make_folders(shim.folder, shim.credentials)
    try:
        shim.spawned = await shim_client.spawn_shim(
            python=python,
            run="r7",
            nonce=shim.nonce,
            shim_dir=shim.folder / "shim",
            n=1,
            credentials=shim.credentials,
            fds=fds,
            env={"PATH": "/usr/bin:/bin"},
        )
    finally:
        fds.close()


@contextlib.asynccontextmanager
async def running_shim(
    folder: Path, credentials: Credentials | None = None
) -> AsyncIterator[RunningShim]:
    """A connected shim; afterwards it is gone, and it is an error if something of it is not."""
    shim = RunningShim(folder, credentials)
    await spawn(shim)
    try:
        shim.link = link = await connect(shim)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(link.pump)
                nursery.start_soon(shim.listen, link)
                yield shim
                nursery.cancel_scope.cancel()
        finally:
            for opened in {link, shim.link}:
                await opened.aclose()
    finally:
        # Politely first: a killed child leaves no coverage.
        with trio.CancelScope(shield=True), trio.move_on_after(GUARD_S):
            shim.spawned.process.terminate()
            await shim.spawned.process.wait()
        await shim.spawned.abandon()
        left = shim.survivors()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    assert left == []
    if shim.sound:
        assert (folder / "runner.out").read_text() == ""


async def connect(shim: RunningShim) -> ShimConnection:
    """Another connection to the shim."""
    pid = shim.spawned.pid
    return await shim_client.connect_shim(shim.folder / "shim", 1, shim.uid, pid)


def drain(slices: Iterable[None], between: Callable[[], None] = lambda: None) -> None:
    """Drive a sliced copy to its end."""
    for _ in slices:
        between()
