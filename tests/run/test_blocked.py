"""Blocked leases: slot and ports stay a run's while a process of it is left.

The processes that are left are real ones; what could not kill them is the fake shim.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from soakd import leases
from soakd.core.errors import HostError, UserError
from soakd.crew import Crew
from soakd.edge.clock import boot_id
from soakd.edge.pidfds import start_ticks
from soakd.scheduler import Scheduler
from tests.run.kit import (
    ANN,
    ME,
    World,
    add_run,
    leftover,
    make_plan,
    until,
)
from tests.run.test_scheduler import LONG, finished, scheduling, slots

Child = subprocess.Popen[bytes]


def kinds_of(world: World, run_id: int) -> list[str]:
    """The kinds of the leases that a run has in the store."""
    return [row.kind for row in world.host.store.leases() if row.run_id == run_id]


HELD = ["blocked", "port", "port", "session", "session", "slot"]


async def block(world: World, scheduler: Scheduler) -> None:
    """Run r1 to its end, which leaves something."""
    await scheduler.submit(ME, make_plan(duration_s=10.0), {})
    await until(lambda: world.row().state == "finished")
    await until(lambda: scheduler.is_finished(1))


def end(world: World, child: Child) -> None:
    """What was left is gone; the runs that come now leave nothing."""
    world.shim.left = []
    child.kill()


def add_finished(world: World, *held: tuple[str, str]) -> int:
    """Put a finished run with leases into the store."""
    run_id = add_run(world.host, make_plan())
    store = world.host.store
    state = {
        "state": "finished", "result": "stopped", "cause": None, "verdict": "aborted", "why": "x",
    }  # fmt: skip
    store.transition(
        run_id, "queued", "finished", json.dumps(state), None, "x", at=1.0, result="stopped",
        verdict="aborted", why="x", ended_at=1.0,
    )  # fmt: skip
    store.lease_all(held, run_id)
    return run_id


# -- while soakd lives -------------------------------------------------------------------------


async def test_what_is_left_keeps_the_slot_and_says_so(
    world: World, autojump_clock: MockClock
) -> None:
    """The run is over, with its pids in the reason of those behind it; gone, all is as always."""
    with leftover(world) as child:
        async with scheduling(world) as scheduler:
            await block(world, scheduler)
            answer = await scheduler.submit(ANN, make_plan(duration_s=10.0), {})
            assert answer["reason"] == f"blocked lease pid {child.pid} of r1"
            assert scheduler.counts() == {"running": 1, "queued": 1}
            assert kinds_of(world, 1) == HELD
            status = await scheduler.status(1, ME)
            assert (status["state"], status["verdict"]) == ("finished", "passed")
            assert status["rung"] == {"rung": "blocked", "pids": [child.pid]}
            assert "soakctl forget r1" in status["notes"][-1]
            assert (await scheduler.list_runs(ME, all_runs=False))[0]["rung"] == status["rung"]
            await trio.sleep(100)
            assert world.row(2).state == "queued"
            end(world, child)
            await finished(scheduler, 2)
            after = await scheduler.status(1, ME)
    assert (after["rung"], after["notes"]) == (None, [])
    assert world.row(2).verdict == "passed"
    assert world.host.store.leases() == []


async def test_what_is_left_keeps_its_ports_where_slots_are_free(
    world: World, autojump_clock: MockClock
) -> None:
    """The reason is the process, not only the run; others start."""
    slots(world, 3)
    plan = make_plan(duration_s=10.0)
    with leftover(world) as child:
        async with scheduling(world) as scheduler:
            await scheduler.submit(ME, plan, {})
            await until(lambda: scheduler.is_finished(1))
            answer = await scheduler.submit(ME, plan, {})
            assert answer["reason"] == f"blocked lease pid {child.pid} of r1"
            end(world, child)
            await finished(scheduler, 2)


async def test_nothing_is_left_of_an_ordinary_run(world: World, autojump_clock: MockClock) -> None:
    """Its leases begin with its slot and end with it, in the same transactions."""
    async with scheduling(world) as scheduler:
        await scheduler.submit(ME, make_plan(duration_s=LONG), {})
        assert kinds_of(world, 1) == HELD[1:]
        await scheduler.stop(1, ME)
        await until(lambda: world.row().state == "finished")
        assert world.host.store.leases() == []


async def test_shutdown_does_not_wait_for_what_is_left(
    world: World, autojump_clock: MockClock
) -> None:
    """It may last for ever; the store knows it."""
    with leftover(world), trio.fail_after(1000):
        async with scheduling(world) as scheduler:
            await block(world, scheduler)
            await scheduler.stop_all("ann", 4001)
    assert kinds_of(world, 1) == HELD


async def test_crashed_run_is_blocked_as_well(world: World, autojump_clock: MockClock) -> None:
    """By what force could not end."""
    with leftover(world) as child:
        ticks = start_ticks(child.pid)
        assert ticks is not None

        async def put_down(_crew: Crew, **_how: bool) -> list[tuple[int, int]]:
            await trio.lowlevel.checkpoint()
            return [(child.pid, ticks)]

        def bug(*_args: object) -> None:
            raise ZeroDivisionError("a bug")

        async with scheduling(world) as scheduler:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Crew, "put_down", put_down)
                patch.setattr(world.host.store, "node_exited", bug)
                await scheduler.submit(ME, make_plan(duration_s=LONG), {})
                await until(lambda: world.row().state == "running")
                await world.shim.exit_node("b", code=1)
                await until(lambda: scheduler.is_finished(1))
            assert world.row().verdict == "harness_error"
            assert kinds_of(world, 1) == HELD
            assert (await scheduler.status(1, ME))["rung"]["pids"] == [child.pid]
            end(world, child)
            await until(lambda: world.host.store.leases() == [])


async def test_what_comes_to_light_later_is_waited_for_too(
    world: World, autojump_clock: MockClock
) -> None:
    """Such as the shim itself, which does not end either: written down, shown, waited for."""
    end_shim = Crew.end_shim
    with leftover(world) as first, subprocess.Popen(["sleep", "1000"]) as second:
        try:
            ticks = start_ticks(second.pid)
            assert ticks is not None
            more = [[(second.pid, ticks)]]

            async def late(crew: Crew) -> list[tuple[int, int]]:
                return more.pop() if more else await end_shim(crew)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Crew, "end_shim", late)
                async with scheduling(world) as scheduler:
                    await block(world, scheduler)
                    answer = await scheduler.submit(ME, make_plan(duration_s=10.0), {})
                    assert answer["reason"] == f"blocked lease pid {first.pid} of r1"
                    end(world, first)
                    reason = f"blocked lease pid {second.pid} of r1"
                    status: dict[str, Any] = {}
                    while status.get("reason") != reason:
                        await trio.sleep(1)
                        status = await scheduler.status(2, ME)
                    assert kinds_of(world, 1) == ["blocked", *HELD]
                    second.kill()
                    await finished(scheduler, 2)
        finally:
            second.kill()
    assert world.host.store.leases() == []


async def test_store_that_refuses_to_end_a_lease_is_asked_again(
    world: World, autojump_clock: MockClock
) -> None:
    """Until it is written the slot is held: soakd lives, and no lease is lost or doubled."""
    release = world.host.store.release
    refusals = [HostError("internal", "cannot write: disk full")] * 3

    def sometimes(run_id: int) -> None:
        if refusals:
            raise refusals.pop()
        release(run_id)

    with leftover(world) as child, pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.host.store, "release", sometimes)
        async with scheduling(world) as scheduler:
            await block(world, scheduler)
            await scheduler.submit(ME, make_plan(duration_s=10.0), {})
            end(world, child)
            await until(lambda: not refusals)
            assert world.row(2).state == "queued"
            await finished(scheduler, 2)


async def test_records_that_are_gone_keep_no_slot(world: World, autojump_clock: MockClock) -> None:
    """Somebody has removed the run's folder meanwhile."""
    with leftover(world) as child:
        async with scheduling(world) as scheduler:
            await block(world, scheduler)
            assert (world.folder() / "logs").rename(world.folder() / "elsewhere").exists()
            world.folder().rename(world.folder(99))
            end(world, child)
            await until(lambda: scheduler.counts()["running"] == 0)
    assert world.host.store.leases() == []


