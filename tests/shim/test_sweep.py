"""The sweep after a dead shim: all that is the run's goes, nothing else is touched."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import trio

from soakd.edge import shim_client
from soakd.edge.shim_client import staged_programs
from soakd.shim import evidence
from soakd.shim.evidence import Verdict
from tests.shim import harness, scene
from tests.shim.harness import RunningShim
from tests.shim.scene import BARE, Scene, alive

pytestmark = [pytest.mark.slow, pytest.mark.safety]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has other uids")


# -- what must go ------------------------------------------------------------------------------


async def test_leftovers_of_a_killed_shim_are_found_by_each_evidence(dead: Scene) -> None:
    """Nonce, own binary (also removed since), working folder, command line: all are killed."""
    script = dead.home / "helper"
    script.write_text("#!/bin/sh\nexec 3<&0\nwhile :; do sleep 1; done\n")
    script.chmod(0o755)
    root = Path("/")
    renamed = ("/bin/bash", "-c", f"exec -a x {dead.home}/rust-mule 100")
    expected = {
        "nonce": dead.orphan("sleep", "100", cwd=root, env=dead.env()),
        "program": dead.orphan(*renamed, cwd=root),
        "folder": dead.orphan("sleep", "100", cwd=dead.home),
        "command": dead.orphan(str(script), cwd=root),
        "option": dead.orphan(
            "sh", "-c", "while :; do sleep 1; done", f"--dir={dead.home}", cwd=root
        ),
        "stopped": dead.orphan("sh", "-c", "kill -STOP $$; :", cwd=root, env=dead.env()),
        "stubborn": dead.orphan(
            "sh", "-c", "trap '' INT TERM HUP; while :; do sleep 1; done", cwd=dead.home
        ),
    }
    (dead.home / "rust-mule").unlink()
    swept = await dead.sweep()
    assert set(expected.values()) <= set(swept.killed)
    assert (swept.left, swept.spared) == ((), ())
    assert [name for name, pid in expected.items() if alive(pid)] == []


async def test_daemons_outlive_their_shim_but_not_the_sweep(shim: RunningShim) -> None:
    """A real shim is killed: its node dies with it, the grandchildren in the sweep."""
    await outlive_and_sweep(shim)


async def test_daemons_of_a_user_are_swept_as_shipped(dropped: RunningShim) -> None:
    """The same with another uid and the shipped zip."""
    await outlive_and_sweep(dropped)


async def outlive_and_sweep(shim: RunningShim) -> None:
    """Leave daemons, a stopped process and one with an empty environment; then sweep twice."""
    await shim.begin()
    script = (
        "(setsid sh -c 'trap \"\" INT TERM; (setsid sleep 100 &) ; sleep 100; :' &)\n"
        "(cd / && setsid sh -c 'kill -STOP $$; :' &)\n"
        "(setsid env -i sleep 100 &)\n"
        "sleep 0.2; echo ready >&2; exec sleep 100"
    )
    await shim.stage(harness.program(shim.folder / "s", script))
    env = {"PATH": os.environ["PATH"], "SOAK_TEST": shim.nonce, "SOAK_RUN_NONCE": shim.nonce}
    node = await shim.launch(env=env)
    await shim.wait_for("stderr", line="ready")
    shim.spawned.process.kill()
    await shim.wait_exit()
    with trio.fail_after(harness.GUARD_S):
        while alive(node["pid"]):
            await trio.sleep(0.01)
    assert len(shim.survivors()) >= 3
    made = Scene(shim.folder, shim.credentials)
    made.nonce, made.started_ticks = shim.nonce, shim.spawned.ticks
    made.programs = staged_programs((shim.folder / "shim.ndjson").read_bytes())
    info = (shim.nodes / "mule-a/rust-mule").stat()
    assert made.programs == ((info.st_dev, info.st_ino),)
    swept = await made.sweep()
    assert len(swept.killed) >= 4
    assert (swept.left, shim.survivors()) == ((), [])
    assert shim.journal[-1]["event"] == "swept"
    assert shim.journal[-1]["killed"] == list(swept.killed)
    assert not (shim.folder / "shim" / "0.sock").exists()
    assert (await made.sweep()).killed == ()


async def test_chain_that_forks_itself_on_is_caught(dead: Scene) -> None:
    """New pids all the time: the scan follows without a pause."""
    hop = dead.home / "hop"
    hop.write_text("sleep 0.02; setsid sh ./hop & exit 0\n")
    dead.orphan("sh", "-c", "sh ./hop; exec sleep 100", cwd=dead.home, env=dead.env())
    swept = await dead.sweep()
    assert swept.left == ()
    label = f"SOAK_RUN_NONCE={dead.nonce}".encode()
    assert not any(harness._bears(p, label) for p in Path("/proc").glob("[0-9]*/environ"))


# -- what must stay ----------------------------------------------------------------------------


async def test_unrelated_namesakes_are_not_even_mentioned(dead: Scene) -> None:
    """Same name, same binary path below another run, a listener: no evidence, no word."""
    other = dead.folder / "other" / "nodes" / "mule-a"
    other.mkdir(parents=True)
    for path in (other / "rust-mule", dead.folder / "rust-mule"):
        path.write_bytes(Path("/bin/sleep").read_bytes())
        path.chmod(0o755)
    code = "import socket,time; s=socket.create_server(('127.0.0.1',0)); time.sleep(100)"
    strangers = [
        dead.orphan("./rust-mule", "100", cwd=dead.folder),
        dead.orphan("./rust-mule", "100", cwd=other, env={**BARE, "SOAK_RUN_NONCE": "other"}),
        dead.orphan(sys.executable, "-c", code, cwd=Path("/")),
        # The folder that holds the node folders is none; its name's beginning is another's.
        dead.orphan("sleep", "100", cwd=dead.home.parent),
        dead.orphan(
            "sh", "-c", "while :; do sleep 1; done", f"{dead.home.parent}-2/x", cwd=Path("/")
        ),
    ]
    swept = await dead.sweep()
    assert all(alive(pid) for pid in strangers)
    assert swept == shim_client.Swept((), (), ())


async def test_owners_shell_and_tail_in_the_folder_are_spared(dead: Scene) -> None:
    """A terminal, a living parent, a login behind it, terminals held for others: spared, named."""
    log = dead.home / "log"
    log.write_text("x\n")
    with scene.terminal() as tty, scene.terminal() as tty2, scene.terminal() as tty3:
        child = await trio.lowlevel.open_process(["sleep", "100"], cwd=dead.home, env=BARE)
        strangers = {
            dead.on_terminal("tail", "-f", str(log), cwd=dead.home, tty=tty): "has a terminal",
            dead.on_terminal("sh", "-i", cwd=dead.home, tty=tty2): "has a terminal",
            dead.orphan(
                "tail", "-f", str(log), cwd=Path("/"), env={**BARE, "TERM": "xterm"}
            ): "was started from a login",
            child.pid: f"its parent {os.getpid()} lives",
        }
        holder = dead.orphan(
            "sh", "-c", f"sh -c 'setsid -c sleep 100 <{tty3}; :'; :", cwd=dead.home
        )
        await trio.sleep(0.2)
        swept = await dead.sweep()
        spared = dict(swept.spared)
        assert all(alive(pid) for pid in (*strangers, holder))
        for pid, why in strangers.items():
            assert spared[pid].endswith(f"but {why}"), spared[pid]
        assert spared[holder].endswith("but holds a terminal for others")
        assert (swept.killed, swept.left) == ((), ())
        child.kill()
        await child.wait()


async def test_next_run_in_the_same_folder_is_spared(dead: Scene) -> None:
    """A RUN_ROOT is used again, even its inodes: the other run's nonce outweighs it all."""
    pid = dead.orphan("./rust-mule", "100", cwd=dead.home, env={**BARE, "SOAK_RUN_NONCE": "r8"})
    swept = await dead.sweep()
    assert alive(pid)
    assert dict(swept.spared)[pid].endswith(
        "executes the run's program, but bears the nonce of another run"
    )


