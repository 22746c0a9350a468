"""Acts on the queue: what they change, what they store, whom they refuse."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from soakd.core.errors import HostError, UserError
from soakd.edge import disk, ports
from soakd.edge.clock import boot_id
from soakd.edge.config import Config
from soakd.edge.pidfds import start_ticks
from soakd.edge.store import Store
from soakd.scheduler import Scheduler
from tests.run.kit import ANN, BOB, ME, World, add_run, make_plan, until

HOUR_S = 3600.0


@asynccontextmanager
async def scheduling(world: World, **settings: Any) -> AsyncIterator[Scheduler]:
    """A scheduler at work; leaving the block is soakd leaving."""
    config = Config(containment="evidence", **settings)
    object.__setattr__(world.host, "config", config)
    scheduler = Scheduler(world.host)
    async with trio.open_nursery() as nursery:
        await nursery.start(scheduler.run_forever)
        yield scheduler
        nursery.cancel_scope.cancel()


async def submit(scheduler: Scheduler, *plans: dict[str, Any]) -> list[dict[str, Any]]:
    """Submit plans, as ANN unless they say who."""
    answers = []
    for plan in plans:
        changes = dict(plan)
        peer = changes.pop("peer", ANN)
        answers.append(await scheduler.submit(peer, make_plan(**changes), {}))
    return answers


LONG: dict[str, Any] = {"duration_s": HOUR_S}


def audit(world: World, run_id: int | None) -> list[tuple[int | None, str]]:
    rows = world.host.store._db.execute(
        "SELECT uid, what FROM audit WHERE run_id IS ? ORDER BY id", (run_id,)
    )
    return [(uid, what) for uid, what in rows if "->" not in what and "created" not in what]


async def test_the_queue_shows_slots_then_places(world: World, autojump_clock: MockClock) -> None:
    """With times, hours, and what is promised; to everybody the same."""
    async with scheduling(world) as scheduler:
        await submit(scheduler, LONG, LONG | {"label": "x"}, LONG | {"peer": BOB})
        await trio.sleep(600)
        first, second, third = await scheduler.desk.entries()
        assert (first["id"], first["state"], first["position"]) == ("r1", "running", None)
        assert first["ends_by"] > first["started_at"]
        # BOB has not soaked yet, but ANN's run was promised the slot before he came.
        assert (second["id"], second["owner"], second["label"]) == ("r2", "ann", "x")
        assert (second["position"], second["reason"], second["promised"]) == (1, "slots", True)
        assert second["ends_by"] > second["expected_start"] >= first["ends_by"]
        assert (third["id"], third["promised"], third["soak_hours"]) == ("r3", False, 0.0)
        assert 0.1 < second["soak_hours"] == first["soak_hours"] < 0.2
        assert first.keys() == second.keys()
        status = await scheduler.status(2, ANN)
        assert status["expected_start"] == pytest.approx(second["expected_start"])


async def test_hold_release_and_top_are_stored_with_who_wanted_them(
    world: World, autojump_clock: MockClock
) -> None:
    """Twice is once; whoever loses a promise hears of it."""
    async with scheduling(world) as scheduler:
        await submit(scheduler, LONG, LONG, LONG)
        heard: list[dict[str, Any]] = []

        async def listen() -> None:
            async with scheduler.watch(2, None) as events:
                heard.extend([event async for event in events])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await trio.testing.wait_all_tasks_blocked()
            held = await scheduler.desk.hold(2, ANN)
            assert (held["reason"], held["position"], held["promised"]) == ("held", 2, False)
            await scheduler.desk.hold(2, ANN)
            assert world.row(2).held == 1
            assert (await scheduler.desk.release(2, ANN))["position"] == 2
            first = await scheduler.desk.top(2, ME)
            assert (first["position"], first["promised"]) == (1, True)
            await scheduler.stop(2, ANN)
        moved_event = next(event["data"] for event in heard if event["kind"] == "event")
        assert (moved_event["kind"], moved_event["data"]["why"]) == ("promise_moved", "held")
        await trio.sleep(1)
    acts = [(uid, what) for uid, what in audit(world, 2) if uid is not None]
    assert acts == [(ANN.uid, "hold"), (ANN.uid, "release"), (ME.uid, "put first")]
    (moved,) = [what for uid, what in audit(world, 2) if uid is None]
    assert moved.endswith("moved: held")
    assert world.row(2).priority == 1


async def test_only_queued_runs_can_be_held(world: World, autojump_clock: MockClock) -> None:
    """Nor those that are just being cancelled."""
    async with scheduling(world) as scheduler:
        await submit(scheduler, LONG, LONG)
        with pytest.raises(UserError, match="cannot hold r1: it is not in the queue any more"):
            await scheduler.desk.hold(1, ANN)
        scheduler.desk.cancelling.add(2)
        with pytest.raises(UserError, match="cannot put first r2"):
            await scheduler.desk.top(2, ME)
        assert await scheduler.desk.cancel(2, ANN) is False
        scheduler.desk.cancelling.clear()
        world.host.store._db.execute("UPDATE runs SET state = 'staging' WHERE id = 2")
        with pytest.raises(UserError, match="cannot hold r2: it is staging"):
            await scheduler.desk.hold(2, ANN)


async def test_a_running_run_is_extended(world: World, autojump_clock: MockClock) -> None:
    """Its deadline moves, its shim knows, its rounds go on; all of it is stored."""
    async with scheduling(world) as scheduler:
        await submit(scheduler, {"duration_s": 100.0})
        await until(lambda: "running" in world.row(1).state)
        before = json.loads(world.row(1).state_json)["deadline_s"]
        said = await scheduler.desk.extend(1, 900.0, ANN, dry_run=True)
        assert (said["applied"], said["longest_s"], said["effect"]) == (False, 900.0, [])
        done = await scheduler.desk.extend(1, 900.0, ANN, dry_run=False)
        assert (done["applied"], done["duration_s"]) == (True, 1000.0)
        assert json.loads(world.row(1).state_json)["deadline_s"] == before + 900.0
        assert json.loads(world.row(1).plan_json)["duration_s"] == 1000.0
        assert [call for call in world.shim.calls if call["verb"] == "latest_end"]
        status = await scheduler.status(1, ANN)
        assert 900 < status["remaining_s"] <= 1000.0
        assert status["duration_s"] == 1000.0
        await trio.sleep(500)
        assert world.row(1).state == "running"
        await until(lambda: world.row(1).state == "finished")
    row = world.row(1)
    assert (row.verdict, row.result) == ("passed", "completed")
    assert (row.ended_at or 0) - (row.started_at or 0) >= 1000
    assert any("extended by 900 s" in note for note in json.loads(row.measured_json or "")["notes"])


@pytest.mark.unmeasured
async def test_an_extension_never_moves_a_promise(world: World, autojump_clock: MockClock) -> None:
    """It is told whose, and how far it may go; with that it is made."""
    async with scheduling(world, max_duration_s=2 * HOUR_S) as scheduler:
        await submit(scheduler, LONG, LONG | {"peer": BOB})
        await until(lambda: world.row(1).state == "running")
        with pytest.raises(UserError, match=r"r2 was promised to start by .*; the longest") as said:
            await scheduler.desk.extend(1, HOUR_S, ANN, dry_run=False)
        details: dict[str, Any] = said.value.details
        longest_s = details["longest_s"]
        # Staging and start took less than they might have.
        assert 0 < longest_s < HOUR_S
        assert details["effect"][0]["id"] == "r2"
        assert json.loads(world.row(1).plan_json)["duration_s"] == HOUR_S
        await scheduler.desk.extend(1, longest_s, ANN, dry_run=False)
        with pytest.raises(UserError, match="no extension is possible"):
            await scheduler.desk.extend(1, 10.0, ANN, dry_run=False)
        with pytest.raises(UserError, match=r"max_duration_s; the longest .* is 3600 s"):
            await scheduler.desk.extend(2, 2 * HOUR_S, BOB, dry_run=False)
        await until(lambda: world.row(2).state != "queued")
    assert not [what for _, what in audit(world, 2) if "moved" in what]


async def test_a_queued_run_is_extended_in_its_place(
    world: World, autojump_clock: MockClock
) -> None:
    """Those behind it are told."""
    async with scheduling(world) as scheduler:
        await submit(scheduler, LONG, LONG, LONG)
        done = await scheduler.desk.extend(2, HOUR_S, ANN, dry_run=False)
        assert done["effect"] == [{"id": "r3", "delay_s": HOUR_S}]
        assert json.loads(world.row(2).plan_json)["duration_s"] == 2 * HOUR_S
        assert (await scheduler.status(2, ANN))["duration_s"] == 2 * HOUR_S
    assert audit(world, 2) == [(ANN.uid, "extend")]


async def test_what_has_no_deadline_or_is_over_cannot_be_extended(
    world: World, autojump_clock: MockClock
) -> None:
    """Each with the way out."""
    async with scheduling(world) as scheduler:
        await submit(scheduler, {"duration_s": None, "rounds": 1000}, LONG)
        with pytest.raises(UserError, match="it has no deadline, its number of rounds ends it"):
            await scheduler.desk.extend(1, 60.0, ANN, dry_run=True)
        run = scheduler._live[1]
        with pytest.raises(UserError, match="it has no deadline"):
            await run.extend(60.0, ANN.uid)
        await scheduler.stop(2, ANN)
        with pytest.raises(UserError, match="it is finished; start it again"):
            await scheduler.desk.extend(2, 60.0, ANN, dry_run=False)
        scheduler._waiting.reserved[1] = 1.0
        with pytest.raises(UserError, match="it is being extended; ask again"):
            await scheduler.desk.extend(1, 60.0, ANN, dry_run=False)


async def test_a_run_that_begins_to_stop_meanwhile_is_not_extended(
    world: World, autojump_clock: MockClock
) -> None:
    """Whoever asked is told so; a lost shim as well."""
    async with scheduling(world) as scheduler:
        await submit(scheduler, LONG)
        await until(lambda: world.row(1).state == "running")
        run = scheduler._live[1]
        world.shim.refuse["latest_end"] = "cannot move the latest end"
        with pytest.raises(UserError, match="cannot move the latest end"):
            await scheduler.desk.extend(1, 60.0, ANN, dry_run=False)
        assert scheduler._waiting.reserved == {}
        await run.ask_stop("ann", ANN.uid)
        with pytest.raises(UserError, match="it is stopping"):
            await scheduler.desk.extend(1, 60.0, ANN, dry_run=False)


async def test_a_label_is_changed_in_every_state(world: World, autojump_clock: MockClock) -> None:
    """Of what is no label nothing is stored."""
    async with scheduling(world) as scheduler:
        await submit(scheduler, LONG, LONG)
        for run_id in (1, 2):
            await scheduler.desk.label(run_id, ANN, "night")
            assert (await scheduler.status(run_id, ANN))["label"] == "night"
        with pytest.raises(UserError, match="label"):
            await scheduler.desk.label(1, ANN, "a\nb")
        assert (await scheduler.desk.label(1, ANN, None)) == {"id": "r1", "label": None}
    assert audit(world, 1) == [(ANN.uid, "label"), (ANN.uid, "label")]
    assert world.row(2).label == "night"


async def test_drain_promise_hold_and_priority_outlive_soakd(
    world: World, autojump_clock: MockClock
) -> None:
    """What another boot has promised does not."""
    async with scheduling(world) as scheduler:
        await submit(scheduler, LONG, LONG, LONG, LONG)
        await scheduler.desk.hold(3, ANN)
        await scheduler.desk.top(4, ME)
        before = (await scheduler.status(4, ANN))["expected_start"]
    async with scheduling(world) as scheduler:
        entries = {entry["id"]: entry for entry in await scheduler.desk.entries()}
        assert entries["r3"]["reason"] == "held"
        assert entries["r4"]["promised"]
        assert entries["r4"]["expected_start"][:16] == before[:16]
        drained = await scheduler.desk.drain(ME, is_draining=True)
        assert drained == {"draining": True, "running": 1, "queued": 3}
        assert (await scheduler.status(2, ANN))["reason"] == "drain"
        await scheduler.desk.drain(ME, is_draining=True)
    async with scheduling(world) as scheduler:
        assert scheduler.is_draining
        await scheduler.desk.drain(ME, is_draining=False)
        assert (await scheduler.status(4, ANN))["promised"]
        known = json.loads(world.host.store.fact("promise") or "")
    assert known["run"] == 4
    assert known["boot_id"] == boot_id()
    assert audit(world, None) == [(ME.uid, "drain"), (ME.uid, "resume")]
    world.host.store.put_fact("promise", json.dumps(known | {"boot_id": "another"}))
    async with scheduling(world) as scheduler:
        assert (await scheduler.status(4, ANN))["promised"]
    assert not any("soakd was not there" in what for _, what in audit(world, 4))


async def test_a_user_is_refused_what_is_too_much(world: World, autojump_clock: MockClock) -> None:
    """Others are not; refused ones do not count."""
    limits = {"queued_per_user": 1, "submissions_per_minute": 3, "max_duration_s": HOUR_S}
    async with scheduling(world, **limits) as scheduler:
        await submit(scheduler, LONG, LONG)
        with pytest.raises(UserError, match="queued_per_user is 1"):
            await submit(scheduler, LONG)
        await scheduler.stop(2, ANN)
        await submit(scheduler, LONG)
        await scheduler.stop(3, ANN)
        with pytest.raises(UserError, match="submissions_per_minute is 3"):
            await submit(scheduler, LONG)
        await submit(scheduler, LONG | {"peer": BOB})
        with pytest.raises(UserError, match="max_duration_s"):
            await submit(scheduler, {"duration_s": HOUR_S + 1, "peer": BOB})
        await trio.sleep(61)
        await submit(scheduler, LONG)


async def test_a_full_disk_refuses_and_a_filling_one_lets_wait(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at again now and then, since nobody says when space is free."""
    free = [10**9]
    monkeypatch.setattr(disk, "free_bytes", lambda _folder: free[0])
    settings = {"max_running": 2, "running_per_user": 2, "node_disk_bytes_per_hour": 10**8}
    async with scheduling(world, **settings) as scheduler:
        (started,) = await submit(scheduler, LONG)
        free[0] = 4 * 10**8
        (waiting,) = await submit(scheduler, LONG)
        assert started["state"] != "queued"
        assert (waiting["reason"], waiting["expected_start"]) == ("disk forecast", None)
        with pytest.raises(UserError, match="it may write .* MB, and 400 MB are free"):
            await submit(scheduler, {"duration_s": 10 * HOUR_S})
        free[0] = 10**9
        await trio.sleep(31)
        assert (await scheduler.status(2, ANN))["state"] != "queued"