async def test_node_that_was_left_is_gone_in_the_end(
    world: World, autojump_clock: MockClock
) -> None:
    """Its end was not seen: exited, with neither code nor signal, and no pid file."""
    with leftover(world) as child:
        async with scheduling(world) as scheduler:
            await scheduler.submit(ME, make_plan(duration_s=LONG), {})
            await until(lambda: world.row().state == "running")
            ticks = start_ticks(child.pid)
            assert ticks is not None
            await scheduler.stop(1, ME)
            await until(lambda: scheduler.is_finished(1))
            world.host.store.put_node(1, "a", child.pid, ticks)
            (world.folder() / "logs/a.pid").write_text(f"{child.pid}\n")
            end(world, child)
            await until(lambda: world.host.store.leases() == [])
            node = (await scheduler.status(1, ME))["nodes"][0]
    assert (node["state"], node["exit"]) == ("exited", {"code": None, "signal": None})
    assert not (world.folder() / "logs/a.pid").exists()


# -- over a restart of soakd -------------------------------------------------------------------


async def test_next_soakd_still_holds_what_is_blocked(
    world: World, autojump_clock: MockClock
) -> None:
    """However the last one ended; the shim is ended by it, though not its child."""
    with leftover(world) as child:
        async with scheduling(world) as scheduler:
            await block(world, scheduler)
            await scheduler.submit(ME, make_plan(duration_s=10.0), {})
        async with scheduling(world) as scheduler:
            assert scheduler.counts() == {"running": 1, "queued": 1}
            reason = f"blocked lease pid {child.pid} of r1"
            assert (await scheduler.status(2, ME))["reason"] == reason
            assert (await scheduler.status(1, ME))["rung"]["pids"] == [child.pid]
            assert kinds_of(world, 1) == HELD
            assert world.shim.process.returncode is None
            end(world, child)
            await finished(scheduler, 2)
    assert world.row(2).verdict == "passed"
    assert world.host.store.leases() == []


