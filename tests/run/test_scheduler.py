"""The queue and the slots: what starts when, who may see what, and that no run takes soakd down."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from soakd.core.errors import HostError, UserError
from soakd.edge.clock import boot_id
from soakd.edge.config import Config
from soakd.edge.journal import RunFolder
from soakd.edge.peers import Peer
from soakd.host import Host
from soakd.hub import Event
from soakd.scheduler import Scheduler
from tests.run.kit import (
    ANN,
    BOB,
    ME,
    SHIM_PID,
    TICKS,
    UID,
    World,
    add_run,
    kinds,
    make_plan,
    until,
)

pytestmark = pytest.mark.unmeasured

LONG = 5000.0


@asynccontextmanager
async def scheduling(world: World) -> AsyncIterator[Scheduler]:
    """A scheduler at work; leaving the block is soakd leaving."""
    scheduler = Scheduler(world.host)
    async with trio.open_nursery() as nursery:
        await nursery.start(scheduler.run_forever)
        yield scheduler
        nursery.cancel_scope.cancel()


def slots(world: World, count: int) -> None:
    object.__setattr__(world.host, "config", Config(max_running=count, containment="evidence"))


async def finished(scheduler: Scheduler, run_id: int) -> None:
    await until(lambda: scheduler.is_finished(run_id))


async def watched(scheduler: Scheduler, run_id: int, after: int | None) -> list[Event]:
    async with scheduler.watch(run_id, after) as events:
        return [event async for event in events]


# -- slots -------------------------------------------------------------------------------------


async def test_submitted_run_starts_at_once_where_a_slot_is_free(
    world: World, autojump_clock: MockClock
) -> None:
    """The answer says so, and the run has left the queue by then."""
    async with scheduling(world) as scheduler:
        answer = await scheduler.submit(ME, make_plan(label="x", duration_s=10.0), {})
        assert answer["id"] == "r1"
        assert answer["state"] != "queued"
        assert (answer["position"], answer["reason"]) == (None, None)
        assert answer["expected_start"] is not None
        assert scheduler.counts() == {"running": 1, "queued": 0}
        await finished(scheduler, 1)
    row = world.row()
    assert (row.verdict, row.label, row.owner_uid) == ("passed", "x", ME.uid)


async def test_runs_wait_their_turn(world: World, autojump_clock: MockClock) -> None:
    """One slot: first come, first served; each waiting run knows its place and why."""
    async with scheduling(world) as scheduler:
        plan = make_plan(duration_s=10.0)
        answers = [await scheduler.submit(ME, plan, {}) for _ in range(3)]
        answer = answers[-1]
        assert (answer["state"], answer["position"], answer["reason"]) == ("queued", 2, "slots")
        assert scheduler.counts() == {"running": 1, "queued": 2}
        status = await scheduler.status(2, ME)
        assert (status["state"], status["position"], status["reason"]) == ("queued", 1, "slots")
        await finished(scheduler, 3)
    rows = [world.row(number) for number in (1, 2, 3)]
    assert [row.verdict for row in rows] == ["passed"] * 3
    starts = [row.started_at or 0.0 for row in rows]
    ends = [row.ended_at or 0.0 for row in rows]
    assert starts[1] >= ends[0]
    assert starts[2] >= ends[1]


async def test_ports_are_leased_to_one_run_at_a_time(
    world: World, autojump_clock: MockClock
) -> None:
    """With two slots the same plan still waits, and is told for whom."""
    slots(world, 2)
    async with scheduling(world) as scheduler:
        plan = make_plan(duration_s=10.0)
        await scheduler.submit(ME, plan, {})
        answer = await scheduler.submit(ME, plan, {})
        assert answer["reason"] == f"port {plan.nodes[0].port} leased by r1"
        await finished(scheduler, 2)
    assert world.row(2).verdict == "passed"


# -- stops and cancels -------------------------------------------------------------------------


async def test_queued_run_is_cancelled_by_a_stop(world: World, autojump_clock: MockClock) -> None:
    """It ends at once, its watchers hear it, and it never starts."""
    async with scheduling(world) as scheduler:
        await scheduler.submit(ME, make_plan(duration_s=100.0), {})
        await scheduler.submit(ANN, make_plan(), {})
        heard: list[Event] = []

        async def watch() -> None:
            heard.extend(await watched(scheduler, 2, None))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await trio.testing.wait_all_tasks_blocked()
            status = await scheduler.stop(2, ANN)
        assert (status["state"], status["verdict"]) == ("finished", "aborted")
        assert status["cause"]["text"] == "stopped by ann"
        assert kinds(heard) == ["end"]
        assert scheduler.is_finished(2)
        await finished(scheduler, 1)
        await trio.sleep(100)
    assert world.row(2).started_at is None


async def test_those_behind_a_cancelled_run_move_up(
    world: World, autojump_clock: MockClock
) -> None:
    """Their places are told anew at once."""
    async with scheduling(world) as scheduler:
        for _ in range(3):
            await scheduler.submit(ME, make_plan(duration_s=LONG), {})
        assert (await scheduler.status(3, ME))["position"] == 2
        await scheduler.stop(2, ME)
        assert (await scheduler.status(3, ME))["position"] == 1


async def test_two_stops_of_a_queued_run_are_one(world: World, autojump_clock: MockClock) -> None:
    """Both answer with what became of the run."""
    async with scheduling(world) as scheduler:
        await scheduler.submit(ME, make_plan(duration_s=LONG), {})
        await scheduler.submit(ME, make_plan(), {})
        answers: list[dict[str, Any]] = []

        async def stop() -> None:
            answers.append(await scheduler.stop(2, ME))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop)
            nursery.start_soon(stop)
        assert [answer["state"] for answer in answers] == ["finished"] * 2


async def test_run_cancelled_in_the_moment_of_its_slot_ends_once(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slot comes free while the cancellation is being written: it must not be lost by that."""
    db = Host.db

    async def slow(host: Host, query: Callable[..., Any], *args: Any, **values: Any) -> Any:
        result = await db(host, query, *args, **values)
        if "cancelled while queued" in args:
            await trio.sleep(5)
        return result

    monkeypatch.setattr(Host, "db", slow)
    async with scheduling(world) as scheduler:
        for _ in range(3):
            await scheduler.submit(ME, make_plan(duration_s=10.0), {})
        await trio.sleep(38)
        await scheduler.stop(2, ME)
        with trio.fail_after(1000):
            await finished(scheduler, 2)
            await finished(scheduler, 3)
    assert world.row(2).result == "stopped"
    assert world.row(3).verdict == "passed"


