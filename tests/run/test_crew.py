"""The crew and the staging against real shims of our own uid; nodes are shell scripts."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from soakd.core.errors import HostError, NodeError, SoakError, UserError
from soakd.core.plan import NodePlan, Plan
from soakd.crew import Crew
from soakd.edge import cgroup
from soakd.edge.clock import boot_id
from soakd.edge.config import Config
from soakd.edge.journal import RunFolder
from soakd.edge.peers import Account
from soakd.edge.pidfds import start_ticks
from soakd.edge.shim_client import ShimLost, SpawnedShim, spawn_shim
from soakd.edge.store import RunRow, Store
from soakd.host import Host
from soakd.listeners import Process
from soakd.staging import Staging
from tests.run.kit import UID, add_run, make_host, make_plan

ME = Account(UID, os.getegid(), (), "me", "/home/me", "/bin/sh")
WAIT = "echo out; echo err >&2; while :; do sleep 0.05; done"
DEAF = "trap '' INT TERM; " + WAIT


class Ground:
    """A host with one run and its folder; every shim that was spawned is surely gone later."""

    def __init__(self, tmp_path: Path, store: Store, **config: Any) -> None:
        self.host = make_host(tmp_path / "state", store, **config)
        self.host.state_dir.mkdir()
        self.sources = tmp_path / "sources"
        nodes = tuple(
            NodePlan(name, str(self.sources / name), "127.0.0.1", port, roles)
            for name, port, roles in (("a", 20_001, ("publisher",)), ("b", 20_002, ("searcher",)))
        )
        self.plan = make_plan(nodes=nodes, stop_grace_s=0.2)
        add_run(self.host, self.plan)
        self.folder = RunFolder.create(self.host.state_dir, 1, UID, system=False)
        self.spawned: list[SpawnedShim] = []

    def source(self, name: str, script: str = WAIT, config: str | None = "[api]\n") -> str:
        """Make a source folder; returns its program's SHA-256."""
        folder = self.sources / name
        (folder / "data").mkdir(parents=True, exist_ok=True)
        program = f"#!/bin/sh\n{script}\n"
        (folder / "rust-mule").write_text(program)
        (folder / "rust-mule").chmod(0o755)
        if config is not None:
            (folder / "config.toml").write_text(config)
        return hashlib.sha256(program.encode()).hexdigest()

    def crew(self, plan: Plan | None = None, host: Host | None = None) -> Crew:
        return Crew(host or self.host, 1, plan or self.plan)

    def row(self) -> RunRow:
        row = self.host.store.get_run(1)
        assert row is not None
        return row

    def staged(self, name: str) -> Path:
        return self.folder.path / "nodes" / f"mule-{name}"

    async def spawn(self, **order: Any) -> SpawnedShim:
        shim = await spawn_shim(**order)
        self.spawned.append(shim)
        return shim

    async def clean(self) -> None:
        with trio.CancelScope(shield=True):
            for shim in self.spawned:
                with suppress(ProcessLookupError):
                    shim.process.send_signal(signal.SIGCONT)
                shim.process.kill()
                await shim.process.wait()
                await shim.stdin.aclose()
        self.folder.close()


@pytest.fixture
async def ground(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Ground]:
    made = Ground(tmp_path, store)
    monkeypatch.setattr("soakd.shims.spawn_shim", made.spawn)
    yield made
    await made.clean()


@asynccontextmanager
async def heard(crew: Crew) -> AsyncIterator[list[dict[str, Any]]]:
    """Read what the shim says, as the observer does."""
    events: list[dict[str, Any]] = []

    async def listen() -> None:
        async for event in crew.connection.events:
            events.append(event)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(crew.connection.pump)
        nursery.start_soon(listen)
        yield events
        nursery.cancel_scope.cancel()