async def test_what_ended_while_soakd_was_away_holds_nothing(
    world: World, autojump_clock: MockClock
) -> None:
    """Found out at the start; the shim that has held it is ended."""
    with leftover(world) as child:
        async with scheduling(world) as scheduler:
            await block(world, scheduler)
        end(world, child)
        child.wait()
    async with scheduling(world) as scheduler:
        await until(lambda: scheduler.counts()["running"] == 0)
        assert (await scheduler.status(1, ME))["rung"] is None
    assert world.host.store.leases() == []
    assert world.shim.process.returncode == 0


async def test_another_boot_has_ended_everything(world: World, autojump_clock: MockClock) -> None:
    """The pid may live again, as somebody else."""
    with leftover(world) as child:
        key = f"another-boot:{child.pid}:{start_ticks(child.pid)}"
        run_id = add_finished(world, ("slot", "r1"), ("port", "17835"), ("blocked", key))
        async with scheduling(world) as scheduler:
            await until(lambda: scheduler.counts()["running"] == 0)
            assert (await scheduler.status(run_id, ME))["rung"] is None
        assert child.poll() is None
    assert world.host.store.leases() == []


async def test_leases_of_a_finished_run_with_nothing_left_are_ended(
    world: World, autojump_clock: MockClock
) -> None:
    """Nobody would ever end them; those of runs that wait or live are kept."""
    stale = add_finished(world, ("slot", "r1"), ("port", "17835"))
    async with scheduling(world) as scheduler:
        await scheduler.submit(ME, make_plan(duration_s=LONG), {})
        assert kinds_of(world, stale) == []
    async with scheduling(world):
        assert kinds_of(world, 2) == HELD[1:]


async def test_run_of_a_release_without_leases_gets_them_when_it_is_taken_over(
    world: World, autojump_clock: MockClock
) -> None:
    """0.1.0 wrote none."""
    async with scheduling(world) as scheduler:
        await scheduler.submit(ME, make_plan(duration_s=LONG), {})
        await until(lambda: world.row().state == "running")
    world.host.store.release(1)
    async with scheduling(world):
        assert kinds_of(world, 1) == HELD[1:]


# -- forget ------------------------------------------------------------------------------------


async def test_forgotten_run_holds_nothing_any_more(
    world: World, autojump_clock: MockClock
) -> None:
    """Slot and ports are free at once, the audit log says who; clean-up still comes."""
    with leftover(world) as child:
        async with scheduling(world) as scheduler:
            await block(world, scheduler)
            assert await scheduler.forget(1, ME) == {"id": "r1", "pids": [child.pid]}
            assert scheduler.counts() == {"running": 0, "queued": 0}
            status = await scheduler.status(1, ME)
            assert (status["rung"], status["notes"]) == (None, [])
            assert kinds_of(world, 1) == ["forgotten"]
            entry = world.host.store.audit(1)[-1]
            assert (entry.uid, entry.what) == (ME.uid, "forgot the blocked lease")
            assert json.loads(entry.detail_json) == {"pids": [child.pid]}
            with pytest.raises(UserError, match="no process of it is left"):
                await scheduler.forget(1, ME)
        async with scheduling(world) as scheduler:
            assert scheduler.counts() == {"running": 0, "queued": 0}
            assert kinds_of(world, 1) == ["forgotten"]
            assert world.shim.process.returncode is None
            end(world, child)
            await until(lambda: world.host.store.leases() == [])
    assert world.shim.process.returncode == 0


async def test_run_without_a_blocked_lease_cannot_be_forgotten(
    world: World, autojump_clock: MockClock
) -> None:
    """Each with the reason, and with what to do."""
    async with scheduling(world) as scheduler:
        await scheduler.submit(ME, make_plan(duration_s=LONG), {})
        await scheduler.submit(ME, make_plan(), {})
        await until(lambda: world.row().state == "running")
        refused: list[tuple[int, str]] = [
            (1, "cannot forget r1: it is running; stop it with `soakctl stop r1` first"),
            (2, "cannot forget r2: it is queued; stop it with `soakctl stop r2` first"),
        ]
        for run_id, text in refused:
            with pytest.raises(UserError) as error:
                await scheduler.forget(run_id, ME)
            assert (error.value.code, error.value.message) == ("refused", text)
        await scheduler.stop(2, ME)
        with pytest.raises(UserError, match="there is nothing to do"):
            await scheduler.forget(2, ME)
        with pytest.raises(UserError, match="cannot find run r9"):
            await scheduler.forget(9, ME)