async def test_inode_given_to_another_file_proves_nothing(dead: Scene) -> None:
    """The staged binary was removed and its inode went to a program elsewhere."""
    other = dead.folder / "tool"
    other.write_bytes(Path("/bin/sleep").read_bytes())
    other.chmod(0o755)
    info = other.stat()
    dead.programs = ((info.st_dev, info.st_ino),)
    pid = dead.orphan("./tool", "100", cwd=dead.folder)
    assert await dead.sweep() == shim_client.Swept((), (), ())
    assert alive(pid)


async def test_what_is_older_than_the_run_is_spared(dead: Scene) -> None:
    """Even with the nonce: it cannot have come from this run."""
    pid = dead.orphan("sleep", "100", cwd=dead.home, env=dead.env())
    await trio.sleep(0.05)
    dead.started_ticks = scene.own_ticks()
    swept = await dead.sweep()
    assert alive(pid)
    assert swept.spared == ((pid, "'sleep' bears the run's nonce, but is older than the run"),)


@needs_root
async def test_copied_nonce_of_another_uid_is_spared(dead: Scene) -> None:
    """Real or effective uid another's: even root's sweeper, whom the kernel lets, spares it."""
    pids = [
        dead.orphan("sleep", "100", cwd=dead.home, env=dead.env(), uid=65534),
        dead.orphan(
            sys.executable, "-c", "import os,time; os.setresuid(65534,0,0); time.sleep(100)",
            cwd=Path("/"), env=dead.env(),
        ),
    ]  # fmt: skip
    await trio.sleep(0.3)
    swept = await dead.sweep()
    spared = dict(swept.spared)
    assert all(spared[pid].endswith("but is another user's") for pid in pids)
    assert all(alive(pid) for pid in pids)