@pytest.mark.unmeasured
async def test_runs_of_this_host_tell_what_a_node_writes(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dearest of the latest, once they took an hour; known after a restart as well."""
    monkeypatch.setattr("soakd.records.Records.used_bytes", lambda _self: 7_200_000)
    async with scheduling(world) as scheduler:
        assert scheduler._waiting._rates == []
        await submit(scheduler, {"duration_s": 2 * HOUR_S}, {"duration_s": 60.0})
        await until(lambda: world.row(2).state == "finished")
        (rate,) = scheduler._waiting._rates
        assert 1_500_000 < rate < 1_800_000
    async with scheduling(world) as scheduler:
        assert scheduler._waiting._rates == pytest.approx([rate], rel=0.01)


async def test_auto_ports_are_taken_from_the_range_and_stored(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without those in which a stranger listens."""
    monkeypatch.setattr(ports, "check_free", lambda port: "nc" if port == 28000 else None)
    settings = {"max_running": 2, "running_per_user": 2, "auto_ports": "28000-28003"}
    async with scheduling(world, **settings) as scheduler:
        await submit(scheduler, LONG | {"ports": "auto"}, LONG | {"ports": "auto"})
        await until(lambda: world.row(1).state == "running")
        nodes = json.loads(world.row(1).plan_json)["nodes"]
        assert [node["port"] for node in nodes] == [28001, 28002]
        assert (await scheduler.status(2, ANN))["reason"] == "auto ports all leased"
        leased = {row.key for row in world.host.store.leases() if row.kind == "port"}
        assert leased == {"28001", "28002"}
        await scheduler.stop(1, ANN)
        await until(lambda: world.row(2).state == "running")


async def test_a_store_that_fails_keeps_the_promise_in_memory(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    """And has it as soon as it works again."""
    async with scheduling(world) as scheduler:
        await submit(scheduler, LONG)
        put_fact = store.put_fact

        def refuse(*_: object) -> None:
            raise HostError("internal", "cannot write: disk full")

        monkeypatch.setattr(store, "put_fact", refuse)
        with pytest.raises(HostError, match="disk full"):
            await submit(scheduler, LONG)
        assert (await scheduler.status(2, ANN))["promised"]
        monkeypatch.setattr(store, "put_fact", put_fact)
        await trio.sleep(120)
        assert json.loads(store.fact("promise") or "")["run"] == 2


async def test_a_blocked_run_of_an_earlier_soakd_is_in_the_queue(
    world: World, autojump_clock: MockClock
) -> None:
    """It holds its slot; nobody can say for how long."""
    run_id = add_run(world.host, make_plan(), owner=BOB)
    store = world.host.store
    store._db.execute("UPDATE runs SET state = 'finished', started_at = 1.0 WHERE id = 1")
    # A process that is sure to live: nobody signals what is only waited for.
    pid = os.getpid()
    store.lease("blocked", f"{boot_id()}:{pid}:{start_ticks(pid)}", run_id)
    async with scheduling(world) as scheduler:
        await submit(scheduler, LONG)
        blocked, waiting = await scheduler.desk.entries()
        assert (blocked["id"], blocked["state"], blocked["ends_by"]) == ("r1", "finished", None)
        assert waiting["reason"] == f"blocked lease pid {pid} of r1"


@pytest.mark.unmeasured
async def test_who_soaked_least_goes_first_behind_the_promise(
    world: World, autojump_clock: MockClock
) -> None:
    """BOB comes last, and starts before the third run of ANN; the hours outlive soakd."""
    soak = {"duration_s": 900.0}
    async with scheduling(world) as scheduler:
        await submit(scheduler, soak, soak, soak)
        await trio.sleep(600)
        (late,) = await submit(scheduler, soak | {"peer": BOB})
        assert late["position"] == 2
    async with scheduling(world) as scheduler:
        order = [entry["id"] for entry in await scheduler.desk.entries()]
        assert order == ["r1", "r2", "r4", "r3"]
        await until(lambda: world.row(3).state != "queued")
    assert (world.row(4).started_at or 0) < (world.row(3).started_at or 0)