async def test_forget_right_after_the_end_waits_until_the_run_is_put_away(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has just read `soakctl forget r1` may type fast."""
    close = Crew.close

    async def slow(crew: Crew) -> None:
        await trio.sleep(1)
        await close(crew)

    with leftover(world) as child:
        async with scheduling(world) as scheduler:
            await scheduler.submit(ME, make_plan(duration_s=10.0), {})
            monkeypatch.setattr(Crew, "close", slow)
            await until(lambda: world.row().state == "finished")
            assert not scheduler.is_finished(1)
            assert (await scheduler.forget(1, ME))["pids"] == [child.pid]
            end(world, child)
            await until(lambda: world.host.store.leases() == [])


# -- what two runs must not share --------------------------------------------------------------


async def test_run_that_cannot_have_its_leases_is_not_started(
    world: World, autojump_clock: MockClock
) -> None:
    """The queue should have seen it: it ends before anything is touched, naming the holder."""
    plan = make_plan()
    async with scheduling(world) as scheduler:
        other = add_run(world.host, make_plan())
        world.host.store.lease("port", str(plan.nodes[1].port), other)
        await scheduler.submit(ME, plan, {})
        await finished(scheduler, 2)
    row = world.row(2)
    cause = json.loads(row.cause_json or "")
    assert (row.result, row.verdict, row.started_at) == ("failed", "harness_error", None)
    assert f"port {plan.nodes[1].port} is leased by r1; wait for the end of r1" in cause["text"]
    assert world.shim.spawned_n == []
    assert kinds_of(world, 2) == []


KEYS = b"PUB=abc\nPRIV=abcdef\n"


def give_keys(world: World, plan: Any) -> None:
    """Node b's folder has an identity."""
    world.shim.sources[plan.nodes[1].source] = {
        "rust-mule": b"program",
        "config.toml": b"[api]\nport = 1\n",
        "data/sam.keys": KEYS,
    }


@pytest.mark.parametrize("fresh", [False, True])
async def test_identity_that_a_node_keeps_is_leased(
    world: World, autojump_clock: MockClock, *, fresh: bool
) -> None:
    """By what is in its key file; nodes that make a new one need no lease."""
    plan = make_plan(duration_s=LONG, fresh_identity=fresh)
    give_keys(world, plan)
    async with scheduling(world) as scheduler:
        await scheduler.submit(ME, plan, {})
        await until(lambda: world.row().state == "running")
        assert ("identity" in kinds_of(world, 1)) is not fresh
        await scheduler.stop(1, ME)
        await finished(scheduler, 1)
    assert world.host.store.leases() == []
    assert world.row().result == "stopped"


async def test_identity_of_another_run_fails_the_staging(
    world: World, autojump_clock: MockClock
) -> None:
    """Two nodes of one destination destroy each other's session: the second never starts."""
    plan = make_plan(fresh_identity=False)
    give_keys(world, plan)
    async with scheduling(world) as scheduler:
        other = add_run(world.host, make_plan())
        world.host.store.lease(*leases.identity(KEYS), other)
        await scheduler.submit(ME, plan, {})
        await finished(scheduler, 2)
    cause = json.loads(world.row(2).cause_json or "")
    assert (cause["code"], cause["node"]) == ("identity_leased", "b")
    assert cause["text"] == (
        "cannot start node b with the identity in /dist/mule-b: r1 uses it; wait for the end of r1,"
        " or use SOAK_FRESH_IDENTITY=1"
    )
    assert "launch" not in world.shim.verbs()
    assert kinds_of(world, 2) == []


async def test_pids_of_a_blocked_run_are_those_that_still_live(
    world: World, autojump_clock: MockClock
) -> None:
    """One by one they go."""
    with leftover(world) as first, subprocess.Popen(["sleep", "1000"]) as second:
        try:
            left = [(child.pid, start_ticks(child.pid) or 0) for child in (first, second)]
            run_id = add_finished(
                world, *(("blocked", f"{boot_id()}:{pid}:{ticks}") for pid, ticks in left)
            )
            async with scheduling(world) as scheduler:
                both = sorted((first.pid, second.pid))
                assert (await scheduler.status(run_id, ME))["rung"]["pids"] == both
                end(world, first)
                rung = None
                while rung != {"rung": "blocked", "pids": [second.pid]}:
                    await trio.sleep(1)
                    rung = (await scheduler.status(run_id, ME))["rung"]
        finally:
            second.kill()
