"""A shim's life from the announcement to the end, with real processes."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import trio

from soakd.edge.clock import boot_now
from soakd.edge.shim_client import ShimLost, ShimRefused, process_ticks, shim_lock_is_free
from tests.shim import harness
from tests.shim.harness import RunningShim

pytestmark = [pytest.mark.slow, pytest.mark.unmeasured]

NAP = "echo ready >&2; exec sleep 100"


async def test_hello_says_who_and_what(shim: RunningShim) -> None:
    """The first frame names run, nonce and identity; nothing has begun."""
    hello = shim.link.hello
    assert (hello["run"], hello["nonce"], hello["begun"]) == ("r7", shim.nonce, False)
    assert (hello["pid"], hello["ticks"]) == (shim.spawned.pid, process_ticks(shim.spawned.pid))
    assert (hello["nodes"], hello["stopping"], hello["journal_seq"]) == ({}, None, 0)


@pytest.mark.safety
async def test_shim_without_begin_leaves_no_trace(shim: RunningShim) -> None:
    """EOF on stdin before begin: exit 0, no journal, no folder."""
    await shim.spawned.stdin.aclose()
    assert await shim.wait_exit() == 0
    assert shim.journal == []
    assert list(shim.nodes.iterdir()) == []


async def test_stdin_says_nothing_after_begin(shim: RunningShim) -> None:
    """Once begun, the end of soakd is not the end of the run."""
    await shim.begin()
    await shim.spawned.stdin.aclose()
    assert (await shim.stage(harness.program(shim.folder / "s", NAP)))["files"] == 2


async def test_verbs_want_begin_first(shim: RunningShim) -> None:
    """Nothing is touched before begin, and begin comes once."""
    with pytest.raises(ShimRefused, match="begin was not sent") as refused:
        await shim.stage(shim.folder)
    assert refused.value.code == "not_begun"
    await shim.begin()
    with pytest.raises(ShimRefused) as refused:
        await shim.begin()
    assert refused.value.code == "begun"


@pytest.mark.safety
async def test_tokens_are_read_where_begin_has_named_them(shim: RunningShim) -> None:
    """And nowhere else; the ladder of a shim that holds nothing ends at once."""
    token = shim.folder / "their.token"
    token.write_text("t" * 64)
    with pytest.raises(ShimRefused, match="must be absolute"):
        await shim.begin(token_files={"a": "their.token"})
    await shim.begin(token_files={"a": str(token)})
    assert await shim.link.read_token("a") == b"t" * 64
    token.write_text("u" * 64)
    assert await shim.link.read_token("a") == b"u" * 64
    with pytest.raises(ShimRefused) as refused:
        await shim.link.read_token("b")
    assert refused.value.code == "no_such_node"
    await shim.call("stop", reason="test")
    assert (await shim.wait_for("stopped"))["left"] == []
    assert shim.rungs() == []
    assert "uuu" not in json.dumps(shim.journal)
    await shim.call("end")
    assert await shim.wait_exit() == 0


async def test_a_users_token_that_others_may_not_read_stays_unread(dropped: RunningShim) -> None:
    """The shim has its user's rights, not soakd's."""
    token = dropped.folder / "roots.token"
    token.write_text("t" * 64)
    token.chmod(0o600)
    await dropped.begin(token_files={"a": str(token)})
    with pytest.raises(ShimRefused) as refused:
        await dropped.link.read_token("a")
    assert "ttt" not in str(refused.value)


async def test_bad_requests_are_answered_and_survived(shim: RunningShim) -> None:
    """Unknown verbs, wrong types, missing nodes: an error each, and the shim goes on."""
    await shim.begin()
    cases: list[tuple[str, dict[str, object], str]] = [
        ("dance", {}, "unknown_verb"),
        ("read", {"node": "x", "path": "p", "offset": 0, "length": 1}, "no_such_node"),
        ("stage", {"node": "x"}, "no_such_node"),
        ("stage", {"node": "a", "dir": "../x"}, "bad_path"),
        ("stage", {"node": "a", "dir": ".x"}, "bad_path"),
        ("stage", {"node": "a", "dir": "x", "source": "rel"}, "bad_params"),
        ("latest_end", {"boot_s": "soon"}, "bad_params"),
        ("latest_end", {"boot_s": -1}, "bad_params"),
        ("stop", {"reason": 3}, "bad_params"),
    ]
    for verb, params, code in cases:
        with pytest.raises(ShimRefused) as refused:
            await shim.call(verb, **params)
        assert refused.value.code == code, verb


@pytest.mark.safety
async def test_node_runs_alone_in_a_clean_session(shim: RunningShim) -> None:
    """Own session, three descriptors, default signals, no core, only the given environment."""
    script = (
        'cut -d" " -f5,6 /proc/$$/stat; ulimit -c; ulimit -n\n'
        # Without a fork: around one a shell blocks signals for a moment.
        'while IFS= read -r l; do case $l in SigBlk*|SigIgn*|NoNewPrivs*) echo "$l";; esac; done '
        "</proc/$$/status\n"
        "env | sort\n" + NAP
    )
    await shim.begin()
    await shim.stage(harness.program(shim.folder / "s", script))
    env = {"PATH": os.environ["PATH"], "SOAK_TEST": shim.nonce, "X": "ü"}
    made = await shim.launch(env=env, rlimits={"NOFILE": 123})
    await shim.wait_for("stderr", line="ready")
    # The shell's script and sleep's libraries are open for a moment; a leak would stay.
    with trio.fail_after(harness.GUARD_S):
        while sorted(os.listdir(f"/proc/{made['pid']}/fd")) != ["0", "1", "2"]:
            await trio.sleep(0.01)
    lines = shim.output().splitlines()
    assert lines[:3] == [f"{made['pid']} {made['pid']}", "0", "123"]
    status = dict(line.split(":\t") for line in lines[3:6])
    assert [int(status[key], 16) for key in ("SigBlk", "SigIgn")] == [0, 0]
    assert status["NoNewPrivs"] == "1"
    assert [line for line in lines[6:] if line.startswith(("SOAK", "X="))] == [
        f"SOAK_TEST={shim.nonce}",
        "X=ü",
    ]


@pytest.mark.safety
async def test_launch_proves_what_was_executed(shim: RunningShim) -> None:
    """A binary's exe is the staged inode; a script's is its interpreter."""
    await shim.begin()
    source = harness.program(shim.folder / "s", NAP)
    (source / "rust-mule").write_bytes(Path("/bin/sleep").read_bytes())
    digest = (await shim.stage(source))["sha256"]
    assert set(digest) == {"rust-mule", "config.toml"}
    made = await shim.launch(argv=["./rust-mule", "100"])
    staged = (shim.nodes / "mule-a/rust-mule").stat()
    assert (made["exe_dev"], made["exe_ino"]) == (staged.st_dev, staged.st_ino)
    assert (made["file_ino"], made["cwd_ok"], made["script"]) == (staged.st_ino, True, False)
    assert process_ticks(made["pid"]) == made["ticks"]
    seen = await shim.call("inspect", node="a")
    proof = {key: made[key] for key in ("exe_dev", "exe_ino", "file_dev", "file_ino", "cwd_ok")}
    assert seen == {
        "cwd": str(shim.nodes / "mule-a"),
        "exe": str(shim.nodes / "mule-a/rust-mule"),
        "argv": ["./rust-mule", "100"],
        "script": False,
        **proof,
    }
    await shim.stage(harness.program(shim.folder / "t", NAP), "b")
    other = await shim.launch("b")
    assert other["script"]
    assert other["exe_ino"] != other["file_ino"]


@pytest.mark.parametrize(
    ("content", "mode", "cause"),
    [
        (b"#!/nonexistent/sh\n", 0o755, "No such file"),
        (b"#!/bin/sh\n", 0o644, "Permission denied"),
        (b"\x7fELF garbage", 0o755, "Exec format error"),
    ],
)
async def test_failed_exec_is_an_error_with_its_cause(
    shim: RunningShim, content: bytes, mode: int, cause: str
) -> None:
    """What cannot be executed is refused with the kernel's reason and leaves no process."""
    await shim.begin()
    source = harness.program(shim.folder / "s", "")
    (source / "rust-mule").write_bytes(content)
    (source / "rust-mule").chmod(mode)
    await shim.stage(source)
    with pytest.raises(ShimRefused, match=cause) as refused:
        await shim.launch()
    assert refused.value.code == "exec_failed"
    await shim.call("end")
    assert await shim.wait_exit() == 0
    assert [e["event"] for e in shim.journal] == ["begun", "ended"]