@needs_root
async def test_sweeper_of_a_user_reaches_nobody_else(dead_of_nobody: Scene) -> None:
    """As shipped: root's process with nonce, folder and binary lives; the user's own dies."""
    made = dead_of_nobody
    foreign = made.orphan("./rust-mule", "100", cwd=made.home, env=made.env())
    own = made.orphan("./rust-mule", "100", cwd=made.home, env=made.env(), uid=65534)
    swept = await made.sweep()
    assert swept.killed == (own,)
    assert alive(foreign)
    assert not alive(own)


@needs_root
def test_reused_pid_is_not_hit(dead: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between scan and signal the pid goes to a stranger, or to another process of the run."""
    sweeping = scene.in_process(dead, monkeypatch)
    for env in (BARE, dead.env()):
        pid = dead.orphan("sleep", "100", cwd=dead.home, env=dead.env())
        row = evidence.look(pid)
        assert row is not None
        verdict = Verdict(pid, row.ticks, "bears the run's nonce", None)
        os.kill(pid, signal.SIGKILL)
        stranger = scene.start_as(pid, env)
        try:
            assert not sweeping._kill(verdict, {})
            assert stranger.poll() is None
        finally:
            stranger.kill()
            stranger.wait()


def test_sweeper_and_its_parents_are_never_touched(
    dead: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if soakd itself bore every evidence."""
    sweeping = scene.in_process(dead, monkeypatch)
    monkeypatch.setattr(
        evidence, "_environ", lambda _pid: [f"SOAK_RUN_NONCE={dead.nonce}".encode()]
    )
    row = evidence.look(os.getpid())
    assert row is not None
    judge = sweeping._judge
    for pid in (os.getpid(), os.getppid(), 1):
        verdict = judge.judge(pid, row, {})
        assert verdict is not None
        assert verdict.spared is not None
        assert not sweeping._kill(verdict, {})
