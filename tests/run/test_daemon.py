"""The daemon as a whole, in this process: it serves, hears signals, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
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
from soakd.daemon import Daemon, Options, prepare_state
from soakd.edge.config import Config, Paths
from soakd.edge.schema import MEMORY
from soakd.edge.store import Store
from soakd.host import Host
from soakd.scheduler import Scheduler
from tests.run.kit import ME, make_plan
from tests.wire_client import WireClient

GUARD_S = 20


class Lived:
    """A daemon that serves, and how its life ended."""

    def __init__(self, folder: Path, *, foreground: bool = False) -> None:
        self.paths = Paths("user", folder / "s.sock", folder / "state", folder / "none.toml")
        self.ready = trio.Event()
        options = Options(self.paths, Config(containment="evidence"), foreground)
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
async def living(folder: Path, *, foreground: bool = False) -> AsyncIterator[Lived]:
    lived = Lived(folder, foreground=foreground)
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
    monkeypatch.setattr("soakd.core.queue.pick", lambda _q, _r, _c: _nothing())
    plan = plan_to_dict(make_plan())
    async with living(short_dir) as lived, lived.client() as client:
        answer = await client.call("run.start", plan=plan, sha256={})
        assert (answer["id"], answer["state"]) == ("r1", "queued")
    async with living(short_dir) as lived, lived.client() as client:
        assert (await client.call("daemon.info"))["queued"] == 1
        [listed] = (await client.call("run.list", all=False))["runs"]
        assert listed["id"] == "r1"


def _nothing() -> Any:
    from soakd.core.queue import Picked

    return Picked((), {}, {})


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
    with pytest.raises(HostError, match=r"cannot use the state folder .*/file/state"):
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