async def test_launch_refuses_what_is_not_the_staged_program(shim: RunningShim) -> None:
    """No PATH lookup, no way out of the folder, no link, no second process, no silly limits."""
    await shim.begin()
    await shim.stage(harness.program(shim.folder / "s", NAP))
    (shim.nodes / "mule-a/link").symlink_to("/bin/sh")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"argv": []}, "bad_params"),
        ({"argv": ["/bin/sh"]}, "bad_params"),
        ({"argv": ["./../rust-mule"]}, "bad_path"),
        ({"argv": ["./link"]}, "link"),
        ({"argv": ["./absent"]}, "missing"),
        ({"rlimits": {"CORES": 1}}, "bad_params"),
        ({"rlimits": {"NOFILE": -1}}, "bad_params"),
        ({"env": {"A=B": "x"}}, "bad_params"),
        ({"env": {"A": 1}}, "bad_params"),
    ]
    for changes, code in cases:
        with pytest.raises(ShimRefused) as refused:
            await shim.launch(**changes)
        assert refused.value.code == code, changes
    await shim.launch()
    with pytest.raises(ShimRefused, match="still lives"):
        await shim.launch()
    with pytest.raises(ShimRefused, match="still lives"):
        await shim.stage(shim.folder / "s")
    with pytest.raises(ShimRefused, match="still live"):
        await shim.call("end")