async def test_cancellation_that_cannot_be_written_leaves_the_run_queued(
    world: World, autojump_clock: MockClock
) -> None:
    """The disk is full: the user hears it, and the run is neither lost nor half cancelled."""
    async with scheduling(world) as scheduler:
        await scheduler.submit(ME, make_plan(duration_s=100.0), {})
        await scheduler.submit(ME, make_plan(duration_s=10.0), {})

        def fails(*_args: object, **_columns: object) -> None:
            raise HostError("internal", "cannot write: disk full")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.host.store, "transition", fails)
            with pytest.raises(HostError):
                await scheduler.stop(2, ME)
        assert scheduler.counts()["queued"] == 1
        await finished(scheduler, 2)
    assert world.row(2).verdict == "passed"


async def test_live_run_is_stopped(world: World, autojump_clock: MockClock) -> None:
    """The answer comes before the ladder has ended."""
    async with scheduling(world) as scheduler:
        await scheduler.submit(ME, make_plan(duration_s=LONG), {})
        status = await scheduler.stop(1, ME)
        assert status["state"] == "stopping"
        await finished(scheduler, 1)
        assert (await scheduler.stop(1, ME))["state"] == "finished"
    assert world.row().result == "stopped"


async def test_shutdown_stops_everything_and_starts_nothing(
    world: World, autojump_clock: MockClock
) -> None:
    """Live runs get their ladder; queued ones stay queued for the next soakd."""
    async with scheduling(world) as scheduler:
        for _ in range(2):
            await scheduler.submit(ME, make_plan(duration_s=LONG), {})
        await scheduler.stop_all("ann", 4001)
        assert scheduler.counts() == {"running": 0, "queued": 1}
        with pytest.raises(UserError, match="soakd is shutting down"):
            await scheduler.submit(ME, make_plan(), {})
    assert (world.row(1).result, world.row(1).why) == ("stopped", "stopped by ann")
    assert world.row(2).state == "queued"


async def test_shutdown_without_runs_returns_at_once(
    world: World, autojump_clock: MockClock
) -> None:
    """Nothing to wait for."""
    async with scheduling(world) as scheduler:
        await scheduler.stop_all("soakd", None)


# -- crashes -----------------------------------------------------------------------------------