async def wait_for(holds: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not holds():
            await trio.sleep(0.01)


async def launched(ground: Ground, crew: Crew, name: str = "a") -> Process:
    staging = Staging(crew, ground.plan, "r1")
    node = next(node for node in ground.plan.nodes if node.name == name)
    await staging.stage(node, None)
    return await staging.launch(node, staging.node_env(node))


def gone(process: Process) -> bool:
    return start_ticks(process.pid) != process.ticks


# -- coming ------------------------------------------------------------------------------------


async def test_hired_shim_is_in_the_store_before_it_may_do_anything(ground: Ground) -> None:
    """Intent first, then who it is; it has begun nothing by then."""
    at_spawn: list[RunRow] = []
    spawn = ground.spawn

    async def look(**order: Any) -> SpawnedShim:
        at_spawn.append(ground.row())
        return await spawn(**order)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("soakd.shims.spawn_shim", look)
        crew = ground.crew()
        assert not crew.is_connected
        await crew.hire(ground.folder, 1, ME)
    intent, row = at_spawn[0], ground.row()
    assert (intent.shim_n, intent.shim_pid) == (1, None)
    assert intent.nonce == row.nonce == crew.nonce
    assert len(crew.nonce) == 32
    assert (row.shim_pid, row.boot_id) == (ground.spawned[0].pid, boot_id())
    assert start_ticks(row.shim_pid or 0) == row.shim_ticks
    assert crew.connection.hello["begun"] is False
    assert not (ground.folder.path / "nodes").exists()
    await crew.put_down()


async def test_failed_hire_leaves_nothing(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong behind the spawn: the shim is gone and reaped."""

    async def fails(*_args: object) -> None:
        raise ShimLost("cannot connect")

    monkeypatch.setattr("soakd.crew.connect_shim", fails)
    with pytest.raises(HostError, match="cannot use the shim: cannot connect"):
        await ground.crew().hire(ground.folder, 1, ME)
    assert ground.spawned[0].process.returncode == 0


async def test_cancelled_hire_leaves_nothing(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """soakd leaves, or the run is stopped, just then."""
    scope = trio.CancelScope()

    async def hangs(*_args: object) -> None:
        scope.cancel()
        await trio.sleep_forever()

    monkeypatch.setattr("soakd.crew.connect_shim", hangs)
    with scope:
        await ground.crew().hire(ground.folder, 1, ME)
    assert scope.cancelled_caught
    assert ground.spawned[0].process.returncode == 0


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_hire_keeps_no_descriptor_of_the_shims(ground: Ground) -> None:
    """Above all not the lock: it is free only when the shim is dead."""
    crew = ground.crew()
    await crew.hire(ground.folder, 1, ME)
    links = {
        os.readlink(f"/proc/self/fd/{name}")
        for name in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{name}")
    }
    assert not any(link.endswith(("shim.lock", "shim.ndjson", "a.out")) for link in links)
    await crew.put_down()


async def test_hire_that_runs_out_of_files_leaks_none(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full when the last of them is made."""
    opened = RunFolder.open_for_child

    def fails(folder: RunFolder, name: str) -> int:
        if name == "logs/runner.out":
            raise HostError("internal", "cannot open: disk full")
        return opened(folder, name)

    monkeypatch.setattr(RunFolder, "open_for_child", fails)
    before = open_fds()
    with pytest.raises(HostError, match="disk full"):
        await ground.crew().hire(ground.folder, 1, ME)
    assert open_fds() == before


async def test_begin_makes_the_nodes_folder_and_sets_the_times(ground: Ground) -> None:
    """The shim knows its latest end from then on."""
    crew = ground.crew()
    await crew.hire(ground.folder, 1, ME)
    async with heard(crew):
        await crew.begin(ground.folder, 5.0)
        assert (ground.folder.path / "nodes").stat().st_mode & 0o777 == 0o700
        with pytest.raises(UserError, match="cannot begin: it has begun already"):
            await crew.begin(ground.folder, 5.0)
    await crew.put_down()


async def test_run_root_is_used_and_a_foreign_one_refused(ground: Ground, tmp_path: Path) -> None:
    """Nodes stand there, with links to the records; somebody's folder is not emptied."""
    root = tmp_path / "root"
    plan = replace(ground.plan, run_root=str(root))
    crew = ground.crew(plan)
    await crew.hire(ground.folder, 1, ME)
    root.mkdir()
    (root / "precious").touch()
    async with heard(crew):
        with pytest.raises(UserError) as refused:
            await crew.begin(ground.folder, 5.0)
        assert refused.value.code == "refused"
        assert (root / "precious").exists()
        (root / "precious").unlink()
        await crew.begin(ground.folder, 5.0)
    assert (root / "logs").readlink() == ground.folder.path / "logs"
    await crew.put_down()


# -- staging -----------------------------------------------------------------------------------


@asynccontextmanager
async def begun(ground: Ground, plan: Plan | None = None) -> AsyncIterator[tuple[Crew, Staging]]:
    """A shim that has begun, and the staging through it."""
    crew = ground.crew(plan)
    await crew.hire(ground.folder, 1, ME)
    try:
        async with heard(crew):
            await crew.begin(ground.folder, 600.0)
            yield crew, Staging(crew, plan or ground.plan, "r1")
    finally:
        with trio.CancelScope(shield=True):
            await crew.put_down()


async def test_node_is_staged_as_the_plan_wants_it(ground: Ground) -> None:
    """Copied, edited, verified; locks and identity stay behind; the source is untouched."""
    sha256 = ground.source("a", config="[api]\nport = 1 # mine\n")
    source = ground.sources / "a"
    for name in ("rust-mule.lock", "sam.keys", "api.token", "kept.dat"):
        (source / "data" / name).write_text("x")
    (source / "data" / "logs").mkdir()
    (source / "data" / "logs" / "old.log").write_text("x")
    async with begun(ground) as (_, staging):
        staged = await staging.stage(ground.plan.nodes[0], sha256)
        config = tomllib.loads((ground.staged("a") / "config.toml").read_text())
        assert config["api"]["port"] == ground.plan.nodes[0].port
        assert (staged.program_sha256, staged.config.data_dir) == (sha256, "data")
        assert sorted(os.listdir(ground.staged("a") / "data")) == ["kept.dat"]
        assert (ground.staged("a") / "config.toml").stat().st_mode & 0o777 == 0o600
    assert (source / "data" / "sam.keys").exists()
    assert "port = 1 # mine" in (source / "config.toml").read_text()


async def test_identity_is_kept_where_the_user_wants_it(ground: Ground) -> None:
    """The lock file goes all the same."""
    ground.source("a")
    for name in ("rust-mule.lock", "sam.keys", "api.token"):
        (ground.sources / "a" / "data" / name).write_text("x")
    plan = replace(ground.plan, fresh_identity=False)
    async with begun(ground, plan) as (_, staging):
        await staging.stage(plan.nodes[0], None)
        assert sorted(os.listdir(ground.staged("a") / "data")) == ["api.token", "sam.keys"]


async def test_node_without_a_config_gets_one(ground: Ground) -> None:
    """The program would run with all its defaults else."""
    ground.source("a", config=None)
    async with begun(ground) as (_, staging):
        staged = await staging.stage(ground.plan.nodes[0], None)
        assert (ground.staged("a") / "config.toml").read_text() == staged.config.text


async def test_program_that_changed_is_refused_unless_the_latest_is_wanted(ground: Ground) -> None:
    """It is not what the user queued."""
    sha256 = ground.source("a")
    async with begun(ground) as (crew, staging):
        with pytest.raises(UserError, match="rust-mule changed since you queued it"):
            await staging.stage(ground.plan.nodes[0], "0" * 64)
        latest = Staging(crew, replace(ground.plan, latest=True), "r1")
        staged = await latest.stage(ground.plan.nodes[0], "0" * 64)
        assert staged.program_sha256 == sha256


async def test_what_cannot_be_staged_is_named(ground: Ground) -> None:
    """No folder, no program, a config that is no text, no TOML, or too long."""
    a, b = ground.plan.nodes
    async with begun(ground) as (_, staging):
        with pytest.raises(UserError, match="No such file"):
            await staging.stage(a, None)
        (ground.sources / "b").mkdir(parents=True)
        with pytest.raises(UserError, match=r"there is no rust-mule in .*/b"):
            await staging.stage(b, None)
        ground.source("a")
        path = ground.sources / "a" / "config.toml"
        for data, error, words in (
            (b"\xff\xfe", NodeError, "not UTF-8"),
            (b"[api", NodeError, "mend it in"),
            (b"#" * 300_000, SoakError, None),
            (b"x = '" + b"y" * 262_000 + b"'\n", SoakError, None),
        ):
            path.write_bytes(data)
            with pytest.raises(error, match=words):
                await staging.stage(a, None)


# -- launching ---------------------------------------------------------------------------------


@pytest.mark.safety
async def test_launched_node_is_the_staged_program_in_its_own_folder(ground: Ground) -> None:
    """With a built environment and its output in the run's files."""
    ground.source("a", f"env > seen; pwd >> seen; {WAIT.replace('echo out', 'echo started')}")
    async with begun(ground) as (crew, staging):
        process = await launched(ground, crew)
        assert start_ticks(process.pid) == process.ticks
        assert process.uid == UID
        await staging.verify_running(ground.plan.nodes[0])
        await wait_for(lambda: "started" in (ground.folder.path / "logs/a.out").read_text())
        seen = (ground.staged("a") / "seen").read_text().splitlines()
        assert str(ground.staged("a")) in seen
        assert {f"SOAK_RUN_NONCE={crew.nonce}", "HOME=/home/me", "USER=me"} <= set(seen)
        assert not any(line.startswith("PYTEST") for line in seen)
    assert gone(process)


async def test_program_that_cannot_be_executed_is_the_nodes_fault(ground: Ground) -> None:
    """With the kernel's reason."""
    ground.source("a")
    (ground.sources / "a" / "rust-mule").chmod(0o644)
    async with begun(ground) as (crew, _):
        with pytest.raises(NodeError, match="cannot start node a: cannot execute"):
            await launched(ground, crew)


@pytest.mark.safety
async def test_wrapper_that_becomes_another_program_is_found_out(ground: Ground) -> None:
    """What answers on the port would not be what was submitted."""
    ground.source("a", "exec sleep 1000")
    async with begun(ground) as (crew, staging):
        process = await launched(ground, crew)
        await wait_for(lambda: b"sleep" in Path(f"/proc/{process.pid}/cmdline").read_bytes())
        with pytest.raises(NodeError, match="runs in place of the staged rust-mule"):
            await staging.verify_running(ground.plan.nodes[0])


@pytest.mark.safety
async def test_wrapper_that_goes_to_another_folder_is_found_out(ground: Ground) -> None:
    """Such as one that starts the program of the source folder, under the very same names."""
    elsewhere = ground.sources / "other" / "mule-a"
    elsewhere.mkdir(parents=True)
    (elsewhere / "rust-mule").write_text("echo gone; sleep 1000\n")
    # Not before the look that follows the launch, which would see it too.
    ground.source("a", f"sleep 0.3; cd {elsewhere}; exec sh ./rust-mule")
    async with begun(ground) as (crew, staging):
        await launched(ground, crew)
        await wait_for(lambda: "gone" in (ground.folder.path / "logs/a.out").read_text())
        with pytest.raises(NodeError, match="left its own folder for .*/other/mule-a"):
            await staging.verify_running(ground.plan.nodes[0])


async def test_node_that_has_ended_is_nobody_to_be_verified(ground: Ground) -> None:
    """The news of its end says why; the look that comes too late says nothing."""
    ground.source("a", "exit 3")
    async with begun(ground) as (crew, staging):
        process = await launched(ground, crew)
        await wait_for(lambda: gone(process))
        await staging.verify_running(ground.plan.nodes[0])


@pytest.mark.parametrize(
    ("exe", "argv", "fits"),
    [
        ("/nodes/mule-a/rust-mule", ["./rust-mule"], True),
        ("/usr/bin/python3", ["python3", "./rust-mule"], True),
        ("/usr/bin/sleep", ["sleep", "9"], False),
    ],
)
async def test_shim_of_the_first_release_proves_by_names(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, exe: str, argv: list[str], *, fits: bool
) -> None:
    """It outlives an upgrade of soakd and tells no inodes."""
    async with begun(ground) as (crew, staging):

        async def inspect(_verb: str, **_params: object) -> dict[str, Any]:
            await trio.lowlevel.checkpoint()
            return {"cwd": "/nodes/mule-a", "exe": exe, "argv": argv}

        monkeypatch.setattr(crew.connection, "call", inspect)
        if fits:
            await staging.verify_running(ground.plan.nodes[0])
        else:
            with pytest.raises(NodeError, match="runs in place of the staged rust-mule"):
                await staging.verify_running(ground.plan.nodes[0])
        monkeypatch.undo()


async def test_node_files_are_read_through_the_shim(ground: Ground) -> None:
    """A missing one is the node's affair, a lost shim ours."""
    ground.source("a", f"printf token > data/api.token; {WAIT}")
    async with begun(ground) as (crew, staging):
        await launched(ground, crew)
        read = staging.file_reader("a")
        with trio.fail_after(10):
            while True:
                with suppress(NodeError):
                    if await read("data/api.token") == b"token":
                        break
        with pytest.raises(NodeError) as missing:
            await read("data/none")
        assert missing.value.code == "no_file"
        with pytest.raises(NodeError):
            await read("../../../plan.json")
        await crew.close()
        with pytest.raises(HostError, match="the shim is lost"):
            await read("data/api.token")
        for call in (
            staging.launch(ground.plan.nodes[0], {}),
            staging.stage(ground.plan.nodes[0], None),
            crew.call("stop", reason="x"),
        ):
            with pytest.raises(HostError, match="the shim is lost"):
                await call


# -- going -------------------------------------------------------------------------------------


async def test_dismissed_shim_ends_and_is_reaped(ground: Ground) -> None:
    """After its ladder; nothing is left, nothing has to be killed."""
    ground.source("a")
    crew = ground.crew()
    await crew.hire(ground.folder, 1, ME)
    async with heard(crew) as events:
        await crew.begin(ground.folder, 600.0)
        process = await launched(ground, crew)
        await crew.call("stop", reason="test")
        await wait_for(lambda: any(event["event"] == "stopped" for event in events))
        assert await crew.dismiss() == []
    assert gone(process)
    assert ground.spawned[0].process.returncode == 0


async def test_dismissed_shim_that_refuses_is_put_down(ground: Ground) -> None:
    """Its nodes still live: it may not end, so it is made to."""
    ground.source("a", DEAF)
    crew = ground.crew()
    await crew.hire(ground.folder, 1, ME)
    async with heard(crew):
        await crew.begin(ground.folder, 600.0)
        process = await launched(ground, crew)
        assert await crew.dismiss() == []
    await wait_for(lambda: gone(process))
    assert ground.spawned[0].process.returncode == -signal.SIGKILL


@pytest.mark.safety
async def test_stopped_shim_is_put_down_with_its_nodes(ground: Ground) -> None:
    """SIGSTOP by its user is no way to keep a slot."""
    ground.source("a", DEAF)
    crew = ground.crew()
    await crew.hire(ground.folder, 1, ME)
    async with heard(crew):
        await crew.begin(ground.folder, 600.0)
        process = await launched(ground, crew)
        os.kill(ground.spawned[0].pid, signal.SIGSTOP)
        assert await crew.put_down() == []
    await wait_for(lambda: gone(process))


async def test_crashed_runs_nodes_get_their_ladder(ground: Ground) -> None:
    """Nobody reads the old connection any more: a new one is made."""
    ground.source("a", "trap 'echo asked > asked; exit 0' INT; " + WAIT)
    crew = ground.crew()
    await crew.hire(ground.folder, 1, ME)
    async with heard(crew):
        await crew.begin(ground.folder, 600.0)
        process = await launched(ground, crew)
        await wait_for(lambda: "out" in (ground.folder.path / "logs/a.out").read_text())
    await crew.close()
    assert await crew.stop_unheard("a bug") == []
    assert gone(process)
    assert (ground.staged("a") / "asked").exists()


async def test_force_on_a_run_that_never_had_a_shim_does_nothing(ground: Ground) -> None:
    """It crashed before."""
    crew = ground.crew()
    assert await crew.stop_unheard("a bug") == []
    assert await crew.put_down() == []
    await crew.close()


async def test_force_on_a_silent_shim_ends_all_the_same(ground: Ground) -> None:
    """Bounded, whatever the shim does."""
    ground.source("a", DEAF)
    crew = ground.crew()
    await crew.hire(ground.folder, 1, ME)
    async with heard(crew):
        await crew.begin(ground.folder, 600.0)
        process = await launched(ground, crew)
    await crew.close()
    os.kill(ground.spawned[0].pid, signal.SIGKILL)
    assert await crew.stop_unheard("a bug") == []
    await wait_for(lambda: gone(process))


@pytest.mark.safety
async def test_what_outlives_a_dead_shim_is_swept_by_evidence(ground: Ground) -> None:
    """Without a cgroup: a child of the node that left its session, and bears the nonce."""
    ground.source("a", f"setsid sh -c 'echo $$ > child; exec sleep 1000' & {WAIT}")
    crew = ground.crew()
    await crew.hire(ground.folder, 1, ME)
    async with heard(crew):
        await crew.begin(ground.folder, 600.0)
        await launched(ground, crew)
        child = ground.staged("a") / "child"
        await wait_for(lambda: child.exists() and child.read_text().strip() != "")
        pid = int(child.read_text())
        ticks = start_ticks(pid)
        os.kill(ground.spawned[0].pid, signal.SIGKILL)
        assert await crew.put_down() == []
    assert start_ticks(pid) != ticks
    assert crew.swept is not None
    assert pid in crew.swept.killed


async def test_shim_whose_leftovers_are_gone_ends_politely(ground: Ground) -> None:
    """Nobody reads its news any more; asked over a new connection it ends by itself."""
    ground.source("a")
    crew = ground.crew()
    await crew.hire(ground.folder, 1, ME)
    async with heard(crew) as events:
        await crew.begin(ground.folder, 600.0)
        process = await launched(ground, crew)
        await crew.call("stop", reason="test")
        await wait_for(lambda: any(event["event"] == "stopped" for event in events))
    await crew.close()
    assert await crew.end_shim() == []
    assert gone(process)
    assert ground.spawned[0].process.returncode == 0
    journal = (ground.folder.path / "shim.ndjson").read_text().splitlines()
    assert json.loads(journal[-1])["event"] == "ended"
    assert await crew.end_shim() == []


async def test_shim_that_still_holds_something_is_ended_by_force(ground: Ground) -> None:
    """It refuses to leave a node alone: both go."""
    ground.source("a", DEAF)
    crew = ground.crew()
    await crew.hire(ground.folder, 1, ME)
    async with heard(crew):
        await crew.begin(ground.folder, 600.0)
        process = await launched(ground, crew)
    await crew.close()
    assert await crew.end_shim() == []
    await wait_for(lambda: gone(process))
    assert ground.spawned[0].process.returncode == -signal.SIGKILL


async def test_crew_without_a_shim_has_none_to_end(ground: Ground) -> None:
    """After a reboot nothing is known."""
    crew = ground.crew()
    crew.recognise(ground.folder.shim_dir(), replace(ground.row(), boot_id="another"))
    assert await crew.end_shim() == []


# -- coming back -------------------------------------------------------------------------------


@asynccontextmanager
async def left_alone(ground: Ground) -> AsyncIterator[Process]:
    """A shim with a node, let go of by the soakd that hired it."""
    ground.source("a")
    first = ground.crew()
    await first.hire(ground.folder, 1, ME)
    async with heard(first):
        await first.begin(ground.folder, 600.0)
        process = await launched(ground, first)
        await first.close()
    yield process


@pytest.mark.safety
async def test_next_soakd_rejoins_the_shim(ground: Ground) -> None:
    """By its identity in the store; the node lives on; the shim is ended though not our child."""
    async with left_alone(ground) as process:
        crew = ground.crew()
        crew.recognise(ground.folder.shim_dir(), ground.row())
        hello = await crew.rejoin(ground.folder, ground.row(), ME)
        assert hello["begun"] is True
        assert hello["nodes"]["a"]["pid"] == process.pid
        assert crew.nonce == ground.row().nonce
        async with heard(crew) as events:
            await crew.call("stop", reason="test")
            await wait_for(lambda: any(event["event"] == "stopped" for event in events))
            assert await crew.dismiss() == []
    assert gone(process)


@pytest.mark.parametrize(
    "changes",
    [
        {"boot_id": "another"},
        {"boot_id": None},
        {"shim_pid": None},
        {"shim_ticks": 1},
        {"nonce": "another"},
        {"nonce": None},
    ],
)
@pytest.mark.safety
async def test_nobody_else_is_taken_for_the_shim(ground: Ground, changes: dict[str, Any]) -> None:
    """Another boot, another process, another run: lost, and nothing is asked of it."""
    async with left_alone(ground) as process:
        crew = ground.crew()
        with pytest.raises(ShimLost):
            await crew.rejoin(ground.folder, replace(ground.row(), **changes), ME)
        assert not crew.is_connected
        assert not gone(process)


# -- containment -------------------------------------------------------------------------------


@pytest.fixture
def no_cgroups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup.Cgroup, "create", classmethod(lambda _cls, _name: None))


@pytest.mark.usefixtures("no_cgroups")
async def test_wanted_cgroup_that_cannot_be_made_fails_the_hire(ground: Ground) -> None:
    """With `auto` evidence does; with `cgroup` the admin wanted it otherwise."""
    strict = replace(ground.host, config=Config(containment="cgroup"))
    with pytest.raises(HostError, match="no cgroup v2 is writable here"):
        await ground.crew(host=strict).hire(ground.folder, 1, ME)
    assert ground.spawned[0].process.returncode is not None
    auto = replace(ground.host, config=Config(containment="auto"))
    crew = ground.crew(host=auto)
    await crew.hire(ground.folder, 2, ME)
    assert ground.row().cgroup is None
    await crew.put_down()


async def test_cgroup_holds_the_run_and_goes_with_it(ground: Ground) -> None:
    """Its path is in the store before `begin`; what outlives the shim dies by it."""
    probe = cgroup.Cgroup.create(f"soakd-test-{os.getpid()}")
    if probe is None:
        pytest.skip("no cgroup v2 is writable here")
    probe.remove()
    host = replace(ground.host, config=Config(containment="cgroup"))
    ground.source("a", f"setsid sleep 1000 & {DEAF}")
    crew = ground.crew(host=host)
    await crew.hire(ground.folder, 1, ME)
    path = Path(ground.row().cgroup or "")
    assert ground.spawned[0].pid in cgroup.Cgroup(path).pids()
    async with heard(crew):
        await crew.begin(ground.folder, 600.0)
        await launched(ground, crew)
        await wait_for(lambda: len(cgroup.Cgroup(path).pids()) >= 3)
        os.kill(ground.spawned[0].pid, signal.SIGKILL)
        assert await crew.put_down() == []
    assert not path.exists()