@pytest.mark.parametrize(
    ("script", "ended"),
    [("exit 3", {"code": 3}), ("kill -SEGV $$", {"signal": int(signal.SIGSEGV)})],
)
@pytest.mark.safety
async def test_own_exit_is_reported_and_left_to_soakd(
    shim: RunningShim, script: str, ended: dict[str, int]
) -> None:
    """The exit stands in the event, the journal and a later hello; the node can run again."""
    made = await shim.run_program(f"echo 'Error: App' >&2; {script}")
    event = await shim.wait_for("node_exited", node="a")
    assert ended.items() <= event.items()
    assert event["pid"] == made["pid"]
    # What it said last was heard before its exit was.
    assert [e["event"] for e in shim.events].index("stderr") < shim.events.index(event)
    assert event in shim.journal
    other = await harness.connect(shim)
    state = {"state": "exited", "pid": made["pid"], "ticks": made["ticks"], **ended}
    assert other.hello["nodes"] == {"a": state}
    await other.aclose()


async def test_node_can_be_launched_again_after_its_end(shim: RunningShim) -> None:
    """A second life of the same folder is another process."""
    first = await shim.run_program("exit 0")
    await shim.wait_for("node_exited", pid=first["pid"])
    second = await shim.launch()
    await shim.wait_for("node_exited", pid=second["pid"])
    with pytest.raises(ShimRefused) as refused:
        await shim.call("inspect", node="a")
    assert refused.value.code == "not_running"


async def test_flood_on_stderr_is_kept_whole_and_told_in_part(shim: RunningShim) -> None:
    """Every line is in the file; events are bounded and say how many were dropped."""
    await shim.run_program(
        'i=0; while [ $i -lt 3000 ]; do echo "line $i of a flood" >&2; i=$((i+1)); done\n'
        "head -c 9000 /dev/zero | tr '\\0' x >&2"
    )
    await shim.wait_for("node_exited")
    await shim.call("stop", reason="test")
    await shim.wait_for("stopped")
    assert shim.output().count("of a flood\n") == 3000
    assert shim.output().endswith("x" * 9000)
    told = [e for e in shim.events if e["event"] == "stderr"]
    assert len(told) < 1000
    assert len([e for e in told if e["line"]]) + sum(e.get("dropped", 0) for e in told) == 3001


@pytest.mark.safety
async def test_shim_gone_means_node_gone(shim: RunningShim) -> None:
    """SIGKILL of the shim takes the node with it and frees the lock."""
    made = await shim.run_program(NAP)
    await shim.wait_for("stderr", line="ready")
    lock = shim.folder / "shim.lock"
    assert not shim_lock_is_free(lock)
    fd = os.pidfd_open(made["pid"])
    shim.spawned.process.kill()
    with trio.fail_after(harness.GUARD_S):
        await trio.lowlevel.wait_readable(fd)
    os.close(fd)
    await shim.wait_exit()
    assert shim_lock_is_free(lock)
    with pytest.raises(ShimLost):
        await shim.call("stop", reason="too late")