async def test_failing_run_takes_nobody_down(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends as our fault, the next one gets its slot, the traceback is in the log."""
    async with scheduling(world) as scheduler:

        def bug(*_args: object) -> None:
            raise ZeroDivisionError("a bug")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.host.store, "node_exited", bug)
            await scheduler.submit(ME, make_plan(duration_s=LONG), {})
            await until(lambda: world.row().state == "running")
            await world.shim.exit_node("b", code=1)
            await finished(scheduler, 1)
        await scheduler.submit(ME, make_plan(duration_s=10.0), {})
        await finished(scheduler, 2)
    assert world.row(1).verdict == "harness_error"
    assert world.row(2).verdict == "passed"


@pytest.mark.parametrize("left", [[0], [1 << 70], [-7], [2**31]])
async def test_shim_that_lies_about_leftovers_takes_nobody_down(
    world: World, autojump_clock: MockClock, left: list[int]
) -> None:
    """It is its user's program: no pid it may name breaks or blocks the daemon."""
    world.shim.left = left
    async with scheduling(world) as scheduler:
        await scheduler.submit(ME, make_plan(duration_s=10.0), {})
        await finished(scheduler, 1)
    assert world.row().state == "finished"


async def test_end_that_cannot_be_written_is_tried_again(
    world: World, autojump_clock: MockClock
) -> None:
    """The disk is full for a while: the run keeps its slot, soakd lives, the end is written."""
    store = world.host.store
    transition = store.transition
    full = True

    def sometimes(*args: Any, **columns: Any) -> None:
        if full and args[2] in ("finished", "stopping"):
            raise HostError("internal", "cannot write: disk full")
        transition(*args, **columns)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "transition", sometimes)
        async with scheduling(world) as scheduler:
            await scheduler.submit(ME, make_plan(duration_s=10.0), {})
            await trio.sleep(300)
            assert not scheduler.is_finished(1)
            full = False
            await finished(scheduler, 1)
    assert world.row().verdict == "harness_error"
    assert world.shim.process.returncode is not None


# -- takeover ----------------------------------------------------------------------------------


async def test_next_soakd_takes_over_live_and_queued_runs(
    world: World, autojump_clock: MockClock
) -> None:
    """Started means that all of them are settled."""
    async with scheduling(world) as scheduler:
        await scheduler.submit(ME, make_plan(duration_s=300.0), {})
        await scheduler.submit(ANN, make_plan(duration_s=10.0), {})
        await until(lambda: world.row().state == "running")
    async with scheduling(world) as scheduler:
        assert scheduler.counts() == {"running": 1, "queued": 1}
        assert (await scheduler.status(1, ME))["state"] == "running"
        assert (await scheduler.status(2, ANN))["reason"] == "slots"
        await finished(scheduler, 2)
    assert world.row(1).result == world.row(2).result == "completed"


async def test_runs_whose_driver_is_gone_fail_alone(
    world: World, autojump_clock: MockClock
) -> None:
    """Live or queued under a soakd that had it, they say what is missing; others go on."""
    async with scheduling(world) as scheduler:
        await scheduler.submit(ME, make_plan(duration_s=300.0), {})
        await until(lambda: world.row().state == "running")
    plan = json.loads(world.row().plan_json) | {"driver": "gone"}
    world.host.store.set_columns(1, plan_json=json.dumps(plan))
    add_run(world.host, make_plan(driver="gone"), owner=ANN)
    add_run(world.host, make_plan(duration_s=10.0), owner=BOB)
    async with scheduling(world) as scheduler:
        for run_id in (1, 2, 3):
            await finished(scheduler, run_id)
    assert [world.row(run_id).result for run_id in (1, 2, 3)] == ["failed", "failed", "completed"]
    for run_id in (1, 2):
        assert "driver: cannot use 'gone': there is no" in str(world.row(run_id).cause_json)


async def test_shims_that_do_not_answer_are_given_up_in_parallel(
    world: World, autojump_clock: MockClock
) -> None:
    """Ten silent shims cost one waiting time, not ten."""
    until_s = trio.current_time() + LONG
    running = {"state": "running", "since_s": 1.0, "deadline_s": until_s, "until_s": until_s}
    for _ in range(10):
        run_id = add_run(world.host, make_plan(duration_s=LONG))
        RunFolder.create(world.host.state_dir, run_id, UID, system=False).close()
        world.host.store.transition(
            run_id, "queued", "running", json.dumps(running), None, "x", at=1.0, started_at=1.0,
            shim_pid=SHIM_PID, shim_ticks=TICKS, shim_n=1, nonce="n", boot_id=boot_id(),
        )  # fmt: skip
    world.shim.reachable = False
    begun_s = trio.current_time()
    async with scheduling(world) as scheduler:
        assert trio.current_time() - begun_s < 12
        await until(lambda: scheduler.counts()["running"] == 0)
    assert {world.row(number).result for number in range(1, 11)} == {"failed"}


