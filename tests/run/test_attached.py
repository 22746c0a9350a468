"""A run on nodes that somebody else runs: measured, never started, stopped or touched."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from soakd.core.errors import HostError, NodeError
from soakd.core.readiness import Forbidden403, NoToken, Refused
from soakd.run import Run
from tests.run.kit import (
    BOB,
    UID,
    World,
    add_run,
    hold,
    make_attached_plan,
    make_plan,
    state_reached,
    until,
)


async def test_attached_run_asks_its_shim_for_nothing_but_tokens(
    world: World, autojump_clock: MockClock
) -> None:
    """No folder is staged, nothing launched, and the ladder finds nothing to stop."""
    run = world.new_run(make_attached_plan(duration_s=None, rounds=2))
    await hold(run)
    assert (world.row().result, world.row().verdict) == ("completed", "passed")
    assert world.shim.verbs() == ["begin", "stop", "end"]
    assert world.shim.params("begin")["token_files"] == {
        name: f"/home/ann/{name}/api.token" for name in "ab"
    }
    assert world.host.store.nodes(1) == []
    assert world.host.store.leases() == []
    assert all(node.closed for node in world.nodes.values())
    names = {path.name for path in (world.folder() / "logs").iterdir()}
    assert not names & {"a.out", "b.out", "a.pid", "b.pid"}


async def test_records_say_where_the_nodes_are_and_nothing_of_a_stop(
    world: World, autojump_clock: MockClock
) -> None:
    """`attached` in place of `started`; plan.json names the addresses and who was met."""
    plan = make_attached_plan(duration_s=None, rounds=1)
    plan = replace(plan, nodes=(plan.nodes[0], replace(plan.nodes[1], host="::1")))
    world.net.listeners["b"] = 0
    await hold(world.new_run(plan))
    a, b = (node.port for node in plan.nodes)
    log = [line.split(" ", 1)[1] for line in world.text("logs/runner.log").splitlines()]
    assert log[0] == f"attached A url=http://127.0.0.1:{a} B url=http://[::1]:{b}"
    assert log[-1] == "soak-finished rounds=1"
    written = json.loads(world.text("plan.json"))
    assert written["base_urls"] == {"a": f"http://127.0.0.1:{a}", "b": f"http://[::1]:{b}"}
    assert written["listeners"] == {"a": UID, "b": 0}
    assert (written["config"], written["edits"]) == ({}, [])
    gates = [gate["gate"] for gate in json.loads(world.text("run.json"))["gates"]]
    assert gates == ["rounds >= 1", "errors <= 5%", "measured >= 90%"]


async def test_status_shows_attached_nodes_without_pids(
    world: World, autojump_clock: MockClock
) -> None:
    """While it measures, and when it is over."""
    run = world.new_run(make_attached_plan(duration_s=100.0))
    shown: list[Any] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, run)
        await state_reached(run, "running")
        shown += run.status()["nodes"]
        await state_reached(run, "finished")
    shown += run.status()["nodes"]
    assert [(node["state"], node["pid"], node["exit"]) for node in shown] == [
        ("attached", None, None)
    ] * 4


async def test_tokens_of_attached_nodes_are_remembered(
    world: World, autojump_clock: MockClock
) -> None:
    """No bundle may hold them."""
    await hold(world.new_run(make_attached_plan(duration_s=None, rounds=1)))
    assert {secret.value for secret in world.host.store.secrets(1)} == {
        "token-of-a",
        "token-of-b",
    }


async def test_token_is_read_through_the_shim_whenever_it_is_wanted(
    world: World, autojump_clock: MockClock
) -> None:
    """It may be another one by then; a file that cannot be read is the node's trouble."""
    run = world.new_run(make_attached_plan(duration_s=5000.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, run)
        await state_reached(run, "running")
        read = world.nodes["a"].read_file
        assert read is not None
        assert await read("") == b"token-of-a-1234\n"
        del world.shim.files["a", "the token"]
        with pytest.raises(NodeError, match="no such file"):
            await read("")
        world.shim.files["a", "the token"] = b""
        world.shim.odd["read_token"] = {"data": "no base64!"}
        with pytest.raises(HostError, match="the shim is lost .*makes no sense"):
            await read("")
        await run.ask_stop("ann", UID)


async def test_stop_of_an_attached_run_ends_measuring_and_shim(
    world: World, autojump_clock: MockClock
) -> None:
    """The round under way is cut; nothing is said of the nodes' end."""
    run = world.new_run(make_attached_plan(duration_s=5000.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, run)
        await state_reached(run, "running")
        await run.ask_stop("ann", UID)
    assert world.row().result == "stopped"
    assert "node_exited" not in world.events()
    assert "node stop requested" not in world.text("logs/runner.log")
    assert world.shim.process.returncode == 0


async def test_wrong_token_file_is_named(world: World, autojump_clock: MockClock) -> None:
    """After six answers, not after twenty minutes."""
    world.net.answers["b"] = [Forbidden403()] * 60
    await hold(world.new_run(make_attached_plan()))
    cause = json.loads(world.row().cause_json or "")
    assert (cause["code"], cause["node"]) == ("wrong_token", "b")
    assert "token file" in cause["text"]


async def test_token_file_without_a_token_is_named_as_soon(
    world: World, autojump_clock: MockClock
) -> None:
    """It was said in runner.log alone, until READY_TIMEOUT_SECS had passed."""
    text = "cannot use the API token of node b: 0 odd bytes"
    world.net.answers["b"] = [NoToken(text)] * 1000
    began_s = trio.current_time()
    await hold(world.new_run(make_attached_plan()))
    cause = json.loads(world.row().cause_json or "")
    assert (cause["code"], cause["node"]) == ("no_token", "b")
    assert cause["text"].startswith(text)
    assert trio.current_time() - began_s < 60


async def test_attached_node_that_goes_away_makes_errors_not_exits(
    world: World, autojump_clock: MockClock
) -> None:
    """Whether its process has ended is not known here: its API is dead."""
    run = world.new_run(make_attached_plan(duration_s=None, rounds=2))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, run)
        await state_reached(run, "running")
        world.net.fails["a", "publish"] = NodeError("api_refused", "cannot call: nobody listens")
    assert (world.row().verdict, world.row().last_round) == ("failed", 2)
    assert "errors is" in (world.row().why or "")
    assert "node_exited" not in world.events()


@pytest.mark.safety
async def test_nobody_is_met_on_a_port_that_was_leased_meanwhile(
    world: World, autojump_clock: MockClock
) -> None:
    """The node was not up yet when another user's run got its port."""
    plan = make_attached_plan()
    run = world.run(add_run(world.host, plan), plan)
    other = add_run(world.host, make_plan(), owner=BOB)
    world.host.store.lease("port", str(plan.nodes[1].port), other)
    await hold(run)
    cause = json.loads(world.row().cause_json or "")
    assert (cause["code"], cause["node"]) == ("port_leased", "b")
    assert "leased to r2 of bob" in cause["text"]
    assert world.net.called == []


# -- restarts ----------------------------------------------------------------------------------


async def _leave_when(world: World, run: Run, state: str) -> None:
    """Another soakd is to take the run over."""
    scope = trio.CancelScope()

    async def live() -> None:
        with scope:
            await hold(run)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live)
        await state_reached(run, state)
        scope.cancel()


