"""Soaks on kept nodes that their run's end cuts off where nobody plays them."""

from __future__ import annotations

import json

import pytest
import trio
from trio.testing import MockClock

from soakd import soaking
from soakd.core import run_state
from tests.run.kit import EPOCH_S, World, living, state_reached, until
from tests.run.test_keeping import UID, ended, kept_plan, records, soak

pytestmark = pytest.mark.unmeasured


async def test_a_soak_whose_node_died_while_soakd_was_away_has_its_verdict(
    world: World, autojump_clock: MockClock
) -> None:
    """By the rounds that it had."""
    plan = kept_plan()
    first = world.new_run(plan)
    async with living(first) as scope:
        await state_reached(first, "running")
        await soaking.ask(first, {"rounds": 100}, UID)
        await trio.sleep(100)
        counted = len(records(world))
        scope.cancel()
    world.shim.nodes["b"] |= {"state": "exited", "code": 3}
    second = world.run(1, plan)
    async with living(second):
        pass
    assert world.row().result == "failed"
    judged = ended(second, 1) or {}
    assert (judged["verdict"], judged["rounds"]["hit"]) == ("failed", counted)


async def test_a_soak_is_judged_by_the_soakd_that_finds_its_run_stopping(
    world: World, autojump_clock: MockClock
) -> None:
    """Its predecessor was killed between the decision and the verdict; once is enough."""
    plan = kept_plan()
    first = world.new_run(plan)
    async with living(first) as scope:
        await state_reached(first, "running")
        await soak(first, rounds=1)
        await soaking.ask(first, {"rounds": 100}, UID)
        await until(lambda: len(records(world)) == 3)
        # In the middle of a round.
        await until(lambda: first.status()["phase"] == "wait_search")
        state = first.state
        scope.cancel()
    limits = run_state.Limits.of(plan)
    stopping = run_state.advance(state, run_state.StopAsked("ann"), trio.current_time(), limits)
    stored = json.dumps(run_state.to_dict(stopping))
    world.host.store.transition(1, "running", "stopping", stored, UID, "StopAsked", at=EPOCH_S)
    second = world.run(1, plan)
    async with living(second):
        pass
    assert (world.row().result, world.row().verdict) == ("stopped", "aborted")
    # The round that was cut off is the soak's own, too.
    assert records(world)[-1][1:] == ("2", "skipped")
    judged = ended(second, 2) or {}
    assert judged["rounds"]["total"] == len(records(world)) - 1
    assert world.events().count("soak_ended") == 2


async def test_a_soaks_gate_on_node_exits_sees_the_exit_that_ended_it(
    world: World, autojump_clock: MockClock
) -> None:
    """The event has the gate as failed, not only the verdict."""
    run = world.new_run(kept_plan())
    async with living(run):
        await state_reached(run, "running")
        await soaking.ask(run, {"rounds": 100, "gates": ["node_exits == 0"]}, UID)
        await trio.sleep(100)
        await world.shim.exit_node("b", code=1)
    told = next(row for row in world.lines("logs/events.ndjson") if row["kind"] == "soak_ended")
    assert told["data"]["gates"][0]["status"] == "failed"