async def test_run_cut_off_before_its_folder_was_made_is_taken_over(
    world: World, autojump_clock: MockClock
) -> None:
    """soakd was killed between the slot and the first file."""
    run_id = add_run(world.host, make_plan(duration_s=10.0))
    state = json.dumps({"state": "staging", "until_s": trio.current_time() + 100})
    world.host.store.transition(run_id, "queued", "staging", state, None, "x", at=1.0, started_at=1)
    async with scheduling(world) as scheduler:
        await finished(scheduler, run_id)
    row = world.row(run_id)
    assert row.state == "finished"
    assert (row.result, row.verdict) == ("completed", "passed"), row.why


@pytest.mark.parametrize("made", ["", "logs"])
async def test_run_cut_off_while_its_folder_was_made_is_taken_over(
    world: World, autojump_clock: MockClock, made: str
) -> None:
    """A half-made folder stands in nobody's way."""
    run_id = add_run(world.host, make_plan(duration_s=10.0))
    state = json.dumps({"state": "staging", "until_s": trio.current_time() + 100})
    world.host.store.transition(run_id, "queued", "staging", state, None, "x", at=1.0, started_at=1)
    (world.folder(run_id) / made).mkdir(parents=True)
    async with scheduling(world) as scheduler:
        await finished(scheduler, run_id)
    assert world.row(run_id).state == "finished"


# -- what handlers ask -------------------------------------------------------------------------


async def test_runs_are_named_or_chosen(world: World, autojump_clock: MockClock) -> None:
    """`r7`, or one's own active or latest run."""
    async with scheduling(world) as scheduler:
        with pytest.raises(UserError, match="you have none; start one") as error:
            await scheduler.resolve(None, ANN)
        assert error.value.code == "no_such_run"
        await scheduler.submit(ANN, make_plan(duration_s=LONG), {})
        await scheduler.submit(BOB, make_plan(), {})
        await scheduler.submit(ANN, make_plan(), {})
        assert await scheduler.resolve(None, ANN) == 1
        assert await scheduler.resolve(None, BOB) == 2
        assert await scheduler.resolve("r3", BOB) == 3
        for name in ("r4", "4", "", "r4x", "r" + "9" * 30):
            with pytest.raises(UserError, match="cannot find run"):
                await scheduler.resolve(name, ANN)


async def test_only_owner_and_admin_see_and_may_everything(
    world: World, autojump_clock: MockClock
) -> None:
    """Others get the allow-list, in status and in lists."""
    async with scheduling(world) as scheduler:
        await scheduler.submit(ANN, make_plan(duration_s=LONG), {})
        await scheduler.submit(BOB, make_plan(), {})
        assert await scheduler.allowed(1, ANN)
        assert await scheduler.allowed(1, ME)
        assert not await scheduler.allowed(1, BOB)
        assert "nodes" in await scheduler.status(1, ANN)
        assert "nodes" in await scheduler.status(1, ME)
        seen = await scheduler.status(1, BOB)
        assert set(seen) == {
            "id", "owner", "label", "state", "created_at", "started_at", "ended_at", "reason",
        }  # fmt: skip
        mine = await scheduler.list_runs(ANN, all_runs=False)
        assert [item["id"] for item in mine] == ["r1"]
        everybody = await scheduler.list_runs(ANN, all_runs=True)
        assert [(item["id"], "nodes" in item) for item in everybody] == [
            ("r2", False),
            ("r1", True),
        ]
        assert everybody[0]["reason"] == "slots"
        with pytest.raises(UserError, match="cannot find run r9"):
            await scheduler.status(9, ME)


async def test_watch_tells_where_the_run_is_and_ends_with_it(
    world: World, autojump_clock: MockClock
) -> None:
    """A present status first, then what comes, `end` last."""
    async with scheduling(world) as scheduler:
        await scheduler.submit(ME, make_plan(duration_s=50.0), {})
        events = await watched(scheduler, 1, None)
    assert {"state", "progress", "rung", "end"} <= set(kinds(events))
    assert kinds(events)[-1] == "end"
    assert events[-1]["data"]["verdict"] == "passed"
    seen = [event["seq"] for event in events]
    assert seen == [*range(seen[0], seen[-1] + 1)]


