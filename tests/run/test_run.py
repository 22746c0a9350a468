"""A whole run in virtual time: every way it can go, and what it leaves on disk and in the store."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import structlog
import trio
from trio.testing import MockClock

from soakd.blocked import BlockedRun
from soakd.core import run_state
from soakd.core.errors import HostError, NodeError
from soakd.core.model import Cause
from soakd.core.readiness import Forbidden403, Warming503
from soakd.edge import ports
from soakd.edge.journal import RunFolder
from soakd.edge.shim_client import Swept
from soakd.host import Host
from soakd.log import configure
from soakd.run import MAX_NOTES, NEWS_BACKLOG, Run
from tests.run.kit import (
    FakeProcess,
    World,
    drain,
    full_disk,
    hold,
    in_thread,
    leave,
    living,
    make_plan,
    state_reached,
    until,
)

pytestmark = pytest.mark.unmeasured

# -- the whole way -----------------------------------------------------------------------------


async def test_run_measures_to_its_deadline(world: World, autojump_clock: MockClock) -> None:
    """From the slot to the verdict: states, row, files and watchers tell the same story."""
    run = world.new_run(make_plan(duration_s=100.0))
    heard: list[dict[str, Any]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain, run.hub, heard)
        await hold(run)
    row = world.row()
    assert (row.state, row.result, row.verdict) == ("finished", "completed", "passed")
    states = [event["data"]["state"] for event in heard if event["kind"] in ("state", "end")]
    assert states == ["staging", "starting", "warming", "running", "stopping", "finished"]
    final = heard[-1]["data"]
    # 45 s a round: the third begins at 90 s, before the deadline, and is finished.
    assert final["rounds"]["total"] == final["rounds"]["hit"] == 3
    assert json.loads(row.counters_json or "")["hit"] == row.last_round == 3
    assert row.rounds_offset == (world.folder() / "logs/rounds.ndjson").stat().st_size
    summary = json.loads(world.text("run.json"))
    assert (summary["state"], summary["verdict"]) == ("finished", "passed")
    assert [gate["status"] for gate in summary["gates"]] == ["passed"] * 5
    assert world.text("runner.state") == "completed\n"
    assert all(node.closed for node in world.nodes.values())


async def test_log_has_the_markers_of_the_scripts_in_order(
    world: World, autojump_clock: MockClock
) -> None:
    """What the scripts' readers look for."""
    world.net.fates = ["late"]
    run = world.new_run(make_plan(duration_s=40.0, run_tag="tag"))
    await hold(run)
    log = [line.split(" ", 1)[1] for line in world.text("logs/runner.log").splitlines()]
    file_id = world.net.published[0]
    pids = [world.shim.nodes[name]["pid"] for name in "ab"]
    assert log == [
        (
            "run-tag=tag session_a=rust-mule-a-soak-tag-r1 session_b=rust-mule-b-soak-tag-r1"
            " fresh_identity=1"
        ),
        f"started A pid={pids[0]} B pid={pids[1]}",
        "ready-check elapsed=0s A=200 B=200",
        "soak-start duration_secs=40 deadline_epoch=1700000040",
        "timer remaining_secs=40 round=1",
        log[5],
        f"round=1 miss_recheck attempt=1 delay_secs=20 file={file_id}",
        f"round=1 miss_recheck_hit attempt=1 file={file_id}",
        "deadline reached",
        "soak-finished rounds=1",
        "node stop requested",
    ]
    assert log[5].startswith(f"round=1 file={file_id} size=")


async def test_round_target_ends_the_run(world: World, autojump_clock: MockClock) -> None:
    """`--rounds` alone has no deadline, and nothing pretends there were one."""
    run = world.new_run(make_plan(duration_s=None, rounds=2))
    seen: list[Any] = []

    async with living(run):
        await state_reached(run, "running")
        seen.append(run.status()["remaining_s"])
    assert seen == [None]
    assert world.row().last_round == 2
    assert "soak-start duration_secs=none deadline_epoch=none" in world.text("logs/runner.log")


async def test_run_does_not_wait_after_its_last_round(
    world: World, autojump_clock: MockClock
) -> None:
    """The pause is between rounds: behind the last one nothing is waited for."""
    run = world.new_run(make_plan(duration_s=None, rounds=1, wait_between_s=3000.0))
    await hold(run)
    assert trio.current_time() < 50_000 + 3000


async def test_status_follows_the_run(world: World, autojump_clock: MockClock) -> None:
    """Phase and remaining time while it runs; neither before nor after."""
    world.net.answers = {"a": [Warming503()]}
    run = world.new_run(make_plan(duration_s=100.0))
    seen: dict[str, Any] = {}
    async with living(run):
        for name in ("starting", "running", "stopping", "finished"):
            await state_reached(run, name)
            seen[name] = run.status()
    assert [seen[name]["remaining_s"] for name in seen] == [
        100.0,
        pytest.approx(100.0, abs=0.2),
        None,
        None,
    ]
    assert [seen[name]["phase"] is not None for name in seen] == [False, True, False, False]
    assert seen["running"]["deadline_at"] == "2023-11-14T22:15:00.200Z"
    assert seen["finished"]["id"] == "r1"
    assert seen["finished"]["round"] == 3


async def test_nodes_are_shown_as_they_come_up(world: World, autojump_clock: MockClock) -> None:
    """Warm-up is no failure: 503 is waited out, and `status` shows who is where."""
    world.net.answers = {"a": [Warming503()] * 2}
    run = world.new_run()
    heard: list[dict[str, Any]] = []
    async with trio.open_nursery() as nursery, living(run):
        nursery.start_soon(drain, run.hub, heard)
        await until(lambda: run.status()["nodes"][0]["state"] == "warm")
        assert run.status()["nodes"][1]["state"] == "ready"
        await state_reached(run, "running")
        assert [node["state"] for node in run.status()["nodes"]] == ["ready", "ready"]
        await run.ask_stop("me", 1)
    assert "A=503 B=200" in world.text("logs/runner.log")
    shown = [event["data"]["nodes"][0]["state"] for event in heard if event["kind"] == "progress"]
    assert "warm" in shown


