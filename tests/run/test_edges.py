"""Edges of the run layer, each found by an attack after the first whole was there."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from soakd.core.errors import HostError, first_known
from soakd.host import Host
from soakd.view import from_row
from tests.run.kit import ME, World, hold, leave, leftover, make_plan, until
from tests.run.test_scheduler import LONG, finished, scheduling

pytestmark = pytest.mark.unmeasured


async def test_last_summary_says_what_the_store_says(
    world: World, autojump_clock: MockClock
) -> None:
    """`run.json` goes into bundles: it must not contradict `status`."""
    run = world.new_run(make_plan(duration_s=100.0))
    await hold(run)
    row, store = world.row(), world.host.store
    known = from_row(row, run.plan, store.nodes(1), store.gaps(1), None)
    summary = json.loads(world.text("run.json"))
    differing = {
        key: (summary[key], value)
        for key, value in known.items()
        if key in summary and summary[key] != value
    }
    assert differing == {}


async def test_run_whose_records_cannot_be_read_leaves_no_nodes(
    world: World, autojump_clock: MockClock
) -> None:
    """Its slot is free afterwards, so nothing of it may live on."""
    plan = make_plan(duration_s=1000.0)
    await leave(world.new_run(plan))
    with (world.folder() / "logs/rounds.ndjson").open("a") as file:
        file.write("garbage\n")
    await hold(world.run(1, plan))
    assert world.row().state == "finished"
    assert world.shim.process.returncode is not None


async def test_slow_account_database_does_not_cost_a_soak(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look-up that fails for a moment says nothing about the shim: nothing is killed for it."""
    plan = make_plan(duration_s=300.0)
    await leave(world.new_run(plan))
    asked = 0

    async def account(_self: object, uid: int) -> Any:
        nonlocal asked
        asked += 1
        raise HostError("internal", "cannot look up: the account database gave no answer")

    monkeypatch.setattr(type(world.host.accounts), "account", account)
    await hold(world.run(1, plan))
    assert asked
    assert not world.shim.process.killed


async def test_absence_behind_the_deadline_is_no_gap(
    world: World, autojump_clock: MockClock
) -> None:
    """`measured` is the share of the intended time; after the deadline nothing was intended."""
    plan = make_plan(duration_s=200.0)
    await leave(world.new_run(plan), 195)
    await trio.sleep(2000)
    await hold(world.run(1, plan))
    row = world.row()
    assert (row.result, row.verdict) == ("completed", "passed"), row.why


@pytest.mark.parametrize("ladder_s", [1.0, 59.0, 60.5, 90.0])
async def test_crashed_run_with_a_long_ladder_ends(
    world: World, autojump_clock: MockClock, ladder_s: float
) -> None:
    """Also when it ends while nobody listens, between two attempts to bury the run."""
    world.shim.ladder_s = ladder_s
    async with scheduling(world) as scheduler:

        def bug(*_args: object) -> None:
            raise ZeroDivisionError("a bug")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.host.store, "node_exited", bug)
            await scheduler.submit(ME, make_plan(duration_s=LONG, stop_grace_s=120.0), {})
            await until(lambda: world.row().state == "running")
            await world.shim.exit_node("b", code=1)
            await until(lambda: "stop" in world.shim.verbs())
        with trio.fail_after(2000):
            await finished(scheduler, 1)
    assert world.row().verdict == "harness_error"


async def test_every_watcher_of_a_blocked_run_hears_its_end(
    world: World, autojump_clock: MockClock
) -> None:
    """The verdict is there, though something is left: `wait` need not wait for that."""
    with leftover(world) as child:
        async with scheduling(world) as scheduler:
            await scheduler.submit(ME, make_plan(duration_s=10.0), {})
            await until(lambda: world.row().state == "finished")
            for after in (None, None, 0):
                with trio.fail_after(10):
                    async with scheduler.watch(1, after) as events:
                        async for event in events:
                            if event["kind"] == "end":
                                assert event["data"]["rung"]["pids"] == [child.pid]
                                break


async def test_slot_that_came_free_during_a_failed_cancellation_is_given(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run stayed queued: it must start when it can."""
    db = Host.db

    async def fails(host: Host, query: Callable[..., Any], *args: Any, **values: Any) -> Any:
        if "cancelled while queued" in args:
            await until(lambda: world.row().state == "finished")
            await trio.sleep(5)
            raise HostError("internal", "cannot write: disk full")
        return await db(host, query, *args, **values)

    monkeypatch.setattr(Host, "db", fails)
    async with scheduling(world) as scheduler:
        for _ in range(2):
            await scheduler.submit(ME, make_plan(duration_s=10.0), {})
        with pytest.raises(HostError):
            await scheduler.stop(2, ME)
        with trio.fail_after(1000):
            await finished(scheduler, 2)
    assert world.row(2).verdict == "passed"


async def test_stored_plan_that_cannot_be_read_refuses_the_start_and_names_the_run(
    world: World, autojump_clock: MockClock
) -> None:
    """Never started empty over it, and never in the dark about which run it is."""
    async with scheduling(world) as scheduler:
        for _ in range(2):
            await scheduler.submit(ME, make_plan(duration_s=LONG), {})
        await until(lambda: world.row().state == "running")
    world.host.store.set_columns(2, plan_json='{"nodes": 3}')
    with pytest.raises(ExceptionGroup) as refused:
        async with scheduling(world):
            pass
    known = first_known(refused.value)
    assert known is not None
    assert "cannot take over run r2" in known.message