@pytest.mark.safety
async def test_next_soakd_believes_only_whom_the_last_one_met(
    world: World, autojump_clock: MockClock
) -> None:
    """Otherwise a restart would be the moment to put another listener there."""
    plan = make_attached_plan(duration_s=500.0)
    world.net.listeners["a"] = 1001
    await _leave_when(world, world.new_run(plan), "running")
    run = world.run(1, plan)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, run)
        await until(lambda: run.settled.is_set())
        stranger = world.nodes["a"].process
        assert stranger.uid == 1001  # type: ignore[attr-defined]
        await state_reached(run, "finished")
    assert world.row().result == "completed"
    assert world.text("logs/runner.log").count("attached A url=") == 1
    assert "gap" in world.events()


async def test_takeover_while_nodes_are_waited_for_goes_on(
    world: World, autojump_clock: MockClock
) -> None:
    """It says no second time where they are."""
    plan = make_attached_plan(duration_s=None, rounds=1)
    world.net.answers["a"] = [Refused()] * 1000
    await _leave_when(world, world.new_run(plan), "starting")
    world.net.answers.clear()
    await hold(world.run(1, plan))
    assert world.row().verdict == "passed"
    assert world.text("logs/runner.log").count("attached A url=") == 1


async def test_takeover_before_anything_was_written_begins_anew(
    world: World, autojump_clock: MockClock
) -> None:
    """The shim had only just begun."""
    plan = make_attached_plan(duration_s=None, rounds=1)
    world.shim.mute.add("begin")
    await _leave_when(world, world.new_run(plan), "staging")
    world.shim.mute.clear()
    await hold(world.run(1, plan))
    assert world.row().verdict == "passed"


async def test_takeover_with_a_spoilt_plan_json_fails_the_run_alone(
    world: World, autojump_clock: MockClock
) -> None:
    """Whom to believe is not known any more."""
    plan = make_attached_plan(duration_s=500.0)
    await _leave_when(world, world.new_run(plan), "running")
    (world.folder() / "plan.json").write_text("{}")
    await hold(world.run(1, plan))
    assert "plan.json" in (world.row().why or "")


async def test_attached_run_whose_shim_died_meanwhile_fails(
    world: World, autojump_clock: MockClock
) -> None:
    """There is nobody left who could read the tokens."""
    plan = make_attached_plan(duration_s=500.0)
    await _leave_when(world, world.new_run(plan), "running")
    world.shim.process.exit(-9)
    await hold(world.run(1, plan))
    assert json.loads(world.row().cause_json or "")["code"] == "shim_gone"
    assert "node_gone" not in world.events()
