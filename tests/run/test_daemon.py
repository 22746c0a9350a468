"""The daemon as a whole, in this process: it serves, hears signals, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from soakd import __version__
from soakd.core.errors import HostError
from soakd.core.plan import plan_to_dict
from soakd.core.queue_types import Capacity, Picked, Place, Snapshot
from soakd.daemon import Daemon, Options, prepare_state
from soakd.edge.config import Config, Paths
from soakd.edge.schema import MEMORY
from soakd.edge.store import Store
from soakd.edge.systemd import Manager
from soakd.host import Host
from soakd.scheduler import Scheduler
from tests.run.kit import ME, make_plan
from tests.wire_client import WireClient

GUARD_S = 60


class Lived:
    """A daemon that serves, and how its life ended."""

    def __init__(
        self, folder: Path, *, foreground: bool = False, manager: Manager | None = None
    ) -> None:
        self.paths = Paths("user", folder / "s.sock", folder / "state", folder / "none.toml")
        self.ready = trio.Event()
        config = Config(containment="evidence")
        options = Options(self.paths, config, foreground, manager or Manager())
        self.daemon = Daemon(options, self.ready.set)
        self.ended = trio.Event()

    async def live(self) -> None:
        await self.daemon.run()
        self.ended.set()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[WireClient]:
        stream = await trio.open_unix_socket(self.paths.socket)
        async with stream:
            client = WireClient(stream)
            await client.call("hello", client="test", protocol=1)
            yield client

    async def wait_end(self) -> None:
        with trio.fail_after(GUARD_S):
            await self.ended.wait()


@asynccontextmanager
async def living(
    folder: Path, *, foreground: bool = False, manager: Manager | None = None
) -> AsyncIterator[Lived]:
    lived = Lived(folder, foreground=foreground, manager=manager)
    with trio.fail_after(GUARD_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lived.live)
            await lived.ready.wait()
            yield lived
            nursery.cancel_scope.cancel()


def kill(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


async def test_daemon_serves_and_says_what_it_is(short_dir: Path) -> None:
    """Ready means that clients are answered."""
    async with living(short_dir) as lived, lived.client() as client:
        info = await client.call("daemon.info")
    assert info["version"] == __version__
    assert (info["mode"], info["pid"]) == ("user", os.getpid())
    assert (info["running"], info["queued"]) == (0, 0)
    assert info["socket"] == str(short_dir / "s.sock")
    assert info["state"] == str(short_dir / "state")
    assert 0 <= info["uptime_s"] < GUARD_S
    assert info["started_at"].endswith("Z")


async def test_info_before_the_start_has_no_counts(short_dir: Path) -> None:
    """There is nothing to count."""
    assert "running" not in await Lived(short_dir).daemon.info()


@pytest.mark.parametrize("foreground", [True, False])
async def test_sigterm_leaves_within_two_seconds(short_dir: Path, *, foreground: bool) -> None:
    """Also with a client connected; nothing of the daemon stays but its state."""
    async with living(short_dir, foreground=foreground) as lived, lived.client() as client:
        begun_s = trio.current_time()
        kill(signal.SIGTERM)
        await lived.wait_end()
        assert trio.current_time() - begun_s < 2
        words = await client.last_words()
    assert (words or {})["code"] == "no_daemon"
    assert sorted(path.name for path in short_dir.iterdir()) == ["state"]


async def test_sighup_ends_the_foreground_only(short_dir: Path) -> None:
    """In the background it is no reason to go."""
    async with living(short_dir, foreground=False) as lived:
        kill(signal.SIGHUP)
        async with lived.client() as client:
            await client.call("daemon.info")
        assert not lived.ended.is_set()
    (short_dir / "other").mkdir()
    async with living(short_dir / "other", foreground=True) as lived:
        kill(signal.SIGHUP)
        await lived.wait_end()


async def test_sigint_stops_all_runs_first(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C: no soak goes on unseen."""
    asked: list[Any] = []

    async def stop_all(_self: Scheduler, who: str, uid: int | None) -> None:
        await trio.lowlevel.checkpoint()
        asked.append((who, uid))

    monkeypatch.setattr(Scheduler, "stop_all", stop_all)
    async with living(short_dir, foreground=True) as lived:
        kill(signal.SIGINT)
        await lived.wait_end()
    assert asked == [("soakd", None)]


