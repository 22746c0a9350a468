"""Nodes that are kept: soaks one after the other, each with its number and its verdict."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from soakd import soaking
from soakd.core.errors import UserError
from soakd.core.plan import Plan
from soakd.run import Run
from tests.run.kit import World, living, make_plan, no_answer, state_reached, until

UID = 7


def kept_plan(**changes: Any) -> Plan:
    return make_plan(**{"no_rounds": True, "duration_s": 10_000.0, "rounds": None} | changes)


async def soak(run: Run, **keys: Any) -> dict[str, Any]:
    """Ask for rounds and wait for their end; what was answered."""
    begun = await soaking.ask(run, keys, UID)
    await until(lambda: bool(ended(run, begun["measurement"])))
    return begun


def ended(run: Run, number: int) -> dict[str, Any] | None:
    soaks = run.status()["soaks"]
    return next((known for known in soaks if known["number"] == number), None)


def records(world: World) -> list[tuple[int, str, str]]:
    rows = world.lines("logs/rounds.ndjson")
    return [(row["round"], row["measurement"], row["outcome"]) for row in rows]


async def refused(run: Run, **keys: Any) -> str:
    with pytest.raises(UserError) as caught:
        await soaking.ask(run, keys, UID)
    return caught.value.message


async def test_soaks_follow_one_another_and_round_numbers_go_on(
    world: World, autojump_clock: MockClock
) -> None:
    """The measurement tells them apart; between them the nodes idle and are sampled."""
    run = world.new_run(kept_plan())
    async with living(run):
        await state_reached(run, "running")
        status = run.status()
        assert (status["kept"], status["soak"], status["phase"]) == (True, None, None)
        first = await soak(run, rounds=2)
        assert (first["measurement"], first["first_round"], first["rounds_wanted"]) == (1, 1, 2)
        await trio.sleep(600)
        world.net.fates = ["miss"]
        second = await soak(run, rounds=3, gates=["hit_rate >= 0.9"])
        assert (second["measurement"], second["first_round"]) == (2, 3)
        await run.ask_stop("ann", UID)
    assert records(world) == [
        (1, "1", "hit"), (2, "1", "hit"), (3, "2", "miss"), (4, "2", "miss"), (5, "2", "miss"),
    ]  # fmt: skip
    verdicts = [(known["number"], known["verdict"]) for known in run.status()["soaks"]]
    assert verdicts == [(1, "passed"), (2, "failed")]
    row = world.row()
    # Stopping nodes that idle is how such a run ends.
    assert (row.result, row.verdict) == ("completed", "passed")
    assert "runner stop requested" in world.text("logs/runner.log")
    assert "stop requested" in world.text("logs/soak.log")
    summary = json.loads(world.text("run.json"))
    assert [known["first_round"] for known in summary["soaks"]] == [1, 3]
    assert json.loads(row.measured_json or "")["soaks"][1]["rounds"]["miss"] == 3
    assert world.events().count("soak_begun") == world.events().count("soak_ended") == 2


async def test_a_soak_of_a_time_ends_with_the_round_under_way(
    world: World, autojump_clock: MockClock
) -> None:
    """As a run does; `status` says what is left of it."""
    run = world.new_run(kept_plan())
    async with living(run):
        await state_reached(run, "running")
        begun = await soaking.ask(run, {"duration_s": 50.0}, UID)
        assert begun["deadline_at"] is not None
        await trio.sleep(1)
        now = run.status()["soak"]
        assert (now["number"], now["rounds_wanted"]) == (1, None)
        assert 45 < now["remaining_s"] < 50
        await until(lambda: ended(run, 1) is not None)
        assert run.status()["soak"] is None
        await run.ask_stop("ann", UID)
    assert len(records(world)) == 2


async def test_the_runs_end_cuts_a_soak_short(world: World, autojump_clock: MockClock) -> None:
    """It says so at once; the run is over then, and judged as one that came to its end."""
    run = world.new_run(kept_plan(duration_s=100.0))
    async with living(run):
        await state_reached(run, "running")
        begun = await soaking.ask(run, {"duration_s": 3000.0}, UID)
        assert begun["notes"] == [
            "cut at the end of r1, in 100 s; soakctl extend r1 gives it more time"
        ]
    row = world.row()
    assert (row.result, row.verdict, row.last_round) == ("completed", "passed", 3)
    assert (ended(run, 1) or {})["verdict"] == "passed"


async def test_nodes_that_nobody_uses_are_kept_until_the_end(
    world: World, autojump_clock: MockClock
) -> None:
    """Longer if somebody asks for that; without a round nothing is known."""
    run = world.new_run(kept_plan(duration_s=100.0))
    begun_s = trio.current_time()
    async with living(run):
        await state_reached(run, "running")
        await run.extend(500.0, UID)
    assert 600 <= trio.current_time() - begun_s < 640
    assert (world.row().result, world.row().verdict) == ("completed", "inconclusive")


async def test_what_cannot_be_done_now_is_refused_with_what_to_do(
    world: World, autojump_clock: MockClock
) -> None:
    """Busy, not ready, too long, unknown, ending."""
    run = world.new_run(kept_plan())
    world.shim.mute.add("stage")
    async with living(run):
        await state_reached(run, "staging")
        assert "wait for them: soakctl wait r1 --for ready" in await refused(run)
        world.shim.mute.clear()
        await run.ask_stop("ann", UID)
    assert "it is finished; start other nodes" in await refused(run)
    run = world.new_run(kept_plan())
    async with living(run):
        await state_reached(run, "running")
        assert "a round may take" in await refused(run, wait_search_s=5000.0)
        assert "cannot use the plan: rounds: cannot be outside" in await refused(run, rounds=0)
        await soaking.ask(run, {"rounds": 100}, UID)
        assert "soak 1 is under way" in await refused(run)
        await run.ask_stop("ann", UID)
    assert (world.row(2).result, world.row(2).verdict) == ("stopped", "aborted")
    assert (ended(run, 1) or {})["verdict"] == "aborted"
    other = world.new_run(make_plan(rounds=1))
    async with living(other):
        await state_reached(other, "running")
        assert "`soakctl start --no-rounds` keeps nodes" in await refused(other)


async def test_two_who_ask_at_once_get_one_soak(world: World, autojump_clock: MockClock) -> None:
    """The other one hears that it is busy."""
    run = world.new_run(kept_plan())
    said: list[str] = []

    async def ask() -> None:
        try:
            said.append(str((await soaking.ask(run, {"rounds": 1}, UID))["measurement"]))
        except UserError as refusal:
            said.append(refusal.code)

    async with living(run):
        await state_reached(run, "running")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
        await until(lambda: ended(run, 1) is not None)
        await run.ask_stop("ann", UID)
    assert sorted(said) == ["1", "refused"]


async def test_a_node_that_ends_in_a_soak_fails_both(
    world: World, autojump_clock: MockClock
) -> None:
    """The soak's verdict is written, as is the run's."""
    run = world.new_run(kept_plan())
    async with living(run):
        await state_reached(run, "running")
        await soaking.ask(run, {"rounds": 100}, UID)
        await trio.sleep(100)
        await world.shim.exit_node("b", code=1)
    assert (world.row().result, world.row().verdict) == ("failed", "failed")
    soak = ended(run, 1) or {}
    assert (soak["verdict"], soak["rounds"]["error"]) == ("failed", 1)
    assert soak["why"] == "node b ended by itself"


async def test_a_soak_goes_on_under_the_next_soakd(world: World, autojump_clock: MockClock) -> None:
    """With its number, base and rounds; what it had before counts for its verdict."""
    plan = kept_plan()
    first = world.new_run(plan)
    async with living(first) as scope:
        await state_reached(first, "running")
        await soak(first, rounds=1)
        await soaking.ask(first, {"rounds": 4, "gates": ["rounds >= 4"]}, UID)
        await until(lambda: len(records(world)) == 3)
        await trio.sleep(1)
        scope.cancel()
    await trio.sleep(100)
    second = world.run(1, plan)
    async with living(second):
        await until(lambda: ended(second, 2) is not None)
        await second.ask_stop("ann", UID)
    assert [number for number, _, _ in records(world)] == [1, 2, 3, 4, 5]
    assert [part for _, part, _ in records(world)] == ["1", "2", "2", "2", "2"]
    soak_2 = ended(second, 2) or {}
    assert (soak_2["verdict"], soak_2["first_round"], soak_2["rounds"]["total"]) == ("passed", 2, 4)
    assert world.events().count("soak_begun") == 2


async def test_a_soak_that_was_judged_already_is_not_judged_again(
    world: World, autojump_clock: MockClock
) -> None:
    """soakd was killed between its last event and the transition."""
    plan = kept_plan()
    first = world.new_run(plan)
    async with living(first) as scope:
        await state_reached(first, "running")
        await soaking.ask(first, {"rounds": 1}, UID)
        state = world.row().state_json
        await until(lambda: ended(first, 1) is not None)
        scope.cancel()
    world.host.store.set_columns(1, state_json=state)
    second = world.run(1, plan)
    async with living(second):
        await until(lambda: second.status()["soak"] is None and second.settled.is_set())
        await soak(second, rounds=1)
        await second.ask_stop("ann", UID)
    assert [known["number"] for known in second.status()["soaks"]] == [1, 2]


async def test_a_self_test_on_kept_nodes_warms_up_first(
    world: World, autojump_clock: MockClock
) -> None:
    """Its conditions are the soak's own; what does not get warm is cold."""
    run = world.new_run(kept_plan())
    async with living(run):
        await state_reached(run, "running")
        keys = {"scenario": "dht_selftest", "rounds": 1, "warmup_timeout_s": 100.0}
        begun = await soak(run, **keys)
        assert begun["rounds_wanted"] == 6
        await run.ask_stop("ann", UID)
    assert "warmup elapsed=0s A live_10m=none B live_10m=none stable=0/3" in world.text(
        "logs/runner.log"
    )
    rows = world.lines("logs/rounds.ndjson")
    assert {row["cold"] for row in rows} == {True}
    steps = {row["step"] for row in world.lines("logs/answers.ndjson")}
    assert {"health", "peers", "routing_summary", "publish_keyword"} <= steps


