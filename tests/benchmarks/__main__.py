"""`python -m tests.benchmarks`: how light soakd is, as a table; status 1 if a limit is missed."""

from __future__ import annotations

import argparse
import os

from tests.benchmarks import measures
from tests.benchmarks.box import new_box, rss_mb
from tests.benchmarks.measures import Row


def main() -> int:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20_000, help="of the long run (20000)")
    parser.add_argument("--repeats", type=int, default=20, help="of short measurements (20)")
    options = parser.parse_args()
    rows = measure(options.rounds, options.repeats)
    for row in rows:
        print(line(row), flush=True)
    return 0 if all(row.met for row in rows) else 1


def measure(rounds: int, repeats: int) -> list[Row]:
    """Return all rows of the table."""
    rows: list[Row] = []
    with new_box() as box:
        print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.2f}", flush=True)
        rows += measures.shim_start(box.folder, max(3, repeats // 2))
        shell_ms = measures.shell_runner(box, max(5, repeats))
        with box.soakd():
            rows.append(Row("soakd idle memory", rss_mb(box.soakd_pid), "MB", 60.0))
            rows += measures.starts(box, max(3, repeats // 4))
            rows += measures.long_run(box, rounds, shell_ms)
            rows += measures.status_command(box, repeats)
    return rows


def line(row: Row) -> str:
    """Render one row."""
    limit = ""
    if row.limit is not None:
        sign = ">=" if row.at_least else "<="
        limit = f"{sign} {row.limit:8.2f} {row.unit:3}{'' if row.met else '  MISSED'}"
    return f"{row.what:46} {row.value:9.2f} {row.unit:3} {limit}".rstrip()


if __name__ == "__main__":
    raise SystemExit(main())
