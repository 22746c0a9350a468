"""The records of a run: what is on the disk before it is counted, and what a restart finds."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from soakd.core.errors import HostError
from soakd.core.rounds import RoundResult, RoundSpec
from soakd.core.rows import Pair
from soakd.edge.journal import RunFolder
from soakd.records import Records, last_sign_of_life
from tests.run.kit import EPOCH_S, UID, VirtualTime, full_disk

PAIR = Pair("1", "a", "b", "source:a>b", cold=False)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    made = RunFolder.create(tmp_path, 1, UID, system=False)
    yield made
    made.close()


def result(number: int, outcome: str = "hit", **changes: object) -> RoundResult:
    spec = RoundSpec(
        number=number, measurement="1", publisher="a", searcher="b", flow="source:a>b",
        file_id=f"{number:032x}", file_size=2000, cold=False, wait_publish_s=1, wait_search_s=1,
        read_every_s=0, recheck_attempts=0, recheck_delay_s=0,
    )  # fmt: skip
    given: dict[str, object] = {
        "spec": spec, "outcome": outcome, "cause": None, "prestored": False, "source_ids": ("k",),
        "first_seen_s": 1.5, "rechecks": 0, "error": None, "notes": (), "publish_body": "p\tq",
        "search_body": "s\n", "final_body": "f", "publish_at_s": 10.0, "started_at_s": 9.0,
        "ended_at_s": 12.0,
    }  # fmt: skip
    return RoundResult(**(given | changes))  # type: ignore[arg-type]


def lines(folder: RunFolder, name: str) -> list[str]:
    return (folder.path / name).read_text().splitlines()


async def test_round_is_recorded_in_both_formats(folder: RunFolder) -> None:
    """One rich line, one row of the scripts' six columns, counted."""
    records = Records(folder)
    await records.round(result(1), "k")
    record = json.loads(lines(folder, "logs/rounds.ndjson")[0])
    assert (record["round"], record["outcome"], record["publisher_listed"]) == (1, "hit", True)
    row = lines(folder, "logs/rounds.tsv")[0].split("\t")
    assert row[1:] == ["1", f"{1:032x}", "p q", "s ", "f"]
    assert (records.counters.hit, records.last_round) == (1, 1)
    assert records.rounds_bytes == (folder.path / "logs/rounds.ndjson").stat().st_size