async def test_nodes_that_do_not_answer_are_not_warm(
    world: World, autojump_clock: MockClock
) -> None:
    """A sample without an answer is noted and holds nothing; the run goes on cold."""
    world.net.fails["b", "status"] = no_answer()
    run = world.new_run(make_plan(rounds=1, warmup=("live > 0",), warmup_timeout_s=50.0))
    async with living(run):
        await state_reached(run, "running")
        world.net.fails.clear()
    assert "A live=none B no answer stable=0/3" in world.text("logs/runner.log")
    assert {"not_warm", "step_failed"} <= set(world.events())


COLD = {"warmup": ["live >= 9"], "warmup_check_s": 1.0}


async def test_a_soak_that_does_not_get_warm_ends_in_its_time(
    world: World, autojump_clock: MockClock
) -> None:
    """Nodes are not kept beyond the run's end because of a warm-up that is longer."""
    run = world.new_run(kept_plan(duration_s=100.0))
    begun_s = trio.current_time()
    async with living(run):
        await state_reached(run, "running")
        await soaking.ask(run, COLD | {"rounds": 1, "warmup_timeout_s": 3000.0}, UID)
        await trio.sleep(50)
        await run.extend(50.0, UID)
    assert 150 <= trio.current_time() - begun_s < 190
    assert (world.row().result, world.row().verdict) == ("completed", "inconclusive")
    assert (ended(run, 1) or {})["rounds"]["total"] == 0


