"""The ladder against programs that do not want to go."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from soakd.edge.shim_client import process_ticks
from tests.shim.harness import RunningShim

pytestmark = [pytest.mark.slow, pytest.mark.safety, pytest.mark.unmeasured]


async def stop(shim: RunningShim) -> None:
    """Walk the ladder to its end and see that nothing is left."""
    await shim.call("stop", reason="test")
    stopped = await shim.wait_for("stopped")
    assert stopped["left"] == []
    assert shim.survivors() == []
    await shim.call("end")
    assert await shim.wait_exit() == 0


async def test_polite_node_needs_one_sigint(shim: RunningShim) -> None:
    """A node that ends at SIGINT meets no other rung."""
    made = await shim.run_program("trap 'exit 0' INT; echo ready >&2; while :; do sleep 0.1; done")
    await shim.wait_for("stderr", line="ready")
    await stop(shim)
    rungs = [e for e in shim.journal if e["event"] == "rung"]
    assert next((e["rung"], e["pids"], e["n"]) for e in rungs) == ("sigint", [made["pid"]], 1)
    assert {e["rung"] for e in rungs} <= {"sigint", "sigkill"}
    assert {"code": 0}.items() <= (await shim.wait_for("node_exited")).items()


async def test_node_that_ignores_sigint_gets_sigterm(shim: RunningShim) -> None:
    """After the grace comes SIGTERM; the exit tells which signal did it."""
    await shim.run_program("trap '' INT; echo ready >&2; while :; do sleep 0.1; done")
    await shim.wait_for("stderr", line="ready")
    await stop(shim)
    assert shim.rungs()[:2] == ["sigint", "sigterm"]
    assert (await shim.wait_for("node_exited"))["signal"] == 15


async def test_node_that_ignores_both_is_killed_with_its_group(shim: RunningShim) -> None:
    """SIGKILL goes to the whole group, after SIGTERM had its three seconds."""
    await shim.run_program(
        "trap '' INT TERM; sleep 100 & sleep 100 & echo ready >&2; while :; do sleep 0.1; done"
    )
    await shim.wait_for("stderr", line="ready")
    await stop(shim)
    assert shim.rungs()[:3] == ["sigint", "sigterm", "sigkill"]
    killed = next(e for e in shim.journal if e.get("rung") == "sigkill")
    assert len(killed["pids"]) >= 3
    waited = [e["boot_s"] for e in shim.journal if e.get("rung") in ("sigterm", "sigkill")]
    assert 2.9 <= waited[1] - waited[0] <= 4.5


async def test_children_in_the_group_die_after_their_node(shim: RunningShim) -> None:
    """A node that ended on its own left children: the ladder finds them by the group."""
    await shim.run_program("sleep 100 & sleep 100 & exit 0")
    await shim.wait_for("node_exited")
    assert len(shim.survivors()) == 2
    await stop(shim)
    assert shim.rungs() == ["sigkill"]


async def test_daemons_in_their_own_sessions_are_swept(shim: RunningShim) -> None:
    """Double-forked children with sessions of their own become the shim's and are killed."""
    await shim.run_program(
        "(setsid sh -c 'trap \"\" INT TERM; echo one >&2; sleep 100' &)\n"
        "(setsid sh -c 'sleep 100 & echo two >&2; exec sleep 100' &)\n"
        "exec sleep 100"
    )
    await shim.wait_for("stderr", line="one")
    await shim.wait_for("stderr", line="two")
    assert len(shim.survivors()) >= 4
    await stop(shim)
    assert shim.rungs()[-1] == "sweep"


async def test_orphans_are_reaped_while_the_node_runs(shim: RunningShim) -> None:
    """A node that daemonises short-lived children does not fill the table with zombies."""
    await shim.run_program(
        "for i in 1 2 3 4 5 6 7 8; do (setsid true &); done; echo ready >&2; exec sleep 100"
    )
    await shim.wait_for("stderr", line="ready")
    children = f"/proc/{shim.spawned.pid}/task/{shim.spawned.pid}/children"
    with trio.fail_after(10):
        while len((await trio.Path(children).read_text()).split()) > 1:
            await trio.sleep(0.01)
    await stop(shim)


async def test_group_of_a_dead_node_keeps_its_pid_taken(shim: RunningShim) -> None:
    """While a child lives in its group, the dead node stays a zombie: nobody gets its pid."""
    made = await shim.run_program("sleep 100 & echo ready >&2; exit 5")
    assert (await shim.wait_for("node_exited"))["code"] == 5
    await shim.call("list", node="a", path=".")
    assert process_ticks(made["pid"]) == made["ticks"]
    await stop(shim)
    assert process_ticks(made["pid"]) is None


async def test_two_nodes_stop_together(shim: RunningShim) -> None:
    """One rung names both."""
    first = await shim.run_program("exec sleep 100")
    await shim.stage(shim.folder / "source-a", "b")
    second = await shim.launch("b")
    await stop(shim)
    rung = next(e for e in shim.journal if e["event"] == "rung")
    assert sorted(rung["pids"]) == sorted([first["pid"], second["pid"]])


async def test_foreign_process_is_left_alone(shim: RunningShim) -> None:
    """A process that merely stands in the node folder is nobody's business."""
    await shim.run_program("exec sleep 100")
    stranger = await trio.lowlevel.open_process(["sleep", "100"], cwd=shim.nodes / "mule-a")
    try:
        await stop(shim)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        await stranger.wait()


async def test_fork_bomb_in_its_own_sessions_is_caught(dropped: RunningShim) -> None:
    """A chain that forks itself on every few milliseconds dies in the sweep."""
    await dropped.run_program(
        "echo 'sleep 0.01; setsid sh ./hop & exit 0' > hop; setsid sh ./hop &\n"
        "echo ready >&2; exec sleep 100"
    )
    await dropped.wait_for("stderr", line="ready")
    await stop(dropped)


async def test_dropped_node_has_no_right_of_root(dropped: RunningShim) -> None:
    """Uid, gid, groups and capabilities of node and shim are the submitter's."""
    made = await dropped.run_program("echo ready >&2; exec sleep 100")
    await dropped.wait_for("stderr", line="ready")
    for pid in (made["pid"], dropped.spawned.pid):
        text = await trio.Path(f"/proc/{pid}/status").read_text()
        status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        assert status["Uid"].split() == status["Gid"].split() == ["65534"] * 4
        assert status["Groups"].strip() == ""
        assert int(status["CapEff"], 16) == 0
        assert status["NoNewPrivs"] == "1"
    assert (dropped.nodes / "mule-a/rust-mule").stat().st_uid == 65534
    # Not dumpable: /proc shows the shim as root's, so a node cannot look into it.
    assert Path(f"/proc/{dropped.spawned.pid}/fd").stat().st_uid == 0
    await stop(dropped)


async def test_dropped_shim_is_small(dropped: RunningShim) -> None:
    """As shipped it stays below 15 MB, after it has copied and launched."""
    await dropped.run_program("echo ready >&2; exec sleep 100")
    await dropped.wait_for("stderr", line="ready")
    text = await trio.Path(f"/proc/{dropped.spawned.pid}/status").read_text()
    peak_kb = next(int(line.split()[1]) for line in text.splitlines() if "VmHWM" in line)
    assert peak_kb <= 15 * 1024
    await stop(dropped)
