"""Round after round: when the next one may begin, what is counted, what a cut leaves."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from soakd.core import run_state
from soakd.core.errors import HostError
from soakd.core.plan import NodePlan, Plan
from soakd.core.rounds import Cut, NodeDown
from soakd.core.run_state import DeadlineReached, RoundsDone
from soakd.core.section import Section
from soakd.edge.clock import boot_now
from soakd.edge.journal import RunFolder
from soakd.measure import CHECKPOINT_EVERY_S, Measure
from soakd.node import LiveNode
from soakd.records import Records
from tests.run.kit import (
    KAD_ID,
    UID,
    FakeNet,
    FakeNode,
    VirtualTime,
    full_disk,
    make_plan,
    no_answer,
)


class Ear:
    """Hears what measuring comes to."""

    def __init__(self) -> None:
        self.phases: list[tuple[str | None, bool]] = []
        self.failures: list[tuple[int, str, str]] = []
        self.checkpoints: list[float] = []
        self.measure: Measure | None = None

    def phase_changed(self, *, rests: bool) -> None:
        assert self.measure is not None
        self.phases.append((self.measure.phase, rests))

    def round_failed(self, number: int, step: str, text: str) -> None:
        self.failures.append((number, step, text))

    async def store_checkpoint(self) -> None:
        await trio.lowlevel.checkpoint()
        self.checkpoints.append(trio.current_time())


class Bench:
    """Measures on fake nodes into a real run folder."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.records = Records(folder)
        self.net = FakeNet()
        self.nodes = {name: FakeNode(name, self.net) for name in "ab"}
        self.ear = Ear()

    def measure(self, **changes: Any) -> Measure:
        plan = make_plan(**changes)
        nodes = cast("dict[str, LiveNode]", self.nodes)
        made = Measure(Section(1, plan), nodes, self.records, self.ear)
        self.ear.measure = made
        return made

    def outcomes(self) -> list[str]:
        path = self.folder.path / "logs/rounds.ndjson"
        if not path.exists():
            return []
        return [json.loads(line)["outcome"] for line in path.read_text().splitlines()]

    def events(self) -> list[dict[str, Any]]:
        path = self.folder.path / "logs/events.ndjson"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def log(self) -> str:
        return (self.folder.path / "logs/runner.log").read_text()