async def test_a_soak_that_is_cut_while_it_warms_up_is_judged(
    world: World, autojump_clock: MockClock
) -> None:
    """Whoever waits for it hears what became of it."""
    run = world.new_run(kept_plan())
    async with living(run):
        await state_reached(run, "running")
        await soaking.ask(run, COLD | {"rounds": 1, "warmup_timeout_s": 3000.0}, UID)
        await trio.sleep(50)
        await run.ask_stop("ann", UID)
    assert (world.row().result, world.row().verdict) == ("stopped", "aborted")
    soak_1 = ended(run, 1) or {}
    assert (soak_1["verdict"], soak_1["rounds"]["total"]) == ("aborted", 0)


async def test_a_soak_that_began_cold_stays_so_under_the_next_soakd(
    world: World, autojump_clock: MockClock
) -> None:
    """Also if the round that is skipped was its first one."""
    plan = kept_plan()
    first = world.new_run(plan)
    async with living(first) as scope:
        await state_reached(first, "running")
        await soaking.ask(first, COLD | {"rounds": 3, "warmup_timeout_s": 10.0}, UID)
        await until(lambda: first.status()["phase"] == "wait_search")
        scope.cancel()
    second = world.run(1, plan)
    async with living(second):
        await until(lambda: ended(second, 1) is not None)
        await second.ask_stop("ann", UID)
    rows = world.lines("logs/rounds.ndjson")
    assert [(row["outcome"], row["cold"]) for row in rows] == [
        ("skipped", True), ("hit", True), ("hit", True),
    ]  # fmt: skip


async def test_a_soak_that_is_taken_up_in_its_warm_up_begins_once(
    world: World, autojump_clock: MockClock
) -> None:
    """The warm-up is made anew, and says alone whether the rounds are cold."""
    plan = kept_plan()
    first = world.new_run(plan)
    async with living(first) as scope:
        await state_reached(first, "running")
        await soaking.ask(first, COLD | {"rounds": 1, "warmup_timeout_s": 30.0}, UID)
        await trio.sleep(5)
        scope.cancel()
    second = world.run(1, plan)
    async with living(second):
        await until(lambda: ended(second, 1) is not None)
        await second.ask_stop("ann", UID)
    assert world.events().count("soak_begun") == 1
    assert [row["cold"] for row in world.lines("logs/rounds.ndjson")] == [True]


async def test_more_time_for_the_run_is_more_time_for_a_soak_that_it_cut(
    world: World, autojump_clock: MockClock
) -> None:
    """As the note says that was given when the soak began."""
    run = world.new_run(kept_plan(duration_s=100.0))
    async with living(run):
        await state_reached(run, "running")
        await soaking.ask(run, {"duration_s": 300.0}, UID)
        await run.extend(1000.0, UID)
        await trio.sleep(150)
        assert run.status()["soak"] is not None
        assert 100 < run.status()["soak"]["remaining_s"] <= 150
        await until(lambda: ended(run, 1) is not None)
        await run.ask_stop("ann", UID)
    assert (world.row().result, world.row().verdict) == ("completed", "passed")


async def test_nodes_have_no_more_soaks_than_a_status_has_room_for(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their numbers would not go on."""
    monkeypatch.setattr(soaking, "MAX_SOAKS", 1)
    run = world.new_run(kept_plan())
    async with living(run):
        await state_reached(run, "running")
        await soak(run, rounds=1)
        assert "it has had 1 soaks; start other nodes" in await refused(run, rounds=1)
        await run.ask_stop("ann", UID)
