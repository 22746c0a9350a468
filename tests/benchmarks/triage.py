"""`python -m tests.benchmarks.triage`: triage against mawk; status 1 if a limit is missed.

Both read the same script-made tarball, turn by turn. mawk does the sums of the old triage, one
pass per file behind `tar -xzf`; `soakctl triage` does those and everything else it does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks import triage_data
from tests.benchmarks.__main__ import line
from tests.benchmarks.measures import Row

MAWK = Path(__file__).with_name("triage_mawk.sh")
SOAKCTL = Path(sys.executable).with_name("soakctl")
MAX_SHARE_OF_MAWK = 0.5
MAX_TIMES_FOR_TEN = 11.0
MAX_MB = 150.0


class Used(NamedTuple):
    """What one command took."""

    wall_s: float
    peak_mb: float


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.triage", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10_000, help="of the short soak (10000)")
    parser.add_argument("--repeats", type=int, default=9, help="of each measurement (9)")
    parser.add_argument("--wild", action="store_true", help="numbers that never repeat")
    options = parser.parse_args()
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.2f}", flush=True)
    rows = []
    with tempfile.TemporaryDirectory(prefix="soakd-bench-") as folder:
        rows = measure(Path(folder), options.rounds, options.repeats, wild=options.wild)
    for row in rows:
        print(line(row), flush=True)
    return 0 if all(row.met for row in rows) else 1


def measure(folder: Path, rounds: int, repeats: int, *, wild: bool) -> list[Row]:
    """Return all rows of the table."""
    short, long = (_bundle(folder, n, wild=wild) for n in (rounds, 10 * rounds))
    pairs = [(run([MAWK, short]), run([SOAKCTL, "triage", short])) for _ in range(repeats + 1)]
    del pairs[0]  # It has warmed the caches.
    mawk_s = statistics.median(mawk.wall_s for mawk, _ in pairs)
    ours_s = statistics.median(ours.wall_s for _, ours in pairs)
    # Pair by pair: what else the machine does then weighs on both.
    share = statistics.median(ours.wall_s / mawk.wall_s for mawk, ours in pairs)
    tenfold = [run([SOAKCTL, "triage", long]) for _ in range(max(3, repeats // 3))]
    long_s = statistics.median(used.wall_s for used in tenfold)
    return [
        Row(f"mawk: old sums of {rounds} rounds", mawk_s * 1000, "ms"),
        Row(f"soakctl triage: {rounds} rounds", ours_s * 1000, "ms"),
        Row("soakctl triage / mawk", share, "x", MAX_SHARE_OF_MAWK),
        Row("memory", max(ours.peak_mb for _, ours in pairs), "MB", MAX_MB),
        Row(f"soakctl triage: {10 * rounds} rounds", long_s * 1000, "ms"),
        Row("ten times the rounds", long_s / ours_s, "x", MAX_TIMES_FOR_TEN),
        Row("memory", max(used.peak_mb for used in tenfold), "MB", MAX_MB),
    ]


def run(command: Sequence[str | Path]) -> Used:
    """Run a command; its largest process counts for the memory.

    Raises:
        RuntimeError: it failed in a way that no verdict is.
    """
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):
        raise RuntimeError(f"cannot measure: {command[0]} ended with {process.returncode}")
    return Used(wall_s, usage.ru_maxrss / 1024)


def _bundle(folder: Path, rounds: int, *, wild: bool) -> Path:
    records = folder / str(rounds)
    triage_data.write(records, rounds, wild=wild)
    size_mb = sum(path.stat().st_size for path in records.rglob("*") if path.is_file()) / 1e6
    target = folder / f"{rounds}.tar.gz"
    triage_data.pack(records, target)
    print(f"{rounds} rounds: {size_mb:.0f} MB of text, {target.stat().st_size / 1e6:.1f} packed")
    return target


if __name__ == "__main__":
    raise SystemExit(main())
