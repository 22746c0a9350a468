"""`python -m tests.benchmarks.jitter`: does a soak notice its neighbours on the box?

The same short rounds are played alone, and then beside many soaks that do the same. What a round
takes beyond its planned waits is its *excess*: the calls, and how late soakd wakes up. Its spread
is the jitter. Nodes are simulated ones, so the neighbours' load is theirs as well as soakd's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from soakd.simnode import install
from soakd.simnode.builder import default_python
from tests.benchmarks.box import SOAKCTL, wait_for

WAIT_S = 0.5
UDP_FIRST, UDP_PORTS = 30_000, 4
UNUSED_PORT = 31_000
"""What the folders say; soakd leases other ones."""
SIM = {
    "warmup_secs": 0.0,
    "latency_min_secs": 0.0,
    "latency_max_secs": 0.01,
    "sigint_miss_rate": 0.0,
    "outcomes": ["hit"],
    "udp_ports": UDP_PORTS,
}
PLAN = {
    "WAIT_PUBLISH": str(WAIT_S),
    "WAIT_SEARCH": str(WAIT_S),
    "WAIT_BETWEEN": "0.25",
    "READ_EVERY": "0",
    "MISS_RECHECK_ATTEMPTS": "0",
}


class Street:
    """A soakd with room for many soaks, each with a pair of nodes of its own."""

    def __init__(self, folder: Path, soaks: int) -> None:
        self._folder = folder
        self._soaks = soaks
        for place in range(soaks):
            for node in "ab":
                install(
                    self._source(place, node),
                    python=default_python(),
                    port=UNUSED_PORT,
                    session_name=f"{node}{place}",
                    sim={
                        **SIM,
                        "network": f"jitter-{os.getpid()}-{place}",
                        "udp_first_port": UDP_FIRST + UDP_PORTS * place,
                    },
                )
        (folder / "soakd.toml").write_text(
            f"max_running = {soaks}\nrunning_per_user = {soaks}\nqueued_per_user = {soaks}\n"
        )

    @contextlib.contextmanager
    def soakd(self) -> Iterator[None]:
        """Run soakd; on the way out it stops all runs."""
        options = ["--config", "soakd.toml", "--socket", "s.sock", "--state", "state"]
        with (self._folder / "soakd.log").open("wb") as log:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "soakd", *options],
                cwd=self._folder,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        try:
            wait_for("soakd", (self._folder / "s.sock").exists)
            yield
        finally:
            daemon.send_signal(signal.SIGINT)
            daemon.wait(120)

    def start(self, place: int) -> str:
        """Start the soak of a place; its id."""
        env = {
            **os.environ,
            **PLAN,
            "A_SRC": str(self._source(place, "a")),
            "B_SRC": str(self._source(place, "b")),
        }
        return str(self._ctl("start", "1h", "--ports", "auto", env=env)["id"])

    def stop(self, run: str) -> None:
        """Stop a soak and wait for its end."""
        self._ctl("stop", run)

    def excesses_ms(self, run: str, first: int, count: int) -> list[float]:
        """Excess of `count` rounds from round number `first` on, once they are there."""
        path = self._folder / "state" / "runs" / run / "logs" / "rounds.ndjson"

        def recorded() -> list[dict[str, Any]] | None:
            lines = path.read_text().splitlines() if path.exists() else []
            wanted = [json.loads(line) for line in lines[first - 1 : first - 1 + count]]
            return wanted if len(wanted) == count else None

        rounds = wait_for(f"{count} rounds", recorded, patience_s=60 + 5 * count)
        bad = [record["outcome"] for record in rounds if record["outcome"] != "hit"]
        if bad:
            raise RuntimeError(f"cannot measure: rounds ended as {bad}")
        return [(record["duration_s"] - 2 * WAIT_S) * 1000 for record in rounds]

    def rounds(self, run: str) -> int:
        """How many rounds are recorded."""
        return int(self._ctl("status", run)["rounds"]["total"])

    def _ctl(self, *arguments: str, env: dict[str, str] | None = None) -> Any:
        done = subprocess.run(
            [SOAKCTL, "--socket", "s.sock", "--json", *arguments],
            cwd=self._folder,
            env=env,
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode not in {0, 4}:
            raise RuntimeError(f"cannot measure: soakctl {arguments}: {done.stderr}")
        return json.loads(done.stdout)

    def _source(self, place: int, node: str) -> Path:
        return self._folder / f"source-{place}-{node}"


def measure(folder: Path, neighbours: int, rounds: int) -> tuple[list[float], list[float]]:
    """Excess in ms of each round, alone and with the neighbours."""
    street = Street(folder, neighbours + 1)
    with street.soakd():
        run = street.start(0)
        # The first round opens connections.
        alone = street.excesses_ms(run, 2, rounds)
        others = [street.start(place) for place in range(1, neighbours + 1)]
        for other in others:
            wait_for(f"a round of {other}", lambda name=other: street.rounds(name) > 0, 120)
        beside = street.excesses_ms(run, street.rounds(run) + 2, rounds)
        for name in (*others, run):
            street.stop(name)
    return alone, beside


def line(what: str, excesses_ms: list[float]) -> str:
    """Render one row."""
    cuts = statistics.quantiles(excesses_ms, n=20)
    spread_ms = statistics.pstdev(excesses_ms)
    return (
        f"{what:24} median {statistics.median(excesses_ms):7.2f} ms   p95 {cuts[-1]:7.2f} ms   "
        f"max {max(excesses_ms):7.2f} ms   jitter (sd) {spread_ms:6.2f} ms   n {len(excesses_ms)}"
    )


def main() -> int:
    """Measure and print two rows."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.jitter", description=__doc__)
    parser.add_argument("--neighbours", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soakd-jitter-") as folder:
        alone, beside = measure(Path(folder), options.neighbours, options.rounds)
    print(line("alone", alone))
    print(line(f"with {options.neighbours} neighbours", beside))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
