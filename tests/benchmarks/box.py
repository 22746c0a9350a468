"""A box to measure on: simulated nodes, a private soakd, and what /proc says about them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomlkit

from soakd.simnode import install
from soakd.simnode.builder import default_python

ROOT = Path(__file__).resolve().parents[2]
SOAKCTL = Path(sys.executable).parent / "soakctl"
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PATIENCE_S = 30.0
# Nodes that answer at once: only what drives them is measured.
SIM = {
    "warmup_secs": 0.0,
    "latency_min_secs": 0.0,
    "latency_max_secs": 0.0,
    "sigint_miss_rate": 0.0,
}
WAITS = {
    "WAIT_PUBLISH": "0",
    "WAIT_SEARCH": "0",
    "WAIT_BETWEEN": "0",
    "READ_EVERY": "0",
    "MISS_RECHECK_ATTEMPTS": "0",
}


def free_ports(count: int) -> list[int]:
    """Return ports that are free now."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in sockets]


def wait_for(what: str, condition: Any, patience_s: float = PATIENCE_S) -> Any:
    """Poll until `condition()` is true; return what it returned.

    Raises:
        TimeoutError: it did not become true.
    """
    end = time.monotonic() + patience_s
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"cannot measure: no {what} within {patience_s:g} s")
        time.sleep(0.01)
    return value


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def rss_mb(pid: int) -> float:
    """Return the resident memory in MB (10^6 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ProcessLookupError(pid)


def children_of(pid: int) -> list[int]:
    """Return the direct children of a process."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in lists for child in path.read_text().split()]


class Box:
    """A temporary folder with two node folders, and a soakd that works in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = free_ports(2)
        self.sources = [folder / "mule-a", folder / "mule-b"]
        for source, port in zip(self.sources, self.ports, strict=True):
            install(
                source,
                python=default_python(),
                port=port,
                session_name=source.name,
                sim={**SIM, "network": f"bench-{os.getpid()}"},
            )
            config = tomlkit.parse((source / "config.toml").read_text())
            config["api"]["rate_limit_enabled"] = False
            (source / "config.toml").write_text(tomlkit.dumps(config))
        self._soakd: subprocess.Popen[bytes] | None = None

    @property
    def soakd_pid(self) -> int:
        """The process id of soakd."""
        if self._soakd is None:
            raise AssertionError("soakd was not started")
        return self._soakd.pid

    @contextlib.contextmanager
    def soakd(self) -> Iterator[None]:
        """Run soakd; on the way out it stops all runs, as Ctrl-C would have it."""
        with (self.folder / "soakd.log").open("wb") as log:
            self._soakd = subprocess.Popen(
                [sys.executable, "-m", "soakd", "--socket", self.socket, "--state", self.state],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        try:
            wait_for("soakd", Path(self.socket).exists)
            yield
        finally:
            self._soakd.send_signal(signal.SIGINT)
            try:
                self._soakd.wait(60)
            except subprocess.TimeoutExpired:
                self._soakd.kill()
                self._soakd.wait()

    @property
    def socket(self) -> str:
        """Where soakd listens."""
        return str(self.folder / "s.sock")

    @property
    def state(self) -> Path:
        """Where soakd keeps its records."""
        return self.folder / "state"

    def ctl(self, *arguments: str) -> Any:
        """Run soakctl and return what it printed as JSON (None if it printed nothing)."""
        done = subprocess.run(
            [SOAKCTL, "--socket", self.socket, "--json", *arguments],
            env={**os.environ, **WAITS, **self._plan_env()},
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode not in {0, 1, 3, 4}:
            raise RuntimeError(f"cannot measure: soakctl {arguments}: {done.stderr}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def run_folder(self, run: str) -> Path:
        """Return the folder of the records of a run."""
        return self.state / "runs" / run

    def shim_facts(self, run: str, event: str) -> list[dict[str, Any]]:
        """Return the journal's lines about one kind of event."""
        journal = self.run_folder(run) / "shim.ndjson"
        if not journal.exists():
            return []
        lines = journal.read_bytes().splitlines(keepends=True)
        facts = [json.loads(line) for line in lines if line.endswith(b"\n")]
        return [fact for fact in facts if fact.get("event") == event]

    def rounds(self, run: str) -> int:
        """Return how many rounds are recorded."""
        records = self.run_folder(run) / "logs" / "rounds.ndjson"
        return records.read_bytes().count(b"\n") if records.exists() else 0

    @contextlib.contextmanager
    def bare_nodes(self) -> Iterator[None]:
        """Run both nodes by themselves, for the shell runner."""
        with contextlib.ExitStack() as running:
            for source in self.sources:
                node = subprocess.Popen(
                    ["./rust-mule"],
                    cwd=source,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                running.callback(node.wait)
                running.callback(node.kill)
            for source, port in zip(self.sources, self.ports, strict=True):
                token = source / "data" / "api.token"
                wait_for(f"answer of {source.name}", lambda t=token, p=port: _answers(t, p))
            yield

    def _plan_env(self) -> dict[str, str]:
        return {
            "A_SRC": str(self.sources[0]),
            "B_SRC": str(self.sources[1]),
            "A_URL": f"http://127.0.0.1:{self.ports[0]}",
            "B_URL": f"http://127.0.0.1:{self.ports[1]}",
        }


def _answers(token: Path, port: int) -> bool:
    """Say whether the node on this port has ended its warm-up."""
    if not token.exists():
        return False
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as sock:
        sock.sendall(
            b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Authorization: Bearer " + token.read_bytes() + b"\r\n\r\n"
        )
        return sock.recv(64).startswith(b"HTTP/1.1 200")
    return False


@contextlib.contextmanager
def new_box() -> Iterator[Box]:
    """Make a box with a short path (socket names end at 107 bytes), and remove it."""
    folder = Path(tempfile.mkdtemp(prefix="soakd-bench-"))
    try:
        yield Box(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
