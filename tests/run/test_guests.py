"""Runs on somebody else's nodes beside the queue: no slot, no lease, limits of their own."""

from __future__ import annotations

import json

import pytest
import trio
from trio.testing import MockClock

from soakd.core.errors import UserError
from soakd.core.plan import Plan
from soakd.edge.config import Config
from soakd.scheduler import Scheduler
from tests.run.kit import (
    ANN,
    BOB,
    ME,
    World,
    add_run,
    leftover,
    make_attached_plan,
    make_plan,
    until,
)
from tests.run.test_scheduler import finished, scheduling


async def _refused(scheduler: Scheduler, plan: Plan, code: str = "refused") -> str:
    with pytest.raises(UserError) as caught:
        await scheduler.submit(ME, plan, {})
    assert caught.value.code == code
    return caught.value.message


async def test_attached_run_starts_beside_the_one_that_holds_the_only_slot(
    world: World, autojump_clock: MockClock
) -> None:
    """It is in no queue, counts for no slot, and delays nobody."""
    async with scheduling(world) as scheduler:
        await scheduler.submit(ME, make_plan(duration_s=600.0), {})
        answer = await scheduler.submit(ME, make_attached_plan(duration_s=None, rounds=1), {})
        assert (answer["id"], answer["position"], answer["reason"]) == ("r2", None, None)
        assert answer["state"] != "queued"
        assert answer["expected_start"] is not None
        waits = await scheduler.submit(ME, make_plan(duration_s=10.0), {})
        assert (waits["position"], waits["reason"]) == (1, "slots")
        assert scheduler.counts() == {"running": 1, "queued": 1}
        assert [entry["id"] for entry in await scheduler.desk.entries()] == ["r1", "r3"]
        await finished(scheduler, 2)
        assert not scheduler.is_finished(1)
        assert world.row(2).verdict == "passed"
        usage = [entry["soak_hours"] for entry in await scheduler.desk.entries()]
        await finished(scheduler, 3)
    assert max(usage) < 0.1
    kinds = {lease.kind for lease in world.host.store.leases()}
    assert kinds == set()


async def test_attached_runs_count_for_nothing_after_a_restart_either(
    world: World, autojump_clock: MockClock
) -> None:
    """Whose hours they were is not asked; the slot is free."""
    plan = make_attached_plan(duration_s=5000.0)
    async with scheduling(world) as scheduler:
        await scheduler.submit(ME, plan, {})
        await until(lambda: world.row().state == "running")
    async with scheduling(world) as scheduler:
        assert scheduler.counts() == {"running": 0, "queued": 0}
        answer = await scheduler.submit(ME, make_plan(duration_s=10.0), {})
        assert answer["state"] != "queued"
        (entry,) = await scheduler.desk.entries()
        assert entry["soak_hours"] < 0.01
        assert world.row().state == "running"
        await scheduler.stop(1, ME)
        await finished(scheduler, 1)
        await finished(scheduler, 2)
    assert world.row().result == "stopped"


async def test_attached_run_that_was_not_begun_is_begun_by_the_next_soakd(
    world: World, autojump_clock: MockClock
) -> None:
    """It was accepted, and waits for nothing."""
    add_run(world.host, make_attached_plan(duration_s=None, rounds=1))
    async with scheduling(world) as scheduler:
        assert scheduler.counts() == {"running": 0, "queued": 0}
        await finished(scheduler, 1)
    assert world.row().verdict == "passed"


async def test_so_many_attached_runs_of_a_user_live_at_a_time(
    world: World, autojump_clock: MockClock
) -> None:
    """The next is refused with what to do; of another user's nobody has to know."""
    object.__setattr__(world.host, "config", Config(attached_per_user=2, containment="evidence"))
    async with scheduling(world) as scheduler:
        for _ in range(2):
            await scheduler.submit(ME, make_attached_plan(duration_s=5000.0), {})
        message = await _refused(scheduler, make_attached_plan())
        assert "2 such runs of yours live (r1 r2), attached_per_user is 2" in message
        assert (await scheduler.submit(BOB, make_attached_plan(), {}))["id"] == "r3"
        await scheduler.stop(1, ME)
        await finished(scheduler, 1)
        assert (await scheduler.submit(ME, make_attached_plan(), {}))["id"] == "r4"
        await scheduler.stop_all("root", 0)