async def test_nothing_waits_for_the_disk_on_the_loop(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run's slow disk holds no other run's rounds up."""
    waits: list[tuple[str, bool]] = []

    def watch(place: object, name: str) -> None:
        real = getattr(place, name)

        def call(*args: Any, **values: Any) -> Any:
            waits.append((name, in_thread.get()))
            return real(*args, **values)

        monkeypatch.setattr(place, name, call)

    plan = make_plan(duration_s=100.0)
    watch(os, "fsync")
    watch(os, "fdatasync")
    watch(world.host.store, "transition")
    watch(world.host.store, "checkpoint")
    watch(RunFolder, "write_atomic")
    watch(RunFolder, "create")
    watch(RunFolder, "open")
    await leave(world.new_run(plan), 60)
    await hold(world.run(1, plan))
    assert {name for name, _ in waits} >= {"fsync", "fdatasync", "transition", "open", "create"}
    assert [name for name, threaded in waits if not threaded] == []


# -- stops -------------------------------------------------------------------------------------


async def test_stop_cuts_the_round_and_is_judged_on_what_was_measured(
    world: World, autojump_clock: MockClock
) -> None:
    """The round under way is recorded as skipped; the run is stopped, not failed."""
    run = world.new_run(make_plan(duration_s=1000.0))
    async with living(run):
        await state_reached(run, "running")
        await trio.sleep(60)
        await run.ask_stop("ann", 4001)
    row = world.row()
    assert (row.result, row.verdict, row.why) == ("stopped", "aborted", "stopped by ann")
    records = world.lines("logs/rounds.ndjson")
    assert [(r["outcome"], r["cause"]) for r in records] == [("hit", None), ("skipped", "cut:stop")]
    log = world.text("logs/runner.log")
    assert "runner stop requested" in log
    assert "stop marker detected" in log
    assert "stop requested" in world.text("logs/soak.log")
    assert world.text("runner.state") == "stopped\n"
    audit = [(item.uid, item.what) for item in world.host.store.audit(1)]
    assert (4001, "running -> stopping: StopAsked") in audit


async def test_second_stop_changes_nothing(world: World, autojump_clock: MockClock) -> None:
    """While it stops and after it has finished, asking again is harmless."""
    run = world.new_run()
    async with living(run):
        await state_reached(run, "running")
        await run.ask_stop("ann", 1)
        await run.ask_stop("bob", 2)
    await run.ask_stop("eve", 3)
    assert world.row().why == "stopped by ann"


async def test_stop_is_not_held_up_by_the_wait_for_readiness(
    world: World, autojump_clock: MockClock
) -> None:
    """A stop while nodes warm up reaches them at once."""
    world.net.answers = {"a": [Warming503()] * 1000}
    run = world.new_run()
    async with living(run):
        await state_reached(run, "starting")
        await trio.sleep(20)
        asked_s = trio.current_time()
        await run.ask_stop("ann", 1)
        await until(lambda: "stop" in world.shim.verbs())
        assert trio.current_time() - asked_s < 1


async def test_stop_during_staging_does_not_wait_for_the_copy(
    world: World, autojump_clock: MockClock
) -> None:
    """The copy may take ten minutes; the stop takes moments."""
    world.shim.mute.add("stage")
    run = world.new_run()
    async with living(run):
        await state_reached(run, "staging")
        await until(lambda: "stage" in world.shim.verbs())
        await run.ask_stop("ann", 1)
    assert trio.current_time() < 50_000 + 30
    assert world.row().result == "stopped"


async def test_hung_call_does_not_hold_the_stop_up(world: World, autojump_clock: MockClock) -> None:
    """A node that never answers is cut off like any other step."""
    world.net.hangs.add(("a", "publish"))
    run = world.new_run()
    async with living(run):
        await until(lambda: ("a", "publish") in world.net.called)
        await run.ask_stop("ann", 1)
        await until(lambda: "stop" in world.shim.verbs())
        assert trio.current_time() < 50_000 + 5
    assert [r["cause"] for r in world.lines("logs/rounds.ndjson")] == ["cut:stop"]


async def test_stop_that_comes_while_the_end_is_written_returns(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody reads the news of a finished run: whoever brings one must not wait for ever."""
    run = world.new_run(make_plan(duration_s=10.0))
    db = Host.db

    async def slow_end(host: Host, query: Callable[..., Any], *args: Any, **values: Any) -> Any:
        if "finished" in args:
            await trio.sleep(1)
        return await db(host, query, *args, **values)

    monkeypatch.setattr(Host, "db", slow_end)
    async with living(run):
        await state_reached(run, "stopping")
        await until(lambda: (world.folder() / "run.json").exists())
        with trio.fail_after(100):
            await run.ask_stop("ann", 1)
    assert world.row().verdict == "passed"


async def test_notes_are_bounded(world: World, autojump_clock: MockClock) -> None:
    """`status` must fit into an answer, and a list must not end at it."""
    run = world.new_run()
    for number in range(2 * MAX_NOTES):
        run.note_once(f"extended by {number} s")
        run.note_once("extended by 0 s")
    assert len(run.observer.notes) == MAX_NOTES


async def test_flood_of_news_is_bounded(world: World, autojump_clock: MockClock) -> None:
    """A shim that talks without end fills no memory; the run still ends by its cause."""
    run = world.new_run()
    async with living(run):
        await state_reached(run, "running")
        for _ in range(3 * NEWS_BACKLOG):
            run.tell_soon(run_state.Failed(Cause("shim_stopped", "again")))
    assert world.row().result == "failed"


# -- failures ----------------------------------------------------------------------------------


async def test_node_that_ends_by_itself_ends_the_run(
    world: World, autojump_clock: MockClock
) -> None:
    """The round is an error of that node, the verdict is the node's, in the node's own words."""
    run = world.new_run(make_plan(duration_s=1000.0))
    async with living(run):
        await state_reached(run, "running")
        await trio.sleep(1)
        line = "Error: App(SamKeys(Damaged))"
        await world.shim.send(event="stderr", node="b", line=line)
        await world.shim.exit_node("b", code=1)
    row = world.row()
    cause = json.loads(row.cause_json or "")
    assert (row.result, row.verdict) == ("failed", "failed")
    assert (cause["code"], cause["node"]) == ("node_exited", "b")
    assert "ended by itself: exit status 1; sam.keys is damaged" in cause["text"]
    assert [r["cause"] for r in world.lines("logs/rounds.ndjson")] == ["node_down:b"]
    assert not (world.folder() / "logs/b.pid").exists()
    assert world.text("runner.state") == "failed\n"


async def test_node_that_dies_before_it_is_ready_fails_the_run(
    world: World, autojump_clock: MockClock
) -> None:
    """No round was made, and the node is to blame."""
    world.net.answers = {"a": [Warming503()] * 1000}
    run = world.new_run()
    async with living(run):
        await state_reached(run, "starting")
        await until(lambda: "b" in world.nodes)
        await world.shim.exit_node("a", signal=6)
    row = world.row()
    assert (row.verdict, row.last_round) == ("failed", 0)
    assert "SIGABRT" in (row.why or "")


async def test_patience_with_nodes_ends(world: World, autojump_clock: MockClock) -> None:
    """READY_TIMEOUT_SECS is the nodes' failure, and the nodes are stopped."""
    world.net.answers = {"a": [Warming503()] * 1000}
    run = world.new_run(make_plan(ready_timeout_s=300.0))
    await hold(run)
    row = world.row()
    assert json.loads(row.cause_json or "")["code"] == "ready_timeout"
    assert (row.verdict, trio.current_time() > 50_300) == ("failed", True)
    assert world.shim.verbs()[-2:] == ["stop", "end"]


async def test_foreign_token_ends_the_wait_early(world: World, autojump_clock: MockClock) -> None:
    """Six 403s of every node in a row: nobody waits twenty minutes for that."""
    world.net.answers = {name: [Forbidden403()] * 100 for name in "ab"}
    run = world.new_run()
    await hold(run)
    assert json.loads(world.row().cause_json or "")["code"] == "ready_forbidden"
    assert trio.current_time() < 50_000 + 120


async def test_copy_that_does_not_end_times_out(world: World, autojump_clock: MockClock) -> None:
    """Staging has an end by time, whatever the shim does."""
    world.shim.mute.add("stage")
    run = world.new_run(make_plan(staging_timeout_s=50.0))
    await hold(run)
    row = world.row()
    assert (row.result, row.verdict) == ("failed", "harness_error")
    assert trio.current_time() < 50_000 + 50 + 60


async def test_refused_copy_is_the_users_to_mend(world: World, autojump_clock: MockClock) -> None:
    """The shim's words reach the row; the shim is sent home; no node ran."""
    world.shim.refuse["stage"] = "cannot open the source folder /dist/mule-a: no such file"
    run = world.new_run()
    await hold(run)
    row = world.row()
    assert (row.result, row.verdict) == ("failed", "harness_error")
    assert "no such file" in (row.why or "")
    assert world.shim.verbs()[-1] == "end"


async def test_port_of_somebody_else_fails_at_once(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder is named, nothing is spawned."""
    held = ports.Holder(1, "127.0.0.1", 0, 4711, "nc")
    monkeypatch.setattr(ports, "check_free", lambda _port: held)
    await hold(world.new_run())
    cause = json.loads(world.row().cause_json or "")
    assert (cause["code"], cause["node"]) == ("port_busy", "a")
    assert "pid 4711 (nc)" in cause["text"]
    assert world.shim.spawned_n == []


async def test_shim_that_dies_takes_the_run_with_it(
    world: World, autojump_clock: MockClock
) -> None:
    """Its nodes die with it: the run ends at once, as a fault of ours."""
    run = world.new_run(make_plan(duration_s=1000.0))
    async with living(run):
        await state_reached(run, "running")
        await trio.sleep(10)
        await world.shim.vanish()
    row = world.row()
    assert (row.verdict, json.loads(row.cause_json or "")["code"]) == ("harness_error", "shim_lost")
    assert trio.current_time() < 50_000 + 60


@pytest.mark.parametrize(
    ("reason", "code", "verdict"),
    [("SIGTERM", "shim_told", "aborted"), ("latest_end", "shim_stopped", "harness_error")],
)
async def test_shim_that_stops_by_itself_ends_the_run(
    world: World, autojump_clock: MockClock, reason: str, code: str, verdict: str
) -> None:
    """A signal to the shim, or its own latest end: soakd follows instead of measuring on."""
    run = world.new_run(make_plan(duration_s=1000.0))
    async with living(run):
        await state_reached(run, "running")
        await world.shim.send(event="stopping", reason=reason)
    cause = json.loads(world.row().cause_json or "")
    assert (cause["code"], reason in cause["text"]) == (code, True)
    assert world.row().verdict == verdict


async def test_silent_shim_is_killed_before_the_run_ends(
    world: World, autojump_clock: MockClock
) -> None:
    """Its user may have stopped it with SIGSTOP: no slot is free while its nodes live."""
    run = world.new_run(make_plan(stop_grace_s=1.0))
    async with living(run):
        await state_reached(run, "running")
        world.shim.mute |= {"stop", "end"}
        await run.ask_stop("ann", 1)
    assert world.shim.process.killed
    assert world.row().state == "finished"


async def test_leftovers_of_the_ladder_are_named_and_waited_for(
    world: World, autojump_clock: MockClock
) -> None:
    """Their pids stay in `status`; the shim is kept until the last of them is gone."""
    gone = trio.Event()
    shown: list[tuple[int, ...]] = []

    async def wait() -> None:
        await blocked.wait_until_gone(lambda: shown.append(blocked.pids))
        gone.set()

    with subprocess.Popen(["sleep", "1000"]) as child:
        try:
            world.shim.left = [child.pid]
            run = world.new_run()
            await hold(run)
            assert run.status()["rung"] == {"rung": "blocked", "pids": [child.pid]}
            assert "end" not in world.shim.verbs()
            blocked = BlockedRun(world.host, run.id, run.plan, run.crew, run.left)
            assert blocked.pids == (child.pid,)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.sleep(100)
                assert not gone.is_set()
                # A zombie is nobody's port: reaping it is not needed.
                child.kill()
                await until(gone.is_set)
        finally:
            child.kill()
    assert shown == [()]
    assert world.shim.verbs()[-1] == "end"
    assert world.shim.process.returncode == 0


@pytest.mark.parametrize("left", [[0], [1], [-1], [1 << 70], [True], ["7"], [None], [[]]])
async def test_leftovers_that_no_shim_may_name_block_nothing(
    world: World, autojump_clock: MockClock, left: list[Any]
) -> None:
    """A shim is its user's: what it says must neither crash soakd nor hold the slot for ever."""
    world.shim.left = left
    run = world.new_run()
    await hold(run)
    assert run.left == ()
    assert world.host.store.leases() == []
    assert world.row().state == "finished"


async def test_overrun_ends_even_without_any_event(world: World, autojump_clock: MockClock) -> None:
    """Running has a latest end of its own."""
    world.net.hangs.add(("b", "learn"))
    world.net.hangs.add(("a", "learn"))
    run = world.new_run(make_plan(duration_s=60.0))
    await hold(run)
    row = world.row()
    assert json.loads(row.cause_json or "")["code"] == "overrun"
    assert row.verdict == "harness_error"


async def test_errors_of_nodes_are_counted_not_raised(
    world: World, autojump_clock: MockClock
) -> None:
    """Misbehaving nodes make error rounds and a failed gate, never a crash."""
    world.net.fails["b", "search"] = NodeError("bad_status", "cannot use the answer: HTTP 500")
    run = world.new_run(make_plan(duration_s=60.0))
    await hold(run)
    row = world.row()
    assert (row.result, row.verdict) == ("completed", "failed")
    assert "errors is 100.0%" in (row.why or "")
    assert "step_failed" not in world.events()
    assert "round_error" in world.events()
    assert "WARN: round=1 search failed: cannot use the answer: HTTP 500" in world.text(
        "logs/runner.log"
    )


@pytest.mark.parametrize("name", ["logs/rounds.ndjson", "logs/status_samples.ndjson", ""])
async def test_full_disk_ends_the_run_with_its_cause(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Measuring stops with a clear cause, nothing recorded is lost, soakd lives on."""
    run = world.new_run(make_plan(duration_s=1000.0))
    async with living(run):
        await state_reached(run, "running")
        await until(lambda: world.row().last_round >= 1 or run.status()["rounds"]["total"] >= 1)
        full_disk(monkeypatch, *filter(None, [name]))
        if name == "logs/status_samples.ndjson":
            run.observer.resources("a", {})
            with pytest.raises(HostError):
                run.observer.status_sample("a", "{}")
            await run.ask_stop("ann", 1)
    row = world.row()
    assert row.state == "finished"
    if name != "logs/status_samples.ndjson":
        cause = json.loads(row.cause_json or "")
        assert (cause["code"], "free disk space" in cause["text"]) == ("host", True)
    assert row.last_round == len(world.lines("logs/rounds.ndjson"))
    assert "stop" in world.shim.verbs()
    assert world.shim.process.returncode is not None


@pytest.mark.parametrize(
    ("verb", "answer"),
    [
        ("stage", {"sha256": 3}),
        ("stage", {"sha256": {}}),
        ("read", {"data": 3}),
        ("read", {"total": "x"}),
        ("read", {"total": -1}),
        ("launch", {"pid": "x"}),
        ("launch", {"pid": None}),
        ("launch", {"ticks": [1]}),
        ("launch", {"exe_ino": 9}),
        ("launch", {"cwd_ok": "yes"}),
        ("inspect", {"exe": "/usr/bin/sleep", "argv": ["sleep"]}),
        ("inspect", {"exe": 3, "argv": 3}),
    ],
)
async def test_shim_that_answers_nonsense_fails_its_run_alone(
    world: World, autojump_clock: MockClock, verb: str, answer: dict[str, Any]
) -> None:
    """A shim has its user's rights: what it says is input."""
    world.shim.odd[verb] = answer
    await hold(world.new_run())
    row = world.row()
    assert (row.state, row.result) == ("finished", "failed")
    assert "internal error of soakd" not in (row.why or "")
    assert world.shim.process.returncode is not None


async def test_tokens_stand_nowhere_but_among_the_secrets(
    world: World, autojump_clock: MockClock, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Not in the log, not in the records, not in what watchers hear; also not after a crash."""
    log = io.BytesIO()
    configure(stream=log)
    try:
        run = world.new_run()
        heard: list[dict[str, Any]] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain, run.hub, heard)
            world.net.fails["a", "watch_status"] = ZeroDivisionError("a bug")
            await hold(run)
    finally:
        structlog.reset_defaults()
        logging.getLogger().handlers.clear()
    secrets = {secret.value for secret in world.host.store.secrets(1)}
    assert secrets == {"token-of-a", "token-of-b"}
    files = [path.read_bytes() for path in world.folder().rglob("*") if path.is_file()]
    said = b"".join(capfdbinary.readouterr())
    everything = [log.getvalue(), said, json.dumps(heard).encode(), *files]
    assert b"a bug" in log.getvalue()
    assert not any(b"token-of-" in text for text in everything)


async def test_secrets_of_the_source_are_remembered(
    world: World, autojump_clock: MockClock
) -> None:
    """A copied token may stand in a copied log: no bundle may hold it, fresh identity or not."""
    token = "0123456789abcdef" * 4
    world.shim.sources["/dist/mule-a"] = {
        "rust-mule": b"program",
        "data/api.token": token.encode(),
        "data/sam.keys": b"PUB=abc\n",
    }
    await hold(world.new_run(make_plan(duration_s=10.0)))
    assert world.row().verdict == "passed"
    assert token in {secret.value for secret in world.host.store.secrets(1)}
    assert ("a", "data/api.token") not in world.shim.files


async def test_configuration_that_does_not_stay_as_written_is_refused(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not read back was not set."""
    monkeypatch.setattr(world.shim, "_do_replace", lambda _request: {"done": True})
    await hold(world.new_run())
    assert "it reads back different" in (world.row().why or "")
    assert "launch" not in world.shim.verbs()


async def test_configuration_that_cannot_be_written_is_the_users_to_mend(
    world: World, autojump_clock: MockClock
) -> None:
    """Their disk is full, say."""
    world.shim.refuse["replace"] = "cannot write config.toml: No space left on device"
    await hold(world.new_run())
    cause = json.loads(world.row().cause_json or "")
    assert (cause["code"], cause["node"]) == ("refused", "a")
    assert "No space left" in cause["text"]


@pytest.mark.parametrize("verb", ["begin", "stage", "read", "replace", "remove", "launch"])
async def test_shim_that_dies_at_any_step_ends_the_run(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """As a loss of the shim, not as a bug of ours."""

    def die(_request: dict[str, Any]) -> dict[str, Any]:
        world.shim.process.exit(-9)
        world.shim._hang_up()
        raise trio.ClosedResourceError

    monkeypatch.setattr(world.shim, f"_do_{verb}", die)
    await hold(world.new_run())
    row = world.row()
    assert (row.result, row.verdict) == ("failed", "harness_error")
    assert "shim" in (row.why or "")
    assert "internal error" not in (row.why or "")


async def test_what_was_swept_is_told(world: World, autojump_clock: MockClock) -> None:
    """After a dead shim without a cgroup: who was killed, who was spared and why."""
    world.shim.swept = Swept((11, 12), ((13, "a terminal"),), ())
    run = world.new_run()
    async with living(run):
        await state_reached(run, "running")
        await world.shim.vanish()
    [order] = world.shim.sweeps
    assert order.nonce == world.shim.nonce
    [event] = [e for e in world.lines("logs/events.ndjson") if e["kind"] == "swept"]
    assert event["data"] == {"killed": [11, 12], "spared": [{"pid": 13, "why": "a terminal"}]}


async def test_sweep_that_fails_is_told(world: World, autojump_clock: MockClock) -> None:
    """The end comes all the same."""
    world.shim.sweep_error = HostError("internal", "cannot sweep: no")
    run = world.new_run()
    async with living(run):
        await state_reached(run, "running")
        await world.shim.vanish()
    assert "sweep_failed" in world.events()
    assert world.row().state == "finished"


async def test_what_a_sweep_could_not_kill_keeps_the_slot(
    world: World, autojump_clock: MockClock
) -> None:
    """By its identity, like the ladder's leftovers."""
    with subprocess.Popen(["sleep", "1000"]) as child:
        try:
            world.shim.swept = Swept((), (), (child.pid, 0, 1 << 70))
            run = world.new_run()
            async with living(run):
                await state_reached(run, "running")
                await world.shim.vanish()
            assert [pid for pid, _ in run.left] == [child.pid]
            assert "leftovers" in world.events()
        finally:
            child.kill()


async def test_run_folder_over_its_budget_fails_the_run(
    world: World, autojump_clock: MockClock
) -> None:
    """`disk_max_bytes` is looked at while rounds are played."""
    object.__setattr__(world.host.config, "disk_max_bytes", 4096)
    run = world.new_run(make_plan(duration_s=10_000.0))
    async with living(run):
        await state_reached(run, "running")
        for _ in range(200):
            run.observer.status_sample("a", "x" * 100)
    cause = json.loads(world.row().cause_json or "")
    assert (cause["code"], "disk_max_bytes is 4096" in cause["text"]) == ("disk_budget", True)
    assert world.row().verdict == "failed"


# -- crashes of ours ---------------------------------------------------------------------------


async def test_bug_in_the_work_ends_as_our_fault(world: World, autojump_clock: MockClock) -> None:
    """What no one expected fails this run alone, and its nodes get their ladder."""
    world.net.fails["a", "watch_status"] = ZeroDivisionError("a bug")
    run = world.new_run()
    await hold(run)
    row = world.row()
    assert (row.state, row.result, row.verdict) == ("finished", "failed", "harness_error")
    assert "a bug" in (row.why or "")
    assert json.loads(world.text("run.json"))["verdict"] == "harness_error"
    assert world.text("runner.state") == "failed\n"
    assert world.shim.verbs()[-2:] == ["stop", "end"]


async def crash(world: World, run: Run) -> Exception:
    """Let `live` raise something that nobody expected, while a node lives."""

    def bug(*_args: object) -> None:
        raise ZeroDivisionError("a bug")

    crashed: list[Exception] = []

    async def live() -> None:
        try:
            await run.live()
        except Exception as error:
            crashed.append(error)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.host.store, "node_exited", bug)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live)
            await state_reached(run, "running")
            await trio.sleep(1)
            await world.shim.exit_node("b", code=1)
    return crashed[0]


async def test_crashed_run_is_buried_as_our_fault(world: World, autojump_clock: MockClock) -> None:
    """Nodes get their ladder, the end is written, watchers and files agree."""
    run = world.new_run()
    heard: list[dict[str, Any]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain, run.hub, heard)
        await run.bury(await crash(world, run))
        await run.let_go()
    row = world.row()
    assert (row.state, row.result, row.verdict) == ("finished", "failed", "harness_error")
    assert "ZeroDivisionError" in (row.why or "")
    assert json.loads(world.text("run.json"))["verdict"] == "harness_error"
    assert world.text("runner.state") == "failed\n"
    assert "stop" in world.shim.verbs()
    assert world.shim.process.returncode is not None
    assert (heard[-1]["kind"], heard[-1]["data"]["verdict"]) == ("end", "harness_error")


async def test_crashed_run_whose_shim_is_silent_is_put_down(
    world: World, autojump_clock: MockClock
) -> None:
    """No slot is free while its nodes live."""
    run = world.new_run()
    error = await crash(world, run)
    world.shim.mute |= {"stop", "end"}
    await run.bury(error)
    await run.let_go()
    assert world.shim.process.killed


async def test_burial_of_a_finished_run_writes_nothing(
    world: World, autojump_clock: MockClock
) -> None:
    """A crash behind the verdict does not overwrite it."""
    run = world.new_run(make_plan(duration_s=10.0))
    await hold(run)
    await run.bury(RuntimeError("late"))
    assert world.row().verdict == "passed"


async def test_run_that_could_not_even_begin_is_buried(
    world: World, autojump_clock: MockClock
) -> None:
    """The first transition fails (the disk was full): the second attempt is the end."""
    run = world.new_run()

    def fails(*_args: object, **_columns: object) -> None:
        raise HostError("internal", "cannot write: disk full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.host.store, "transition", fails)
        with pytest.raises(ExceptionGroup) as crashed:
            await run.live()
        with pytest.raises(HostError):
            await run.bury(crashed.value)
    await run.bury(crashed.value)
    await run.let_go()
    assert (world.row().state, world.row().verdict) == ("finished", "harness_error")


async def test_stop_of_a_crashed_run_returns(world: World, autojump_clock: MockClock) -> None:
    """Between crash and burial nobody reads the news."""
    run = world.new_run()
    await crash(world, run)
    with trio.fail_after(100):
        await run.ask_stop("ann", 1)
        await run.tell(run_state.RoundsDone())
    await run.let_go()


async def test_stop_that_waits_when_the_run_crashes_returns(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its news was in the queue when the owner went away."""
    run = world.new_run()
    db = Host.db

    async def bad_end(host: Host, query: Callable[..., Any], *args: Any, **values: Any) -> Any:
        if "finished" in args:
            await trio.sleep(1)
            raise ZeroDivisionError
        return await db(host, query, *args, **values)

    monkeypatch.setattr(Host, "db", bad_end)
    returned = trio.Event()

    async def ask() -> None:
        await until(lambda: (world.folder() / "run.json").exists())
        await run.ask_stop("ann", 1)
        returned.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        with pytest.raises(ExceptionGroup):
            await run.live()
        with trio.fail_after(100):
            await returned.wait()
    await run.let_go()


# -- soakd leaves and comes back ---------------------------------------------------------------


async def test_soakd_that_leaves_lets_go_of_the_run(
    world: World, autojump_clock: MockClock
) -> None:
    """Nothing is stopped, nothing of ours stays open, the row still says running."""
    run = world.new_run(make_plan(duration_s=1000.0))
    await leave(run)
    assert world.row().state == "running"
    assert "stop" not in world.shim.verbs()
    assert all(node.closed for node in world.nodes.values())
    async with run.hub.subscribe(0) as events:
        assert [event async for event in events]


async def test_next_soakd_goes_on_where_the_last_one_left(
    world: World, autojump_clock: MockClock
) -> None:
    """Rounds go on, the cut one is skipped with cause `gap`, the deadline stays where it was."""
    plan = make_plan(duration_s=1000.0)
    await leave(world.new_run(plan))
    begun_s = trio.current_time() - 60
    await trio.sleep(30)
    run = world.run(1, plan)
    await hold(run)
    row = world.row()
    assert (row.result, row.verdict) == ("completed", "passed"), row.why
    records = world.lines("logs/rounds.ndjson")
    assert [record["round"] for record in records] == [*range(1, len(records) + 1)]
    assert [r["cause"] for r in records if r["outcome"] == "skipped"] == ["gap"]
    assert len(world.text("logs/rounds.tsv").splitlines()) == len(records)
    assert trio.current_time() < begun_s + 1000 + 60
    assert world.text("logs/runner.log").count("soak-start") == 1
    assert world.shim.spawned_n == [1]


async def test_next_soakd_launches_what_the_last_one_only_staged(
    world: World, autojump_clock: MockClock
) -> None:
    """It ended between the two: what it knew of the nodes stands in plan.json."""
    plan = make_plan(duration_s=200.0)
    world.shim.mute.add("launch")
    await leave(world.new_run(plan), 1.0, "starting")
    assert world.shim.nodes == {}
    world.shim.mute.clear()
    await hold(world.run(1, plan))
    row = world.row()
    assert (row.result, row.verdict) == ("completed", "passed"), row.why
    assert world.shim.spawned_n == [1]


async def test_gap_is_as_long_as_soakd_was_away(world: World, autojump_clock: MockClock) -> None:
    """Booked from the last sign of life, shown in `status`, counted against `measured`."""
    plan = make_plan(duration_s=200.0)
    await leave(world.new_run(plan))
    await trio.sleep(100)
    run = world.run(1, plan)
    await hold(run)
    [gap] = world.host.store.gaps(1)
    # The last thing that was written may be some steps of a round ago.
    assert 100 <= gap.s <= 120
    assert run.status()["gaps"][0]["s"] == pytest.approx(gap.s, abs=0.01)
    row = world.row()
    assert (row.verdict, "measured" in (row.why or "")) == ("inconclusive", True)


async def test_gaps_of_all_restarts_count(world: World, autojump_clock: MockClock) -> None:
    """A second restart does not forget the first one's gap."""
    plan = make_plan(duration_s=600.0)
    await leave(world.new_run(plan))
    await trio.sleep(5)
    await leave(world.run(1, plan))
    await trio.sleep(5)
    run = world.run(1, plan)
    await hold(run)
    assert len(run.status()["gaps"]) == len(world.host.store.gaps(1)) == 2
    assert run.observer.gap_s == pytest.approx(sum(gap.s for gap in world.host.store.gaps(1)))


async def test_status_after_a_restart_knows_what_it_knew_before(
    world: World, autojump_clock: MockClock
) -> None:
    """Deadline, edits, simulation and node states survive."""
    plan = make_plan(duration_s=1000.0)
    world.net.answers = {"a": [Warming503()]}
    first = world.new_run(plan)
    async with living(first) as scope:
        await state_reached(first, "starting")
        (world.folder() / "logs/a.out").write_text("*** SIMULATION ***\n")
        await state_reached(first, "running")
        await trio.sleep(10)
        assert first.status()["simulation"]
        before = first.status()
        scope.cancel()
    second = world.run(1, plan)
    async with living(second):
        await second.settled.wait()
        await trio.sleep(1)
        after = second.status()
        await second.ask_stop("ann", 1)
    for key in ("deadline_at", "edits", "simulation", "nodes", "started_at", "link", "notes"):
        assert after[key] == before[key], key


@pytest.mark.parametrize("state", ["starting", "running"])
async def test_reboot_aborts_what_was_live(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """Another boot id: every process is gone, and the message says how to run it again."""
    plan = make_plan(duration_s=1000.0)
    world.net.answers = {"a": [Warming503()] * (3 if state == "running" else 1000)}
    await leave(world.new_run(plan), 5, state)
    world.host.store.set_columns(1, boot_id="another-boot")
    await hold(world.run(1, plan))
    row = world.row()
    assert (row.result, row.verdict) == ("aborted", "aborted")
    assert "the host was restarted" in (row.why or "")


@pytest.mark.parametrize("state", ["staging", "starting", "running", "stopping"])
async def test_run_whose_shim_died_meanwhile_fails(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """In whatever state the last soakd left it."""
    plan = make_plan(duration_s=1000.0)
    first = world.new_run(plan)
    if state == "staging":
        world.shim.mute.add("stage")
    if state == "starting":
        world.net.answers = {"a": [Warming503()] * 1000}
    async with living(first) as scope:
        await state_reached(first, "running" if state == "stopping" else state)
        await trio.sleep(1)
        if state == "stopping":
            await first.ask_stop("ann", 1)
        scope.cancel()
    await world.shim.vanish()
    world.shim.mute.clear()
    await hold(world.run(1, plan))
    row = world.row()
    assert row.state == "finished"
    results = {"staging": "completed", "stopping": "stopped"}
    assert row.result == results.get(state, "failed"), row.why
    if row.result == "failed":
        assert json.loads(row.cause_json or "")["code"] == "shim_gone"


async def test_shim_that_does_not_answer_the_next_soakd_is_given_up_in_time(
    world: World, autojump_clock: MockClock
) -> None:
    """Five seconds each: one bad run does not keep soakd from serving."""
    plan = make_plan(duration_s=1000.0)
    await leave(world.new_run(plan))
    world.shim.reachable = False
    begun_s = trio.current_time()
    run = world.run(1, plan)
    async with living(run):
        await run.settled.wait()
        assert trio.current_time() - begun_s <= 5.1
    assert "does not answer" in (world.row().why or "")


async def test_takeover_while_nodes_start_goes_on(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes that run already are not launched twice; their ports do not stand in the way."""
    plan = make_plan(duration_s=60.0)
    world.net.answers = {"a": [Warming503()] * 10}
    await leave(world.new_run(plan), 2, "starting")

    def held_by_our_own_nodes(port: int) -> ports.Holder | None:
        return ports.Holder(port, "127.0.0.1", 0, world.shim.nodes["a"]["pid"], "rust-mule")

    monkeypatch.setattr(ports, "check_free", held_by_our_own_nodes)
    await hold(world.run(1, plan))
    row = world.row()
    assert (row.result, row.verdict) == ("completed", "passed"), row.why
    assert [call["node"] for call in world.shim.calls if call["verb"] == "launch"] == ["a", "b"]


async def test_takeover_while_staging_stages_again(world: World, autojump_clock: MockClock) -> None:
    """A half-made copy is made anew by the same shim; `begin` is not sent twice."""
    plan = make_plan(duration_s=60.0)
    world.shim.mute.add("stage")
    await leave(world.new_run(plan), 2, "staging")
    world.shim.mute.clear()
    await hold(world.run(1, plan))
    assert world.row().verdict == "passed", world.row().why
    assert world.shim.verbs().count("begin") == 1


async def test_takeover_while_stopping_finishes_the_stop(
    world: World, autojump_clock: MockClock
) -> None:
    """The reason of the stop stands, and its ladder is waited for."""
    world.shim.ladder_s = 8.0
    plan = make_plan(duration_s=1000.0)
    first = world.new_run(plan)
    async with living(first) as scope:
        await state_reached(first, "running")
        await trio.sleep(60)
        await first.ask_stop("ann", 1)
        await until(lambda: "stop" in world.shim.verbs())
        scope.cancel()
    await hold(world.run(1, plan))
    row = world.row()
    assert (row.result, row.verdict, row.why) == ("stopped", "aborted", "stopped by ann")
    assert world.shim.verbs()[-1] == "end"


async def test_completed_run_taken_over_while_stopping_is_judged_as_it_was(
    world: World, autojump_clock: MockClock
) -> None:
    """A restart of soakd between deadline and ladder does not cost the verdict."""
    world.shim.ladder_s = 8.0
    plan = make_plan(duration_s=60.0)
    first = world.new_run(plan)
    async with living(first) as scope:
        await state_reached(first, "stopping")
        await until(lambda: "stop" in world.shim.verbs())
        scope.cancel()
    await hold(world.run(1, plan))
    assert (world.row().result, world.row().verdict) == ("completed", "passed"), world.row().why


async def test_node_that_died_meanwhile_ends_the_run(
    world: World, autojump_clock: MockClock
) -> None:
    """The hello tells it; nobody measures against a dead node."""
    plan = make_plan(duration_s=1000.0)
    await leave(world.new_run(plan))
    world.shim.nodes["b"] |= {"state": "exited", "code": 3}
    await hold(world.run(1, plan))
    cause = json.loads(world.row().cause_json or "")
    assert (cause["code"], cause["node"]) == ("node_exited", "b")
    assert world.row().verdict == "failed"


@pytest.mark.parametrize(
    "held",
    [
        3,
        {"a": 3, "b": None},
        {"a": {"pid": "x", "ticks": 7}, "b": {}},
        {"a": {"pid": 7, "ticks": "x", "state": 3}, "b": {"pid": True}},
        {"a": {"pid": 1 << 80, "ticks": [1], "state": "running"}},
    ],
)
async def test_hello_that_makes_no_sense_fails_the_takeover_alone(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, held: object
) -> None:
    """What the shim says of its nodes is input too."""
    plan = make_plan(duration_s=100.0)
    await leave(world.new_run(plan))
    hello = world.shim._hello() | {"nodes": held}
    monkeypatch.setattr(world.shim, "_hello", lambda: hello)
    await hold(world.run(1, plan))
    assert world.row().result == "failed"
    assert world.shim.process.returncode is not None


@pytest.mark.parametrize("config", [b"\xff\xfe", b"[api\n"], ids=["not UTF-8", "not TOML"])
async def test_spoilt_config_of_a_running_node_does_not_crash_the_takeover(
    world: World, autojump_clock: MockClock, config: bytes
) -> None:
    """The staged config.toml belongs to the user, who may write anything into it."""
    plan = make_plan(duration_s=100.0)
    await leave(world.new_run(plan))
    world.shim.files["a", "config.toml"] = config
    await hold(world.run(1, plan))
    row = world.row()
    assert (row.state, row.result) == ("finished", "completed"), row.why


async def test_takeover_of_a_deleted_account_stops_its_nodes(
    world: World, autojump_clock: MockClock
) -> None:
    """Account gone: the run fails, and nothing of it stays behind unowned."""
    plan = make_plan(duration_s=1000.0)
    await leave(world.new_run(plan))
    world.host.accounts.gone = True  # type: ignore[attr-defined]
    await hold(world.run(1, plan))
    assert world.row().state == "finished"
    assert world.shim.process.returncode is not None


async def test_ladder_walked_while_soakd_was_away_ends_the_run(
    world: World, autojump_clock: MockClock
) -> None:
    """The shim stopped its nodes by itself, say for its latest end."""
    plan = make_plan(duration_s=1000.0)
    await leave(world.new_run(plan))
    world.shim.stopped = {"left": [], "reason": "latest_end"}
    for node in world.shim.nodes.values():
        node |= {"state": "exited", "code": 0}
    await hold(world.run(1, plan))
    row = world.row()
    assert row.result == "failed"


async def test_first_rung_of_the_store_is_the_intent(
    world: World, autojump_clock: MockClock
) -> None:
    """The shim's number and nonce stand in the row before it exists."""
    run = world.new_run()
    at_spawn: list[tuple[int, str | None, int | None]] = []
    spawn = world.shim.spawn

    async def look(**order: Any) -> Any:
        row = world.row()
        at_spawn.append((row.shim_n, row.nonce, row.shim_pid))
        return await spawn(**order)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("soakd.shims.spawn_shim", look)
        await hold(run)
    assert at_spawn == [(1, world.shim.nonce, None)]
    assert isinstance(world.shim.process, FakeProcess)


# -- found by reading --------------------------------------------------------------------------


async def test_disk_is_watched_after_a_takeover_too(
    world: World, autojump_clock: MockClock
) -> None:
    """The budget holds for the run, not for the soakd that began it."""
    plan = make_plan(duration_s=10_000.0)
    await leave(world.new_run(plan))
    object.__setattr__(world.host.config, "disk_max_bytes", 4096)
    run = world.run(1, plan)
    async with living(run):
        await state_reached(run, "running")
        for _ in range(200):
            run.observer.status_sample("a", "x" * 100)
    assert json.loads(world.row().cause_json or "")["code"] == "disk_budget"


async def test_nodes_of_a_lost_run_are_shown_as_they_ended(
    world: World, autojump_clock: MockClock
) -> None:
    """By what the store knows: one had told its exit, the other is simply gone."""
    plan = make_plan(duration_s=1000.0)
    await leave(world.new_run(plan))
    world.host.store.node_exited(1, "a", json.dumps({"code": 3, "signal": None}))
    await world.shim.vanish()
    run = world.run(1, plan)
    await hold(run)
    nodes = {node["name"]: node for node in run.status()["nodes"]}
    assert nodes["a"]["exit"] == {"code": 3, "signal": None}
    assert [nodes[name]["pid"] for name in "ab"] == [None, None]
    assert [nodes[name]["state"] for name in "ab"] == ["exited", "exited"]
    assert not (world.folder() / "logs/b.pid").exists()


async def test_stop_that_comes_to_no_end_is_ended_by_time(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever hangs in the ending: the state's own time uses force and gives the slot back."""

    async def hang(*_args: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr("soakd.ending.Ending.walk", hang)
    run = world.new_run(make_plan(duration_s=10.0))
    await hold(run)
    row = world.row()
    assert (row.result, row.verdict) == ("completed", "harness_error")
    assert "cannot stop the run" in (row.why or "")
    assert world.shim.process.killed


async def test_timer_of_a_state_that_was_left_changes_nothing(
    world: World, autojump_clock: MockClock
) -> None:
    """Its news was under way when the state changed."""
    run = world.new_run(make_plan(duration_s=100.0))
    async with living(run):
        await state_reached(run, "running")
        assert isinstance(await run.tell(run_state.TimedOut()), run_state.Running)
    assert world.row().verdict == "passed"


async def test_news_that_no_state_can_take_is_a_bug_of_ours(
    world: World, autojump_clock: MockClock
) -> None:
    """It ends the run loudly; who brought it is not left waiting."""
    run = world.new_run(make_plan(duration_s=100.0))
    async with living(run):
        await state_reached(run, "running")
        with trio.fail_after(100):
            await run.tell(run_state.Staged())
    assert world.row().verdict == "harness_error"