async def test_newest_connection_wins(shim: RunningShim) -> None:
    """A new soakd takes over; the old connection ends, the run does not."""
    made = await shim.run_program(NAP)
    old = shim.link
    shim.link = await harness.connect(shim)
    assert shim.link.hello["nodes"]["a"]["pid"] == made["pid"]
    assert shim.link.hello["journal_seq"] == 2
    with pytest.raises(ShimLost):
        await old.call("inspect", timeout_s=5, node="a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shim.link.pump)
        assert (await shim.call("inspect", node="a"))["argv"]
        nursery.cancel_scope.cancel()


async def test_garbage_ends_the_connection_only(shim: RunningShim) -> None:
    """A line that is no JSON closes that connection; the next one works."""
    await shim.begin()
    await shim.link._stream.send_all(b"[" * 30_000 + b"\n")
    with pytest.raises(ShimLost):
        await shim.call("list", node="a", path=".")
    other = await harness.connect(shim)
    assert other.hello["begun"]
    await other.aclose()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_signal_to_the_shim_is_ladder_and_end(
    shim: RunningShim, number: signal.Signals
) -> None:
    """Each of the three stops the node politely, is journalled, and ends the shim with 0."""
    await shim.run_program(NAP)
    await shim.wait_for("stderr", line="ready")
    shim.spawned.process.send_signal(number)
    assert await shim.wait_exit() == 0
    journal = shim.journal
    assert journal[-1]["event"] == "ended"
    assert {"event": "stopping", "reason": number.name}.items() <= journal[2].items()


async def test_signal_before_begin_just_ends_it(shim: RunningShim) -> None:
    """There is nothing to stop yet."""
    shim.spawned.process.send_signal(signal.SIGTERM)
    assert await shim.wait_exit() == 0
    assert shim.journal == []


@pytest.mark.safety
async def test_orphaned_shim_stops_its_node_and_ends(shim: RunningShim) -> None:
    """Nobody connected for the grace: ladder, reason in the journal, exit."""
    await shim.begin(orphan_grace_s=0.1)
    await shim.stage(harness.program(shim.folder / "s", NAP))
    await shim.launch()
    await shim.link.aclose()
    assert await shim.wait_exit() == 0
    events = [e["event"] for e in shim.journal]
    assert events[2:4] == ["orphan", "stopping"]
    assert events[-2:] == ["stopped", "ended"]
    assert shim.journal[-2]["left"] == []


@pytest.mark.safety
async def test_latest_end_stops_the_node_but_not_the_shim(shim: RunningShim) -> None:
    """The latest end can be moved; once reached, nodes go and the shim still answers."""
    await shim.run_program(NAP)
    await shim.call("latest_end", boot_s=boot_now() + 0.1)
    stopped = await shim.wait_for("stopped")
    assert (stopped["reason"], stopped["left"]) == ("latest_end", [])
    with pytest.raises(ShimRefused) as refused:
        await shim.launch()
    assert refused.value.code == "stopping"
    assert await shim.link.read_file("a", "config.toml")
    await shim.call("end")
    assert await shim.wait_exit() == 0


async def test_stop_interrupts_a_copy(shim: RunningShim) -> None:
    """A copy under way is given up at once when the run is stopped."""
    await shim.begin()
    source = harness.program(shim.folder / "s", "")
    for number in range(1500):
        (source / f"f{number}").write_bytes(b"x")
    refusals: list[ShimRefused] = []

    async def stage() -> None:
        try:
            await shim.stage(source)
        except ShimRefused as exc:
            refusals.append(exc)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ShimRefused, match="another copy"):
            await shim.stage(source, "b")
        await shim.call("stop", reason="test")
    assert [exc.code for exc in refusals] == ["stopping"]
    assert (await shim.wait_for("stopped"))["left"] == []


async def test_full_file_journey(shim: RunningShim) -> None:
    """Files travel in pieces both ways, modes included, and only below the folder."""
    await shim.begin()
    await shim.stage(harness.program(shim.folder / "s", ""))
    data = os.urandom(100_000)
    await shim.link.replace_file("a", "config.toml", data, 0o600)
    assert await shim.link.read_file("a", "config.toml") == data
    assert (shim.nodes / "mule-a/config.toml").stat().st_mode & 0o7777 == 0o600
    await shim.link.replace_file("a", "empty", b"", 0o644)
    assert await shim.link.read_file("a", "empty") == b""
    listed = await shim.call("list", node="a", path=".")
    assert [e["name"] for e in listed["entries"]] == ["config.toml", "empty", "rust-mule"]
    assert await shim.call("remove", node="a", path="empty") == {"removed": True}
    assert await shim.call("remove", node="a", path="empty") == {"removed": False}
    with pytest.raises(ShimRefused) as refused:
        await shim.call("replace", node="a", path="x", offset=0, total=3, data="no base64", mode=0)
    assert refused.value.code == "bad_params"
    with pytest.raises(ShimRefused, match="another node"):
        await shim.stage(shim.folder / "s", "b", dir="mule-a")


async def test_run_root_is_made_marked_and_linked(shim: RunningShim) -> None:
    """RUN_ROOT gets the marker, the links to the records, and the node folders."""
    root = shim.folder / "x/run-root"
    await shim.begin(run_root=str(root), run_folder=str(shim.folder))
    assert json.loads((root / ".soakd-run-root").read_text())["run"] == "r7"
    assert (root / "logs").readlink() == shim.folder / "logs"
    assert (root / "runner.state").readlink() == shim.folder / "runner.state"
    await shim.stage(harness.program(shim.folder / "s", NAP))
    assert (root / "mule-a/rust-mule").exists()