@pytest.fixture
def bench(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    VirtualTime(autojump_clock).install(monkeypatch)
    folder = RunFolder.create(tmp_path, 1, UID, system=False)
    yield Bench(folder)
    folder.close()


async def run(
    measure: Measure, duration_s: float | None, *, cold: bool = False
) -> DeadlineReached | RoundsDone | None:
    """Plays rounds that may start for so long."""
    deadline_s = None if duration_s is None else boot_now() + duration_s
    return await measure.run(deadline_s, cold=cold)


# Each fate takes 40 s (a miss or a late hit 60 s), and 5 s lie between two rounds.


@pytest.mark.parametrize(
    ("duration_s", "rounds"), [(0.0, 0), (1.0, 1), (40.0, 1), (44.9, 1), (45.1, 2), (90.5, 3)]
)
async def test_deadline_is_the_last_instant_to_begin_a_round(
    bench: Bench, autojump_clock: MockClock, duration_s: float, rounds: int
) -> None:
    """The one under way is finished and counted, the next one is not begun."""
    begun_s = trio.current_time()
    ended = await run(bench.measure(), duration_s)
    assert isinstance(ended, DeadlineReached)
    assert bench.outcomes() == ["hit"] * rounds
    assert bench.records.last_round == rounds
    assert bench.log().count("deadline reached") == 1
    assert trio.current_time() - begun_s <= max(duration_s, rounds * 45)


async def test_pause_ends_at_the_deadline(bench: Bench, autojump_clock: MockClock) -> None:
    """Nobody waits for a round that may not begin."""
    begun_s = trio.current_time()
    await run(bench.measure(wait_between_s=3000.0), 100.0)
    assert trio.current_time() - begun_s == pytest.approx(100)


async def test_round_target_is_met_exactly(bench: Bench, autojump_clock: MockClock) -> None:
    """Skipped and error rounds count as rounds; earlier soakds' rounds count too."""
    assert isinstance(await run(bench.measure(rounds=2), None), RoundsDone)
    assert len(bench.outcomes()) == 2
    assert isinstance(await run(bench.measure(rounds=3), None), RoundsDone)
    assert len(bench.outcomes()) == 3
    assert isinstance(await run(bench.measure(rounds=3), None), RoundsDone)
    assert len(bench.outcomes()) == 3


async def test_of_deadline_and_target_the_first_counts(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """Whichever comes first."""
    assert isinstance(await run(bench.measure(rounds=1), 1000.0), RoundsDone)
    assert isinstance(await run(bench.measure(rounds=100), 10.0), DeadlineReached)


async def test_every_outcome_is_recorded_as_what_it_was(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """Counters, records and rows agree."""
    bench.net.fates = ["hit", "late", "miss", "prestored"]
    await run(bench.measure(rounds=4), None)
    assert bench.outcomes() == ["hit", "late", "miss", "hit"]
    counters = bench.records.counters
    assert (counters.hit, counters.late, counters.miss, counters.prestored) == (2, 1, 1, 1)
    assert "miss_recheck_hit attempt=1" in bench.log()
    assert bench.log().count("miss_recheck attempt=1 delay_secs=20") == 2
    rows = (bench.folder.path / "logs/rounds.tsv").read_text().splitlines()
    assert all(len(row.split("\t")) == 6 for row in rows)
    assert len(rows) == 4


async def test_recheck_without_delay_is_marked_too(bench: Bench, autojump_clock: MockClock) -> None:
    """The scripts' log has a line for every recheck."""
    bench.net.fates = ["miss"]
    measure = bench.measure(rounds=1, miss_recheck_attempts=2, miss_recheck_delay_s=0.0)
    await run(measure, None)
    assert bench.log().count("miss_recheck attempt=") == 2


async def test_rechecks_of_each_round_are_numbered_anew(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """From 1 in every round."""
    bench.net.fates = ["miss"]
    await run(bench.measure(rounds=2, miss_recheck_attempts=2), None)
    assert bench.log().count("attempt=1") == bench.log().count("attempt=2") == 2


async def test_publisher_is_recognised_from_its_second_chance_on(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """Its own id is learnt at the end of the first round, once."""
    await run(bench.measure(rounds=3), None)
    records = (bench.folder.path / "logs/rounds.ndjson").read_text().splitlines()
    assert json.loads(records[-1])["publisher_listed"] is True
    assert bench.nodes["a"].kad_id == KAD_ID
    assert bench.net.called.count(("a", "learn")) == 1


async def test_snapshots_of_all_nodes_are_taken_each_round(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """One row of each node; a node that gives none does not keep the others from theirs."""
    bench.net.fails["a", "status"] = no_answer("cannot call a")
    await run(bench.measure(rounds=2), None)
    rows = (bench.folder.path / "logs/status.ndjson").read_text().splitlines()
    assert [row.split("\t")[1] for row in rows] == ["B", "B"]
    notes = [event["data"] for event in bench.events() if event["kind"] == "step_failed"]
    assert [note["step"] for note in notes] == ["snapshot"] * 2
    assert "a: cannot call a" in notes[0]["text"]
    assert bench.outcomes() == ["hit", "hit"]


async def test_unknown_publisher_does_not_spoil_the_snapshots(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """Learning the id may fail; what was recorded was recorded."""
    bench.net.fails["a", "learn"] = no_answer()
    await run(bench.measure(rounds=1), None)
    rows = (bench.folder.path / "logs/status.ndjson").read_text().splitlines()
    assert len(rows) == 2
    record = json.loads((bench.folder.path / "logs/rounds.ndjson").read_text())
    assert (record["outcome"], record["publisher_listed"]) == ("hit", None)


async def test_a_miss_of_a_publisher_whose_table_is_silent_is_an_error(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """It said queued and did nothing; a hit is not doubted."""
    bench.net.fates = ["miss", "hit"]
    bench.net.fails["a", "sources"] = no_answer("cannot read the table of a: HTTP 504")
    await run(bench.measure(rounds=2), None)
    assert bench.outcomes() == ["error", "hit"]
    assert bench.ear.failures == [(1, "snapshot", "cannot read the table of a: HTTP 504")]
    first = json.loads((bench.folder.path / "logs/rounds.ndjson").read_text().splitlines()[0])
    assert first["cause"] == "node_idle:a"


@pytest.mark.parametrize("node", ["a", "b"])
async def test_a_miss_with_a_loop_that_began_anew_is_an_error(
    bench: Bench, autojump_clock: MockClock, node: str
) -> None:
    """Only of the round in which it did."""
    bench.net.fates = ["miss"]
    bench.nodes[node].idle_s = boot_now() + 30
    await run(bench.measure(rounds=2), None)
    assert bench.outcomes() == ["error", "miss"]
    assert f"node {node}" in bench.ear.failures[0][2]


async def test_failed_round_is_told_and_logged(bench: Bench, autojump_clock: MockClock) -> None:
    """Once, with its step and the node's words."""
    bench.net.fails["a", "publish"] = no_answer("cannot publish: HTTP 500")
    await run(bench.measure(rounds=1), None)
    assert bench.ear.failures == [(1, "publish", "cannot publish: HTTP 500")]
    assert "WARN: round=1 publish failed: cannot publish: HTTP 500" in bench.log()
    assert bench.outcomes() == ["error"]


async def test_rounds_of_errors_do_not_spin(bench: Bench, autojump_clock: MockClock) -> None:
    """A refused call takes no time: the pause between rounds still holds."""
    bench.net.fails["a", "publish"] = no_answer()
    await run(bench.measure(), 60.0)
    assert len(bench.outcomes()) == 12


async def test_phases_are_told_once_each(bench: Bench, autojump_clock: MockClock) -> None:
    """With a word on which of them last."""
    await run(bench.measure(rounds=1), None)
    phases = [phase for phase, _ in bench.ear.phases]
    assert phases[:3] == ["publish", "wait_publish", "early_read"]
    assert phases[-1] == "wait_between"
    assert all(rests == (phase or "").startswith("wait_") for phase, rests in bench.ear.phases)


async def test_hurrying_run_does_not_insist_on_being_watched(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """Without waits thousands of phases pass in a second."""
    quick = {"wait_publish_s": 0.0, "wait_search_s": 0.0, "wait_between_s": 0.0}
    bench.net.fates = ["prestored"]
    await run(bench.measure(rounds=5, **quick), None)
    assert not any(rests for _, rests in bench.ear.phases)


async def test_rounds_without_waits_leave_others_their_turn(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """20,000 rounds in a row must not starve the loop."""
    quick = {"wait_publish_s": 0.0, "wait_search_s": 0.0, "wait_between_s": 0.0}
    bench.net.fates = ["prestored"]
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await run(bench.measure(rounds=20, **quick), None)
        nursery.cancel_scope.cancel()
    assert turns > 20


async def test_checkpoints_come_now_and_then(bench: Bench, autojump_clock: MockClock) -> None:
    """Not with each of many short rounds."""
    quick = {"wait_publish_s": 0.0, "wait_search_s": 0.0, "wait_between_s": 1.0}
    bench.net.fates = ["prestored"]
    await run(bench.measure(rounds=60, **quick), None)
    times = bench.ear.checkpoints
    assert 5 <= len(times) <= 60 / CHECKPOINT_EVERY_S + 1
    assert all(b - a >= CHECKPOINT_EVERY_S for a, b in itertools.pairwise(times))


async def test_cold_run_marks_its_rounds(bench: Bench, autojump_clock: MockClock) -> None:
    """They are judged apart."""
    await run(bench.measure(rounds=1), None, cold=True)
    assert json.loads((bench.folder.path / "logs/rounds.ndjson").read_text())["cold"] is True


# -- cuts --------------------------------------------------------------------------------------


async def cut_after(
    bench: Bench, measure: Measure, seconds: float, event: Cut | NodeDown
) -> run_state.Event | None:
    """Measure, cut after some time; returns what `run` returned, at once."""
    results: list[run_state.Event | None] = []

    async def play() -> None:
        results.append(await run(measure, 10_000.0))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(play)
        await trio.sleep(seconds)
        measure.interrupt(event)
        measure.interrupt(Cut("second"))
        cut_s = trio.current_time()
    assert trio.current_time() == cut_s
    return results[0]


async def test_cut_round_is_recorded_and_no_other_begins(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """Skipped, with the first reason; who cut knows why, so nothing is returned."""
    assert await cut_after(bench, bench.measure(), 60.0, Cut("stop")) is None
    assert bench.outcomes() == ["hit", "skipped"]


async def test_cut_between_rounds_records_nothing(bench: Bench, autojump_clock: MockClock) -> None:
    """The pause is left at once."""
    assert await cut_after(bench, bench.measure(), 42.0, Cut("stop")) is None
    assert bench.outcomes() == ["hit"]


async def test_dead_node_makes_the_round_an_error(bench: Bench, autojump_clock: MockClock) -> None:
    """Told like any other failure."""
    await cut_after(bench, bench.measure(), 10.0, NodeDown("b"))
    assert bench.outcomes() == ["error"]
    assert bench.ear.failures == [(1, "wait_publish", "node b is down")]


async def test_measuring_that_is_cut_before_it_begins_does_nothing(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """The stop came while the state was being stored."""
    measure = bench.measure()
    measure.interrupt(Cut("stop"))
    assert await run(measure, 100.0) is None
    assert bench.outcomes() == []
    assert bench.net.called == []


async def test_full_disk_is_raised_and_counts_nothing(
    bench: Bench, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever owns the run must hear of it."""
    full_disk(monkeypatch, "logs/rounds.ndjson")
    with pytest.raises(HostError):
        await run(bench.measure(), 100.0)
    assert bench.records.counters.total == 0


async def test_round_number_of_a_taken_over_run_is_known_at_once(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """`status` shows the last round before the next begins."""
    measure = bench.measure(rounds=1)
    assert (measure.round_number, measure.phase) == (None, None)
    await run(measure, None)
    assert bench.measure().round_number == 1


# -- the pair ----------------------------------------------------------------------------------


def plan_of(*roles: tuple[str, ...]) -> Plan:
    nodes = tuple(
        NodePlan(name, f"/{name}", "127.0.0.1", 20_000 + place, given)
        for place, (name, given) in enumerate(zip("abcd", roles, strict=False))
    )
    return make_plan(nodes=nodes)


@pytest.mark.parametrize(
    ("roles", "pair"),
    [
        ((("publisher",), ("searcher",)), "a>b"),
        ((("searcher",), ("publisher",)), "b>a"),
        ((("publisher", "searcher"), ("searcher",)), "a>b"),
        ((("publisher", "searcher"), ("publisher",)), "b>a"),
        ((("searcher",), ("searcher",), ("publisher",)), "c>a"),
    ],
)
def test_publisher_and_searcher_are_two_nodes(roles: Any, pair: str) -> None:
    """A node that reads its own publish would always hit."""
    columns = Section(1, plan_of(*roles)).columns(1, cold=False)
    assert f"{columns.publisher}>{columns.searcher}" == pair
    assert columns.flow == f"source:{pair}"


# -- other scenarios ---------------------------------------------------------------------------


def records_of(bench: Bench) -> list[dict[str, Any]]:
    lines = (bench.folder.path / "logs/rounds.ndjson").read_text().splitlines()
    return [json.loads(line) for line in lines]


def answers_of(bench: Bench) -> list[tuple[int | None, str, str]]:
    lines = (bench.folder.path / "logs/answers.ndjson").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [(row["round"], row["node"], row["step"]) for row in rows]


async def test_a_self_test_plays_six_flows_each_with_its_outcome(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """Keyword and source, there and back; a flow's wait ends as soon as a poll finds it."""
    begun_s = trio.current_time()
    ended = await run(bench.measure(scenario="dht_selftest", rounds=1), None)
    assert isinstance(ended, RoundsDone)
    records = records_of(bench)
    assert [record["flow"] for record in records] == [
        "keyword:a>a", "keyword:a>b", "source:a>b", "keyword:b>b", "keyword:b>a", "source:b>a",
    ]  # fmt: skip
    assert {record["outcome"] for record in records} == {"hit"}
    # The second keyword flow finds what the first has published, and does not publish itself.
    assert records[0]["file_id"] == records[1]["file_id"]
    assert [call for _, call in bench.net.called].count("publish_keyword") == 2
    # Publish, and a poll after 5 s; what the second flow finds there already needs no wait.
    assert trio.current_time() - begun_s == pytest.approx(2 * (20 + 5 + 0 + 5 + 20 + 15 + 5) - 5)
    assert {record["prestored"] for record in records} == {False, True}


async def test_a_self_test_keeps_each_raw_answer(bench: Bench, autojump_clock: MockClock) -> None:
    """Of its flows and of what it looks at after each direction."""
    await run(bench.measure(scenario="dht_selftest", rounds=1), None)
    answers = answers_of(bench)
    assert answers[0] == (1, "a", "publish_keyword")
    looks = [(number, step) for number, node, step in answers if node == "b" and number == 2]
    assert looks[-2:] == [(2, "peers"), (2, "routing_summary")]
    assert (3, "a", "peers") in answers
    assert (3, "a", "routing_summary") not in answers


@pytest.mark.parametrize(
    ("modes", "wanted"),
    [
        ({"peers_snapshot": "none", "routing_snapshot": "none"}, set()),
        ({"peers_snapshot": "first", "routing_snapshot": "first"}, set()),
        (
            {"peers_snapshot": "first", "routing_snapshot": "end"},
            {(6, "routing_summary"), (6, "routing_buckets")},
        ),
    ],
)
async def test_looks_are_taken_when_the_plan_says(
    bench: Bench, autojump_clock: MockClock, modes: dict[str, str], wanted: set[tuple[int, str]]
) -> None:
    """`first` is before the rounds, `end` behind the last."""
    await run(bench.measure(scenario="dht_selftest", rounds=1, **modes), None)
    looks = {"peers", "routing_summary", "routing_buckets"}
    assert {(number, step) for number, _, step in answers_of(bench) if step in looks} == wanted


async def test_a_look_that_fails_is_noted_and_the_self_test_goes_on(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """It decides nothing."""
    bench.net.fails["b", "look peers"] = no_answer()
    await run(bench.measure(scenario="dht_selftest", rounds=1), None)
    assert bench.outcomes() == ["hit"] * 6
    failed = [event for event in bench.events() if event["kind"] == "step_failed"]
    assert [event["node"] for event in failed] == ["b"] * 4


async def test_a_cut_ends_a_self_test_in_its_looks(bench: Bench, autojump_clock: MockClock) -> None:
    """A node that hangs there holds nothing up."""
    bench.net.hangs.add(("a", "look peers"))
    measure = bench.measure(scenario="dht_selftest", rounds=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, measure, None)
        await trio.sleep(400)
        measure.interrupt(Cut("stop"))
    assert len(bench.outcomes()) == 2


async def test_a_publish_that_failed_is_made_up_for_by_the_next_flow(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """The second flow publishes for itself."""
    bench.net.fails["a", "publish_keyword"] = no_answer()
    measure = bench.measure(scenario="dht_selftest", rounds=1)

    async def mend() -> None:
        await trio.sleep(1)
        bench.net.fails.clear()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mend)
        # The first flow fails at once; the second begins at once too, so it fails as well.
        await run(measure, None)
    flows = [record["outcome"] for record in records_of(bench)]
    assert flows == ["error", "error", "hit", "hit", "hit", "hit"]


async def test_a_keyword_round_without_an_id_is_an_error_that_says_so(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """The early read is noted, the deciding one decides."""
    bench.net.tells_keyword_ids = False
    await run(bench.measure(scenario="keyword_probe", rounds=1), None)
    (record,) = records_of(bench)
    assert (record["outcome"], record["error"]["step"]) == ("error", "read")
    assert "no answer named its keyword_id_hex" in record["error"]["text"]


async def test_a_missed_keyword_asks_its_publisher_too(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """A miss says something only if the publisher answers for its own cache."""
    bench.net.fates = ["miss"]
    await run(bench.measure(scenario="keyword_probe", rounds=1), None)
    assert bench.outcomes() == ["miss"]
    assert ("a", "keyword_hits") in bench.net.called


async def test_every_node_is_snapped_whoever_played(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """All at once, recorded in the plan's order."""
    for name in "cd":
        bench.nodes[name] = FakeNode(name, bench.net)
    nodes = plan_of(*[("publisher", "searcher")] * 4).nodes
    await run(bench.measure(nodes=nodes, pairs="round_robin", rounds=4), None)
    rows = (bench.folder.path / "logs/status.ndjson").read_text().splitlines()
    assert [row.split("\t")[1] for row in rows] == list("ABCD") * 4
    flows = [record["flow"] for record in records_of(bench)]
    assert flows == ["source:a>b", "source:b>c", "source:c>d", "source:d>a"]
