"""What a bug in the shim itself may cost: an answer or the run, never a node left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from soakd.edge.shim_client import ShimRefused
from tests.shim import harness

pytestmark = pytest.mark.slow

BROKEN_VERB = """
from soakd.shim import files
def broken(*_): raise RuntimeError("a bug")
files.list_folder = broken
"""
LARGE_ANSWER = """
from soakd.shim import files
files.list_folder = lambda *_: {"entries": "x" * 70000}
"""
BROKEN_TIMER = """
from soakd.shim import loop
original = loop.Shim._check_timers
def once(self):
    if self.processes.running() and not self.stopping:
        raise RuntimeError("a bug")
    original(self)
loop.Shim._check_timers = once
"""
BROKEN_LOOP = """
from soakd.shim import processes
original = processes.Processes.collect
def broken(self):
    original(self)
    if self.running():
        raise RuntimeError("a bug")
processes.Processes.collect = broken
"""
NAP = "exec sleep 100"


@pytest.mark.parametrize(
    ("sabotage", "code"), [(BROKEN_VERB, "internal"), (LARGE_ANSWER, "too_big")]
)
async def test_failing_verb_is_an_answer(
    short_dir: Path,
    child_env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    sabotage: str,
    code: str,
) -> None:
    """The caller hears of it and the nodes run on."""
    harness.run_from_source(monkeypatch, child_env, sabotage)
    async with harness.running_shim(short_dir) as shim:
        shim.sound = False
        await shim.run_program(NAP)
        with pytest.raises(ShimRefused) as refused:
            await shim.call("list", node="a", path=".")
        assert refused.value.code == code
        # The node's shell may not have become its program yet.
        with trio.fail_after(harness.GUARD_S):
            while (await shim.call("inspect", node="a"))["argv"][-1] != "100":
                await trio.sleep(0.01)


async def test_failing_loop_stops_the_nodes_in_order(
    short_dir: Path, child_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error outside of any verb begins the ladder, and soakd is told."""
    harness.run_from_source(monkeypatch, child_env, BROKEN_TIMER)
    async with harness.running_shim(short_dir) as shim:
        shim.sound = False
        await shim.run_program(NAP)
        stopped = await shim.wait_for("stopped")
        assert stopped["left"] == []
        assert "internal error" in stopped["reason"]
    assert "RuntimeError: a bug" in (short_dir / "runner.out").read_text()


@pytest.mark.safety
async def test_loop_that_keeps_failing_takes_its_nodes_along(
    short_dir: Path, child_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shim that can do nothing more kills what it holds and ends with 1."""
    harness.run_from_source(monkeypatch, child_env, BROKEN_LOOP)
    async with harness.running_shim(short_dir) as shim:
        shim.sound = False
        await shim.begin()
        await shim.stage(harness.program(short_dir / "s", "trap '' INT TERM; sleep 100"))
        await shim.launch()
        assert await shim.wait_exit() == 1
        assert shim.journal[-1]["event"] == "ended"


FULL_DISK = """
import json, os
full = os.open("/dev/full", os.O_WRONLY)
os.dup2(full, 2)
os.dup2(full, json.loads(sys.argv[1])["fds"]["journal"])
"""


@pytest.mark.safety
async def test_full_disk_does_not_end_the_holder_of_the_nodes(
    short_dir: Path, child_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither journal nor stderr takes a byte: the node lives, and is stopped and reaped."""
    harness.run_from_source(monkeypatch, child_env, FULL_DISK)
    async with harness.running_shim(short_dir) as shim:
        made = await shim.run_program("trap 'exit 0' INT; echo up >&2; while :; do sleep 0.1; done")
        await shim.wait_for("stderr", line="up")
        await shim.call("stop", reason="test")
        assert (await shim.wait_for("stopped"))["left"] == []
        ended = await shim.wait_for("node_exited")
        assert (ended["pid"], ended["code"]) == (made["pid"], 0)
        await shim.call("end")
        assert await shim.wait_exit() == 0
