"""Records for triage, and the independent computations that confirm its numbers."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks import triage_data

AWK_SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "triage_mawk.sh"
RELEASE = Path(__file__).resolve().parents[1] / "data" / "release-0.1.0" / "runs"


def script_folder(folder: Path, rounds: int = 400, *, wild: bool = False, seed: int = 1) -> Path:
    """Make the records of a script's soak."""
    triage_data.write(folder, rounds, wild=wild, seed=seed)
    return folder


def packed(folder: Path, target: Path) -> Path:
    """Pack a folder as the scripts did."""
    triage_data.pack(folder, target)
    return target


def awk_numbers(tarball: Path) -> list[str]:
    """Compute the numbers of the old triage with awk; lines in a fixed order."""
    done = subprocess.run(
        [AWK_SCRIPT, tarball],
        env={"AWK": "awk", "PATH": os.environ["PATH"], "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(done.stdout.splitlines())


def our_numbers(document: Mapping[str, Any]) -> list[str]:
    """Spell the same numbers of a triage document as awk does."""
    old, rounds = document["old"], document["old"]["rounds"]
    lines = [
        f"total {rounds['total']}",
        f"successes {rounds['successes']}",
        f"percent {rounds['success_percent'] or 0:.6f}",
        f"first {_place(rounds['first_success'])}",
        f"last {_place(rounds['last_success'])}",
        f"longest {rounds['longest_failure_streak']}",
        f"recent {rounds['recent_successes']}",
        f"unique {rounds['unique_files']}",
        f"stop_marker {old['stop_marker'] or ''}",
    ]
    lines += [f"source {source['rows']} {source['source_id']}" for source in rounds["top_sources"]]
    lines += [
        f"counter {node} {key} {value['max']} {value['last']}"
        for node, counters in old["counters"].items()
        for key, value in counters.items()
    ]
    lines += [f"panic_lines {node} {count}" for node, count in old["panic_lines"].items()]
    lines += [f"runner_out {line}" for line in old["runner_out"]]
    return sorted(lines)


def _place(place: Mapping[str, Any] | None) -> str:
    return "" if place is None else f"round {place['round']} at {place['at']}"


def status_table(path: Path) -> sqlite3.Connection:
    """Load a status file into SQLite: one row per line, in its order."""
    store = sqlite3.connect(":memory:")
    store.execute("create table lines (n integer primary key, node text, body text)")
    with path.open(encoding="utf-8") as file:
        rows = (line.rstrip("\n").split("\t", 2)[1:] for line in file)
        store.executemany("insert into lines (node, body) values (?, ?)", rows)
    return store


def rounds_table(path: Path) -> sqlite3.Connection:
    """Load rounds.ndjson into SQLite: one row per record."""
    store = sqlite3.connect(":memory:")
    store.execute("create table lines (n integer primary key, body text)")
    with path.open(encoding="utf-8") as file:
        store.executemany("insert into lines (body) values (?)", ((line,) for line in file))
    return store


def round_record(number: int, outcome: str, **changes: Any) -> dict[str, Any]:
    """Make a line of rounds.ndjson."""
    minute, second = divmod(number * 45, 60)
    hour, minute = divmod(minute, 60)
    day, hour = divmod(hour, 24)
    at = f"2026-11-{1 + day:02d}T{hour:02d}:{minute:02d}:{second:02d}"
    record = {
        "round": number,
        "measurement": "1",
        "publisher": "a",
        "searcher": "b",
        "flow": "source:a>b",
        "file_id": f"{number:032x}",
        "file_size": 4096,
        "outcome": outcome,
        "cause": None,
        "cold": False,
        "prestored": False,
        "source_ids": [],
        "publisher_listed": None,
        "first_seen_s": None if outcome in ("miss", "error", "skipped") else 20.0,
        "rechecks": 0,
        "error": {"step": "search", "text": "cannot search"} if outcome == "error" else None,
        "notes": [],
        "started_at": f"{at}.000Z",
        "publish_at": f"{at}.000Z",
        "ended_at": f"{at}.900Z",
        "duration_s": 0.9,
    }
    return record | changes


def dealt_rounds(count: int, seed: int = 5) -> list[dict[str, Any]]:
    """Make rounds of all outcomes; misses come in streaks."""
    dice = random.Random(seed)
    records = []
    is_hit = True
    for number in range(1, count + 1):
        if dice.random() < (0.15 if is_hit else 0.35):
            is_hit = not is_hit
        outcome = dice.choices(("hit", "late"), (9, 1))[0] if is_hit else "miss"
        if dice.random() < 0.03:
            outcome = dice.choice(("error", "skipped"))
        seen = round(dice.uniform(5, 70), 3) if outcome in ("hit", "late") else None
        records.append(
            round_record(
                number,
                outcome,
                first_seen_s=seen,
                prestored=dice.random() < 0.2,
                cold=number <= 10,
            )
        )
    return records


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records as soakd does, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records)
    path.write_text(text)


def tar_of(
    path: Path, members: Iterable[tuple[tarfile.TarInfo, bytes]], mode: str = "w:gz"
) -> Path:
    """Make a tarball of hand-made members."""
    import io

    with tarfile.open(path, mode, format=tarfile.GNU_FORMAT) as tarball:  # type: ignore[call-overload]
        for info, data in members:
            info.size = len(data) if info.isreg() else 0
            tarball.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return path


def regular(name: str, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    """Make a regular file for `tar_of`."""
    return tarfile.TarInfo(name), data