async def test_watch_of_a_finished_run_is_its_end(world: World, autojump_clock: MockClock) -> None:
    """Also without memory of its events."""
    async with scheduling(world) as scheduler:
        await scheduler.submit(ME, make_plan(duration_s=10.0), {})
        await finished(scheduler, 1)
        [end] = await watched(scheduler, 1, None)
        assert (end["kind"], end["data"]["verdict"]) == ("end", "passed")
        with pytest.raises(UserError):
            await watched(scheduler, 7, None)


@pytest.mark.parametrize("after", [0, 1, 57])
async def test_watch_resumed_after_the_end_still_hears_it(
    world: World, autojump_clock: MockClock, after: int
) -> None:
    """A client that was away when the run ended gets its verdict, whatever number it knew."""
    async with scheduling(world) as scheduler:
        await scheduler.submit(ME, make_plan(duration_s=10.0), {})
        await finished(scheduler, 1)
        assert kinds(await watched(scheduler, 1, after))[-1:] == ["end"]


async def test_watch_of_a_queued_run_waits_for_it(world: World, autojump_clock: MockClock) -> None:
    """From the queue to the end in one stream."""
    async with scheduling(world) as scheduler:
        await scheduler.submit(ME, make_plan(duration_s=10.0), {})
        await scheduler.submit(ME, make_plan(duration_s=10.0), {})
        events = await watched(scheduler, 2, 0)
    states = [event["data"]["state"] for event in events if event["kind"] == "state"]
    assert states[0] == "staging"
    assert kinds(events)[-1] == "end"


async def test_leaving_soakd_ends_watches_without_an_end(
    world: World, autojump_clock: MockClock
) -> None:
    """The run goes on: nobody may take silence for a verdict."""
    heard: list[Event] = []
    async with trio.open_nursery() as nursery, scheduling(world) as scheduler:
        await scheduler.submit(ME, make_plan(duration_s=LONG), {})

        async def watch() -> None:
            heard.extend(await watched(scheduler, 1, 0))

        nursery.start_soon(watch)
        await trio.sleep(100)
    assert "end" not in kinds(heard)
    assert world.row().state == "running"


async def test_log_paths_stay_in_the_run_folder(world: World, autojump_clock: MockClock) -> None:
    """A node's name comes from a client."""
    scheduler = Scheduler(world.host)
    logs = world.folder(7) / "logs"
    assert scheduler.log_path(7, None) == logs / "runner.log"
    assert scheduler.log_path(7, "b") == logs / "b.out"
    for name in ("../../x", "a/b", "", ".", "a.b", "ä", "a\0"):
        with pytest.raises(UserError, match="no node has such a name"):
            scheduler.log_path(7, name)


async def test_collect_passes_the_status_and_the_wish_on(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is packed is decided elsewhere; a run that is not there cannot be."""
    given: list[Any] = []
    packed: Any = object()

    @asynccontextmanager
    async def pack(_host: Host, row: Any, status: Any, **wish: bool) -> AsyncIterator[Any]:
        await trio.lowlevel.checkpoint()
        given.append((row.id, status["state"], wish))
        yield packed

    monkeypatch.setattr("soakd.scheduler.open_run_bundle", pack)
    async with scheduling(world) as scheduler:
        await scheduler.submit(ME, make_plan(duration_s=LONG), {})
        await scheduler.submit(ME, make_plan(), {})
        for run_id in (1, 2):
            async with scheduler.collect(run_id, full=True, keep_destinations=False) as bundle:
                assert bundle is packed
        with pytest.raises(UserError):
            async with scheduler.collect(9, full=True, keep_destinations=False):
                pass
    assert [item[0] for item in given] == [1, 2]
    assert given[1] == (2, "queued", {"full": True, "keep_destinations": False})


async def test_stored_plans_are_those_submitted(world: World, autojump_clock: MockClock) -> None:
    """Frozen with the hashes that the client saw."""
    async with scheduling(world) as scheduler:
        peer = Peer(ANN.uid, ANN.gid, (), "ann", member=True, admin=False)
        await scheduler.submit(ME, make_plan(duration_s=LONG), {})
        await scheduler.submit(peer, make_plan(label="mine"), {"a": "ab" * 32})
    row = world.row(2)
    assert json.loads(row.sha256_json) == {"a": "ab" * 32}
    assert (json.loads(row.plan_json)["label"], row.owner_name) == ("mine", "ann")
    assert isinstance(world.folder(), Path)