async def test_times_of_a_round_are_of_the_wall(
    folder: RunFolder, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured by the boot clock, told by the wall clock."""
    time = VirtualTime(autojump_clock)
    time.install(monkeypatch)
    boot_s = time.boot_s
    await trio.sleep(100)
    await Records(folder).round(
        result(1, started_at_s=boot_s, publish_at_s=None, ended_at_s=boot_s + 40), None
    )
    record = json.loads(lines(folder, "logs/rounds.ndjson")[0])
    assert EPOCH_S == 1_700_000_000
    assert record["started_at"] == "2023-11-14T22:13:20Z"
    assert (record["publish_at"], record["ended_at"]) == (None, "2023-11-14T22:14:00Z")
    assert lines(folder, "logs/rounds.tsv")[0].startswith("2023-11-14T22:15:00+0000\t")


async def test_round_is_counted_only_when_it_is_on_the_disk(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The truth is the file."""
    records = Records(folder)
    await records.round(result(1), None)
    with pytest.MonkeyPatch.context() as patch:
        full_disk(patch, "logs/rounds.ndjson")
        with pytest.raises(HostError, match="free disk space"):
            await records.round(result(2), None)
    assert (records.counters.total, records.last_round) == (1, 1)


async def test_lines_are_synced_off_the_loop(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk may take its time; the loop serves others meanwhile."""
    threads: list[tuple[str, bool]] = []

    def watch(name: str) -> None:
        real = getattr(os, name)

        def call(fd: int) -> None:
            threads.append((name, threading.current_thread() is threading.main_thread()))
            real(fd)

        monkeypatch.setattr(os, name, call)

    watch("fsync")
    watch("fdatasync")
    records = Records(folder)
    await records.round(result(1), None)
    await records.state_file("running")
    await records.write_json("run.json", {"x": 1})
    await records.write("logs/a.pid", "1\n")
    assert ("fdatasync", False) in threads
    assert ("fsync", False) in threads
    assert not any(on_loop for _, on_loop in threads)


async def test_stop_does_not_lose_a_round_that_was_played(folder: RunFolder) -> None:
    """Also in a cancelled scope it is written and counted."""
    records = Records(folder)
    with trio.CancelScope() as scope:
        scope.cancel()
        await records.round(result(1), None)
    assert len(lines(folder, "logs/rounds.ndjson")) == records.counters.total == 1


async def test_next_soakd_continues_counters_and_numbers(folder: RunFolder, tmp_path: Path) -> None:
    """Nothing is read from memory that was not on the disk."""
    records = Records(folder)
    for number, outcome in enumerate(("hit", "miss", "late", "error"), 1):
        await records.round(result(number, outcome, prestored=number == 1), None)
    records.event("panic", "a", {})
    records.event("panic", "a", {"untold": 3})
    records.event("other", None, {})
    folder.close()
    again = RunFolder.open(tmp_path, 1)
    found = Records(again)
    assert found.counters == records.counters
    assert (found.last_round, found.panics) == (4, 5)
    assert found.event("x", None, {})["n"] == 4
    again.close()


async def test_row_without_its_record_is_cut_off(folder: RunFolder, tmp_path: Path) -> None:
    """The crash came between the two writes: one row per record."""
    records = Records(folder)
    await records.round(result(1), None)
    folder.append("logs/rounds.tsv", b"time\t2\tfile\t\t\t\n")
    folder.close()
    again = RunFolder.open(tmp_path, 1)
    Records(again)
    assert len(lines(again, "logs/rounds.tsv")) == 1
    again.close()


async def test_record_that_no_one_can_read_is_refused(folder: RunFolder) -> None:
    """Never counted as something else."""
    folder.append("logs/rounds.ndjson", b'{"round":1}\n')
    with pytest.raises(HostError, match=r"cannot read line 1 of rounds.ndjson"):
        Records(folder)


async def test_round_cut_by_an_absence_is_skipped_once(folder: RunFolder) -> None:
    """What runner.log began and rounds.ndjson does not know."""
    records = Records(folder)
    await records.skip_cut_round(lambda _number: PAIR, "gap")
    records.marker(f"round=1 file={1:032x} size=2000")
    await records.round(result(1), None)
    await records.skip_cut_round(lambda _number: PAIR, "gap")
    assert records.counters.total == 1
    records.marker(f"round=2 file={2:032x} size=3000")
    for _ in range(2):
        await records.skip_cut_round(lambda _number: PAIR, "gap")
    record = json.loads(lines(folder, "logs/rounds.ndjson")[-1])
    assert (record["round"], record["outcome"], record["cause"]) == (2, "skipped", "gap")
    assert (record["file_size"], record["duration_s"]) == (3000, None)
    assert len(lines(folder, "logs/rounds.tsv")) == records.last_round == 2


async def test_skipped_round_is_recorded_once_whatever_is_cancelled(folder: RunFolder) -> None:
    """Either it was written, or the next soakd finds it again."""
    records = Records(folder)
    records.marker(f"round=1 file={1:032x} size=2000")
    with trio.CancelScope() as scope:
        scope.cancel()
        await records.skip_cut_round(lambda _number: PAIR, "gap")
    await records.skip_cut_round(lambda _number: PAIR, "gap")
    assert records.counters.total == len(lines(folder, "logs/rounds.tsv")) == 1


ODD = "\ud800 \x00 \x1b[2J \u2028 é \t \n \r"


async def test_words_of_nodes_and_shims_can_always_be_written(folder: RunFolder) -> None:
    """Lone surrogates and control characters: one line each, and it reads back."""
    records = Records(folder)
    records.marker(f"ERROR: {ODD}")
    records.soak_log(ODD)
    records.event("panic", "a", {"line": ODD})
    records.status_sample("a", ODD[1:])
    records.round_status("b", ODD[1:])
    records.resources("a", {"x": ODD})
    await records.round(result(1, source_ids=(ODD,), final_body=ODD), None)
    await records.write_json("run.json", {"x": ODD})
    for name in ("runner.log", "soak.log", "status.ndjson", "status_samples.ndjson", "rounds.tsv"):
        text = (folder.path / "logs" / name).read_bytes()
        assert text.count(b"\n") == 1
        assert b"\r" not in text
    event = json.loads((folder.path / "logs/events.ndjson").read_bytes())
    assert event["data"]["line"] == ODD
    assert json.loads((folder.path / "logs/rounds.ndjson").read_bytes())["source_ids"] == [ODD]


async def test_rows_name_nodes_as_the_scripts_did(folder: RunFolder) -> None:
    """A and B, with the raw body on one line."""
    records = Records(folder)
    records.round_status("a", '{"x":\n1}')
    assert lines(folder, "logs/status.ndjson")[0].split("\t")[1:] == ["A", '{"x": 1}']


async def test_head_of_a_file_is_read_without_the_rest(folder: RunFolder) -> None:
    """A node's output may be large; a missing one is empty."""
    records = Records(folder)
    assert records.head("logs/a.out", 10) == b""
    (folder.path / "logs/a.out").write_bytes(b"SIMULATION" * 1000)
    assert records.head("logs/a.out", 10) == b"SIMULATION"


async def test_used_bytes_are_those_of_the_records(folder: RunFolder) -> None:
    """A file that goes away meanwhile does no harm."""
    records = Records(folder)
    records.marker("x" * 1000)
    assert records.used_bytes() >= 1000
    (folder.path / "logs" / "gone").symlink_to("nowhere")
    assert records.used_bytes() >= 1000


async def test_last_sign_of_life_is_the_newest_of_the_records(folder: RunFolder) -> None:
    """And the folder's own time before there is any."""
    assert last_sign_of_life(folder.path) == pytest.approx(folder.path.stat().st_mtime)
    records = Records(folder)
    records.marker("x")
    records.event("x", None, {})
    os.utime(folder.path / "logs/runner.log", (1000, 1000))
    os.utime(folder.path / "logs/events.ndjson", (2000, 2000))
    assert last_sign_of_life(folder.path) == 2000


async def test_staged_configuration_is_read_from_the_plan_file(folder: RunFolder) -> None:
    """Of a run that was taken over; one that cannot be read is a fault of the host."""
    records = Records(folder)
    spoilt: list[dict[str, Any] | None] = [
        None,
        {},
        {"staged": {"b": {}}},
        {"staged": {"a": 3}},
    ]
    for data in spoilt:
        if data is not None:
            await records.write_json("plan.json", data)
        with pytest.raises(HostError, match=r"cannot read plan.json of the run for node a"):
            records.staged_config("a")