async def test_attached_runs_that_come_at_once_are_counted_before_they_live(
    world: World, autojump_clock: MockClock
) -> None:
    """Between the question and the store there is a moment."""
    object.__setattr__(world.host, "config", Config(attached_per_user=1, containment="evidence"))
    came: list[str] = []

    async with scheduling(world) as scheduler:

        async def submit() -> None:
            try:
                answer = await scheduler.submit(ME, make_attached_plan(), {})
                came.append(answer["id"])
            except UserError as error:
                came.append(error.code)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(submit)
        await scheduler.stop_all("root", 0)
    assert sorted(came) == ["r1", "refused", "refused"]


async def test_draining_soakd_starts_no_attached_run(
    world: World, autojump_clock: MockClock
) -> None:
    """There is no queue in which it could wait."""
    async with scheduling(world) as scheduler:
        await scheduler.desk.drain(ME, is_draining=True)
        assert "soakctl daemon resume" in await _refused(scheduler, make_attached_plan())
        await scheduler.desk.drain(ME, is_draining=False)
        await scheduler.submit(ME, make_attached_plan(duration_s=None, rounds=1), {})
        await finished(scheduler, 1)


async def test_attached_run_counts_among_the_submissions_not_among_the_queued(
    world: World, autojump_clock: MockClock
) -> None:
    """It spawns a process, so there may not be any number a minute."""
    config = Config(queued_per_user=1, submissions_per_minute=3, containment="evidence")
    object.__setattr__(world.host, "config", config)
    async with scheduling(world) as scheduler:
        for plan in (make_plan(), make_plan(), make_attached_plan(duration_s=None, rounds=1)):
            await scheduler.submit(ME, plan, {})
        assert "within a minute" in await _refused(scheduler, make_attached_plan())
        await scheduler.stop_all("root", 0)


@pytest.mark.safety
async def test_nodes_on_ports_of_another_users_run_are_refused(
    world: World, autojump_clock: MockClock
) -> None:
    """They are that user's; those of a run of one's own may be measured."""
    async with scheduling(world) as scheduler:
        held = make_plan(duration_s=5000.0)
        await scheduler.submit(ANN, held, {})
        attached = make_attached_plan(nodes=held.nodes, duration_s=None, rounds=1)
        message = await _refused(scheduler, attached, "not_allowed")
        port = held.nodes[0].port
        assert f"node a: port {port} is leased to r1 of ann" in message
        assert (await scheduler.submit(ANN, attached, {}))["id"] == "r2"
        await finished(scheduler, 2)
        assert world.row(2).verdict == "passed"
        await scheduler.stop_all("root", 0)


async def test_attached_run_may_be_extended(world: World, autojump_clock: MockClock) -> None:
    """That delays nobody, whatever was promised."""
    async with scheduling(world) as scheduler:
        await scheduler.submit(ME, make_plan(duration_s=600.0), {})
        await scheduler.submit(ME, make_plan(duration_s=600.0), {})
        await scheduler.submit(ME, make_attached_plan(duration_s=600.0), {})
        said = await scheduler.desk.extend(3, 3600.0, ME, dry_run=False)
        assert (said["applied"], said["effect"], said["duration_s"]) == (True, [], 4200.0)
        await scheduler.stop_all("root", 0)


async def test_what_is_left_of_an_attached_run_blocks_nobody(
    world: World, autojump_clock: MockClock
) -> None:
    """It had no slot that could be kept; the note says what could not be killed."""
    with leftover(world) as child:
        async with scheduling(world) as scheduler:
            await scheduler.submit(ME, make_attached_plan(duration_s=None, rounds=1), {})
            await finished(scheduler, 1)
            assert scheduler.counts() == {"running": 0, "queued": 0}
            status = await scheduler.status(1, ME)
            assert status["rung"] == {"rung": "blocked", "pids": [child.pid]}
            assert f"process {child.pid} could not be killed" in status["notes"]
            assert "a" in {node["name"] for node in status["nodes"]}
            assert {node["state"] for node in status["nodes"]} == {"attached"}
        async with scheduling(world) as scheduler:
            assert scheduler.counts() == {"running": 0, "queued": 0}
            answer = await scheduler.submit(ME, make_plan(duration_s=10.0), {})
            assert json.dumps(answer["reason"]) == "null"
            await scheduler.stop_all("root", 0)