async def test_shutdown_by_a_client_names_who_asked(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs' causes will say so; the client gets its answer before soakd goes."""
    asked: list[Any] = []

    async def stop_all(_self: Scheduler, who: str, uid: int | None) -> None:
        await trio.lowlevel.checkpoint()
        asked.append((who, uid))

    monkeypatch.setattr(Scheduler, "stop_all", stop_all)
    async with living(short_dir) as lived:
        async with lived.client() as client:
            await client.call("daemon.shutdown")
        await lived.wait_end()
    assert asked[0][1] == os.geteuid()
    assert len(asked) == 1


async def test_signal_during_the_takeover_is_heard(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that hangs on old runs can be ended."""

    async def hang(_self: Scheduler, _nursery: trio.Nursery) -> None:
        kill(signal.SIGTERM)
        await trio.sleep_forever()

    monkeypatch.setattr(Scheduler, "_reconcile", hang)
    lived = Lived(short_dir)
    with trio.fail_after(GUARD_S):
        await lived.live()
    assert not lived.ready.is_set()


async def test_second_daemon_on_one_state_is_refused(short_dir: Path) -> None:
    """And the first one's socket still answers."""
    async with living(short_dir) as lived:
        with pytest.raises(HostError, match=r"soakd.db"):
            await Lived(short_dir).live()
        other = Lived(short_dir)
        other.paths = replace(other.paths, state=short_dir / "elsewhere")
        other.daemon = Daemon(Options(other.paths, Config(), foreground=False), lambda: None)
        with pytest.raises(HostError, match="another soakd serves it"):
            await other.live()
        async with lived.client() as client:
            await client.call("daemon.info")


async def test_start_that_fails_gives_everything_back(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No interpreter for shims: the socket goes, and the next start is not in the way of it."""

    def none(*_args: object, **_kwargs: object) -> str:
        raise HostError("refused", "cannot find a Python for the shim")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("soakd.daemon.find_shim_python", none)
        with pytest.raises(HostError, match="cannot find a Python"):
            await Lived(short_dir).live()
    assert not (short_dir / "s.sock").exists()
    async with living(short_dir):
        pass


async def test_submitted_run_waits_in_the_store_across_daemons(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queued is a promise that survives the daemon."""
    monkeypatch.setattr("soakd.core.queue.pick", _pick_none)
    plan = plan_to_dict(make_plan())
    async with living(short_dir) as lived, lived.client() as client:
        answer = await client.call("run.start", plan=plan, sha256={})
        assert (answer["id"], answer["state"]) == ("r1", "queued")
    async with living(short_dir) as lived, lived.client() as client:
        assert (await client.call("daemon.info"))["queued"] == 1
        [listed] = (await client.call("run.list", all=False))["runs"]
        assert listed["id"] == "r1"


def _pick_none(snapshot: Snapshot, _capacity: Capacity, _now_s: float) -> Picked:
    return Picked((), {run.id: Place(1, "held") for run in snapshot.queued})


# -- under a service manager -------------------------------------------------------------------


async def test_manager_hears_of_the_start_the_state_and_the_end(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """READY comes after the takeover and before anybody is served."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"{short_dir}/notify")
        heard.setblocking(False)
        taken_over = False

        async def reconcile(_self: Scheduler, _nursery: trio.Nursery) -> None:
            nonlocal taken_over
            await trio.lowlevel.checkpoint()
            with pytest.raises(BlockingIOError):
                heard.recv(1)
            taken_over = True

        async def hear() -> str:
            await trio.lowlevel.wait_readable(heard)
            return heard.recv(4096).decode()

        monkeypatch.setattr(Scheduler, "_reconcile", reconcile)
        manager = Manager(notify_socket=f"{short_dir}/notify", watchdog_s=60.0)
        async with living(short_dir, manager=manager) as lived:
            assert taken_over
            words = "STATUS=serving: 0 running, 0 queued"
            assert await hear() == f"READY=1\n{words}"
            assert await hear() == f"WATCHDOG=1\n{words}"
            kill(signal.SIGTERM)
            await lived.wait_end()
        assert (await hear()).startswith("STOPPING=1\n")


def test_status_line_says_what_soakd_does(short_dir: Path) -> None:
    """Also while it starts, and while it stops all runs."""
    daemon = Lived(short_dir).daemon
    assert daemon._status() == "starting"

    class Counting:
        def counts(self) -> dict[str, int]:
            return {"running": 1, "queued": 2}

    daemon._scheduler = Counting()  # type: ignore[assignment]
    assert daemon._status() == "serving: 1 running, 2 queued"
    daemon._ask_all_to_stop.set()
    assert daemon._status() == "stopping all runs: 1 running, 2 queued"


async def test_managers_socket_is_served_and_shown(short_dir: Path) -> None:
    """Whatever --socket says; its file stays."""
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(f"{short_dir}/passed")
        (short_dir / "passed").chmod(0o600)
        theirs.listen()
        manager = Manager(listen_fds=1, first_fd=theirs.dup().detach())
        async with living(short_dir, manager=manager) as lived:
            assert not lived.paths.socket.exists()
            lived.paths = replace(lived.paths, socket=short_dir / "passed")
            async with lived.client() as client:
                assert (await client.call("daemon.info"))["socket"] == f"{short_dir}/passed"
    assert sorted(path.name for path in short_dir.iterdir()) == ["passed", "state"]


@pytest.mark.parametrize(
    ("managed", "wanted", "expected"),
    [
        (False, "auto", "auto"),
        (True, "auto", "scope"),
        (True, "cgroup", "cgroup"),
        (False, "scope", "scope"),
    ],
)
def test_runs_of_a_service_get_scopes(*, managed: bool, wanted: Any, expected: str) -> None:
    """The service's own cgroup ends with the service; what the admin wants otherwise stands."""
    manager = Manager(notify_socket="/n" if managed else None)
    paths = Paths("user", Path("/s"), Path("/state"), Path("/c"))
    options = Options(paths, Config(containment=wanted), foreground=False, manager=manager)
    assert options.host_config().containment == expected


# -- the state folder --------------------------------------------------------------------------


def test_state_folder_is_made(tmp_path: Path) -> None:
    """With its parents; others may pass through it, not write."""
    state = tmp_path / "x" / "y" / "state"
    prepare_state(state)
    assert state.stat().st_mode & 0o777 == 0o711
    prepare_state(state)


def test_state_folder_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """They could put a database of their own there."""
    state = tmp_path / "state"
    state.mkdir()
    for mode in (0o777, 0o770):
        state.chmod(mode)
        with pytest.raises(HostError, match="others may write to it; choose one of your own"):
            prepare_state(state)


def test_state_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """With the kernel's reason."""
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match=r"state folder .*/file/state: .*; choose another"):
        prepare_state(tmp_path / "file" / "state")


def test_host_of_root_takes_others_uids(tmp_path: Path) -> None:
    """System mode is root's; user mode never changes uids."""
    store = Store(MEMORY)
    for mode, system in (("system", True), ("user", False)):
        paths = Paths(mode, tmp_path / "s", tmp_path, tmp_path / "c")  # type: ignore[arg-type]
        daemon = Daemon(Options(paths, Config(), foreground=False), lambda: None)
        host: Host = daemon._host(store, accounts=None)  # type: ignore[arg-type]
        assert host.system is system
        assert host.shim_python.startswith("/")
    store.close()
    assert ME.uid == os.geteuid()
