"""Gates that stop a live run, and what a later soakd knows of the rounds before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from soakd.core import gates
from soakd.core.gates import Facts
from soakd.edge.journal import RunFolder
from soakd.records import Records
from tests.core.record_kit import rounds, samples
from tests.run.kit import UID, World, hold, make_plan


async def test_a_broken_abort_gate_ends_the_run_at_once(
    world: World, autojump_clock: MockClock
) -> None:
    """Aborted, with the gate as its cause, long before its deadline."""
    world.net.fates = ["miss"] * 50
    run = world.new_run(make_plan(duration_s=3600.0, gates=("abort max_miss_streak <= 2",)))
    await hold(run)
    row = world.row()
    assert (row.result, row.verdict) == ("aborted", "aborted")
    cause = json.loads(row.cause_json or "")
    assert cause["code"] == "gate"
    assert cause["text"] == "max_miss_streak is 3, wanted abort max_miss_streak <= 2"
    assert row.why == cause["text"]
    assert world.events().count("gate_broken") == 1
    records = [json.loads(line) for line in world.text("logs/rounds.ndjson").splitlines()]
    assert [record["outcome"] for record in records][:3] == ["miss"] * 3
    assert len(records) <= 4
    assert world.text("runner.state") == "failed\n"


async def test_a_gate_that_holds_stops_nothing_and_is_judged_at_the_end(
    world: World, autojump_clock: MockClock
) -> None:
    """Beside the default gates, which it does not replace."""
    run = world.new_run(make_plan(duration_s=100.0, gates=("abort max_miss_streak <= 2",)))
    await hold(run)
    assert world.row().verdict == "passed"
    summary = json.loads(world.text("run.json"))
    judged = {gate["gate"]: gate["status"] for gate in summary["gates"]}
    assert len(judged) == 6
    assert judged["abort max_miss_streak <= 2"] == "passed"


async def test_a_gate_that_needs_more_rounds_makes_the_run_inconclusive(
    world: World, autojump_clock: MockClock
) -> None:
    """And says how many."""
    run = world.new_run(make_plan(duration_s=100.0, gates=("hit_rate >= 85%",)))
    await hold(run)
    row = world.row()
    assert row.verdict == "inconclusive"
    assert "more rounds (" in (row.why or "")
    [judged] = json.loads(world.text("run.json"))["gates"]
    assert judged["needs"]["rounds"] > 1


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Return an empty run folder."""
    return RunFolder.create(tmp_path, 1, UID, system=False)


def _write(folder: RunFolder, name: str, records: list[dict[str, Any]]) -> None:
    folder.append(f"logs/{name}.ndjson", "".join(json.dumps(r) + "\n" for r in records).encode())


def test_a_later_soakd_knows_all_rounds_and_samples(folder: RunFolder, tmp_path: Path) -> None:
    """From the files: gates see the run as if soakd had never been away."""
    _write(folder, "rounds", rounds("hhmmmml"))
    _write(folder, "resources", samples("b", [1e8, 2e8, 3e8]))
    folder.append("logs/resources.ndjson", b"torn {\n7\n")
    folder.close()
    with_windows = gates.windows_of(("errors <= 5% over last 1h",))
    again = RunFolder.open(tmp_path, 1)
    records = Records(again, with_windows)
    series = records.series
    again.close()
    assert (records.counters.hit, records.last_round) == (2, 7)
    assert series.rounds_over(3600.0).counters.total == 7
    memory = series.memory_over("b", None)
    assert memory is not None
    assert memory.n == 3
    broken = gates.broken([gates.parse_gate("abort max_miss_streak <= 3")], Facts(series, 0, 0, 1))
    assert broken is not None


def test_news_come_after_a_sample_was_counted(folder: RunFolder) -> None:
    """Who is told sees it in the sums."""
    records = Records(folder)
    heard: list[int] = []

    def look() -> None:
        trend = records.series.memory_over("a", None)
        heard.append(0 if trend is None else trend.n)

    records.resources("a", {"rss_bytes": 5})
    records.on_news = look
    records.resources("a", {"rss_bytes": 5})
    folder.close()
    assert heard == [2]
