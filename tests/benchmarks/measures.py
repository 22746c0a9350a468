"""The measurements: each returns rows of the table."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import trio

from soakd.edge.shim_client import ShimFds, find_shim_python, spawn_shim
from tests.benchmarks.box import SOAKCTL, Box, children_of, cpu_s, rss_mb, wait_for

ENDLESS = "1d"
SHELL_RUNNER = Path(__file__).with_name("shell_runner.sh")


class Row(NamedTuple):
    """One line of the table; `limit` None = for information."""

    what: str
    value: float
    unit: str
    limit: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the limit is kept."""
        if self.limit is None:
            return True
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def _wall_ms(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return (time.perf_counter() - begin) * 1000


def status_command(box: Box, repeats: int) -> list[Row]:
    """Compare `soakctl status` with the bare interpreter and its imports, turn by turn."""
    base = [sys.executable, "-c", "import msgpack, socket, argparse"]
    status = [str(SOAKCTL), "--socket", box.socket, "status"]
    times = [(_wall_ms(base), _wall_ms(status)) for _ in range(repeats + 2)][2:]
    base_ms = statistics.median(pair[0] for pair in times)
    status_ms = statistics.median(pair[1] for pair in times)
    return [
        Row("python -c 'import msgpack, socket, argparse'", base_ms, "ms"),
        Row("soakctl status", status_ms, "ms"),
        Row("soakctl status / python -c", status_ms / base_ms, "x", 1.6),
    ]


def shell_cpu_ms(box: Box, rounds: int) -> float:
    """Return the CPU milliseconds per round of the shell runner and all it starts."""
    out = box.folder / "shell"
    out.mkdir(exist_ok=True)
    nodes = [
        text
        for source, port in zip(box.sources, box.ports, strict=True)
        for text in (f"http://127.0.0.1:{port}", str(source / "data" / "api.token"))
    ]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([SHELL_RUNNER, str(rounds), out, *nodes], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    rows = (out / "rounds.tsv").read_text().splitlines()
    if len(rows) != rounds or not all("sources" in row for row in rows):
        raise RuntimeError("cannot measure: the shell runner's rounds went wrong")
    used = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
    return used * 1000 / rounds


def shell_runner(box: Box, rounds: int) -> float:
    """Return the median of three runs against nodes of their own."""
    with box.bare_nodes():
        shell_cpu_ms(box, 3)
        (box.folder / "shell" / "rounds.tsv").unlink()
        samples = []
        for _ in range(3):
            samples.append(shell_cpu_ms(box, rounds))
            (box.folder / "shell" / "rounds.tsv").unlink()
    return statistics.median(samples)


def starts(box: Box, repeats: int) -> list[Row]:
    """Measure from typing `soakctl start` until the kernel has executed the second node."""
    times = []
    for _ in range(repeats):
        begin = time.time()
        run = box.ctl("start", ENDLESS)["id"]
        launched = wait_for(
            "two nodes",
            lambda run=run: f if len(f := box.shim_facts(run, "node_started")) == 2 else None,
        )
        times.append((max(fact["at"] for fact in launched) - begin) * 1000)
        box.ctl("stop", run)
    return [Row("start to both nodes executing", statistics.median(times), "ms", 400.0)]


def shim_start(folder: Path, repeats: int) -> list[Row]:
    """Measure from spawning a shim until it reports that it listens."""
    times = [trio.run(_spawn_one, folder / f"shim{number}") for number in range(repeats)]
    return [Row("shim ready", statistics.median(times), "ms", 60.0)]


async def _spawn_one(folder: Path) -> float:
    folder.mkdir()
    names = ("journal", "lock", "a.out", "runner.out")
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
    journal, lock, out, runner = (os.open(folder / name, flags, 0o600) for name in names)
    fds = ShimFds(journal=journal, lock=lock, out={"a": out}, runner_out=runner)
    begin = time.perf_counter()
    shim = await spawn_shim(
        python=find_shim_python(user_mode=os.geteuid() != 0),
        run="r1",
        nonce="00" * 16,
        shim_dir=folder,
        n=1,
        credentials=None,
        fds=fds,
        env={"PATH": "/usr/bin:/bin"},
    )
    taken_ms = (time.perf_counter() - begin) * 1000
    fds.close()
    await shim.abandon()
    return taken_ms


def long_run(box: Box, rounds: int, shell_ms: float) -> list[Row]:
    """Run many rounds without waits: CPU per round, and memory early and late."""
    early = max(1, rounds // 20)
    # Ended by `stop`: a run that ends by itself takes its shim away before it is looked at.
    run = box.ctl("start", ENDLESS)["id"]
    wait_for(f"{early} rounds", lambda: box.rounds(run) >= early, 600)
    shim = children_of(box.soakd_pid)[0]
    pids = (box.soakd_pid, shim)
    begun_at, begun = box.rounds(run), [cpu_s(pid) for pid in pids]
    early_mb = rss_mb(box.soakd_pid)
    wait_for(f"{rounds} rounds", lambda: _counted(box, run, rounds), 3600)
    counted, used = box.rounds(run) - begun_at, [cpu_s(pid) for pid in pids]
    late_mb, shim_mb = rss_mb(box.soakd_pid), rss_mb(shim)
    box.ctl("stop", run)
    totals = box.ctl("status", run)["rounds"]
    if totals["total"] < rounds or totals["error"]:
        raise RuntimeError(f"cannot measure: the rounds went wrong: {totals}")
    soakd_ms, shim_ms = ((u - b) * 1000 / counted for u, b in zip(used, begun, strict=True))
    return [
        Row("shell runner, CPU per round", shell_ms, "ms"),
        Row("soakd, CPU per round", soakd_ms, "ms"),
        Row("shim, CPU per round", shim_ms, "ms"),
        Row("shell runner / (soakd + shim)", shell_ms / (soakd_ms + shim_ms), "x", 15.0, True),
        Row("shim memory", shim_mb, "MB", 15.0),
        Row(f"soakd memory after {early} rounds", early_mb, "MB"),
        Row(f"soakd memory after {rounds} rounds", late_mb, "MB", early_mb * 1.05),
    ]


def _counted(box: Box, run: str, wanted: int) -> bool:
    """Look seldom: counting lines takes CPU from the soak that is measured."""
    time.sleep(0.5)
    return box.rounds(run) >= wanted
