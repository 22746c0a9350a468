"""Puts soakd together: opens what it lives on, takes over what was left, serves, leaves."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import trio

from soakd import __version__
from soakd.connection import Limits
from soakd.core.errors import HostError
from soakd.edge.clock import boot_now, rfc3339, wall_now
from soakd.edge.config import Config, Paths
from soakd.edge.listen import Listening, adopt_socket, bind_socket
from soakd.edge.peers import Accounts, Admission, Peer
from soakd.edge.shim_client import find_shim_python
from soakd.edge.store import Store
from soakd.edge.systemd import Manager
from soakd.host import Host
from soakd.log import get_logger
from soakd.scheduler import Scheduler
from soakd.server import ServerContext, serve
from soakd.wire.messages import PROTOCOL_MAJOR, PROTOCOL_MINOR

ANSWER_S = 0.1

_log = get_logger()


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line and the configuration say.

    Attributes:
        foreground: a controlling terminal is there and soakd was not sent to the background:
            SIGINT and SIGHUP then come from it.
        manager: the service manager that started soakd, if one did.
    """

    paths: Paths
    config: Config
    foreground: bool
    manager: Manager = field(default_factory=Manager)

    def host_config(self) -> Config:
        """The settings with what the manager makes of them.

        A service's own cgroup ends with the service, so that runs need scopes of their own.
        """
        if self.manager.is_there and self.config.containment == "auto":
            return replace(self.config, containment="scope")
        return self.config


class Daemon:
    """The daemon as its handlers see it; `run` is its life."""

    version = __version__

    def __init__(self, options: Options, on_ready: Callable[[], None]) -> None:
        """Opens nothing yet; `on_ready` is called once the socket is served."""
        self._on_ready = on_ready
        self.mode: Literal["system", "user"] = options.paths.mode
        self._options = options
        self._manager = options.manager
        self._socket = options.paths.socket
        self._began_s = boot_now()
        self._began_at = wall_now()
        self._scheduler: Scheduler | None = None
        self._leave = trio.Event()
        self._ask_all_to_stop = trio.Event()
        self._stopped_by: tuple[str, int | None] = ("soakd", None)

    # -- what handlers ask ---------------------------------------------------------------------

    async def info(self) -> Mapping[str, Any]:
        """A DaemonInfo."""
        counts = {} if self._scheduler is None else self._scheduler.counts()
        return {
            "version": self.version,
            "protocol": PROTOCOL_MAJOR,
            "minor": PROTOCOL_MINOR,
            "mode": self.mode,
            "pid": os.getpid(),
            "started_at": rfc3339(self._began_at),
            "uptime_s": round(boot_now() - self._began_s, 3),
            "socket": str(self._socket),
            "state": str(self._options.paths.state),
            "draining": self._scheduler is not None and self._scheduler.is_draining,
            **counts,
        }

    async def shutdown(self, peer: Peer) -> None:
        """Asks the daemon to stop all runs and end; returns before that."""
        self._stopped_by = (peer.name, peer.uid)
        self._ask_all_to_stop.set()

    # -- life ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Lives until a signal or `daemon shutdown`.

        Raises:
            HostError: the state folder, the store or the socket cannot be used.
        """
        paths = self._options.paths
        prepare_state(paths.state)
        store = Store(paths.state / "soakd.db")
        try:
            listening = self._listen()
            try:
                await self._serve(store, listening)
            finally:
                listening.close()
        finally:
            store.close()

    def _listen(self) -> Listening:
        paths = self._options.paths
        passed = self._manager.listener()
        if passed is None:
            return bind_socket(paths.socket, paths.mode)
        listening = adopt_socket(passed, paths.mode)
        self._socket = listening.path
        return listening

    async def _serve(self, store: Store, listening: Listening) -> None:
        for warning in listening.warnings:
            _log.warning("listen", text=warning)
        accounts = Accounts()
        host = self._host(store, accounts)
        self._scheduler = scheduler = Scheduler(host)
        admission = Admission(self.mode, accounts)
        limits = Limits(max_connections_per_uid=host.config.max_connections_per_uid)
        context = ServerContext(scheduler, self, admission, limits)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with trio.open_nursery() as infra:
                infra.start_soon(self._hear_signals, signals)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._until_leaving, nursery.cancel_scope)
                    await nursery.start(scheduler.run_forever)
                    nursery.start_soon(self._until_stopped, scheduler)
                    # Before accepting: whoever waits for the service finds its runs taken over.
                    await self._manager.notify("READY=1", f"STATUS={self._status()}")
                    infra.start_soon(self._keep_alive, host)
                    await nursery.start(_serve_started, listening, context)
                    self._on_ready()
                    _log.info("ready", socket=str(listening.path), mode=self.mode)
                infra.cancel_scope.cancel()
        _log.info("left", **scheduler.counts())

    def _host(self, store: Store, accounts: Accounts) -> Host:
        config = self._options.host_config()
        if self._manager.is_there and config.containment != "scope":
            text = f"containment is {config.containment!r}: runs end with soakd's service"
            _log.warning("containment", text=text)
        return Host(
            store=store,
            config=config,
            state_dir=self._options.paths.state,
            system=self.mode == "system",
            shim_python=find_shim_python(config.shim_python, user_mode=self.mode == "user"),
            uid=os.geteuid(),
            accounts=accounts,
        )

    async def _hear_signals(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            name = signal.Signals(number).name
            _log.info("signal", signal=name)
            if number == signal.SIGINT:
                self._ask_all_to_stop.set()
            elif number == signal.SIGTERM or self._options.foreground:
                self._leave.set()

    async def _until_leaving(self, scope: trio.CancelScope) -> None:
        await self._leave.wait()
        await self._manager.notify("STOPPING=1", "STATUS=letting go of the runs")
        scope.cancel()

    async def _keep_alive(self, host: Host) -> None:
        if self._manager.is_there:
            await self._manager.keep_alive(lambda: host.db(lambda: None), self._status)

    def _status(self) -> str:
        """One line for `systemctl status`."""
        if self._scheduler is None:
            return "starting"
        counts = self._scheduler.counts()
        word = "stopping all runs" if self._ask_all_to_stop.is_set() else "serving"
        return f"{word}: {counts['running']} running, {counts['queued']} queued"

    async def _until_stopped(self, scheduler: Scheduler) -> None:
        await self._ask_all_to_stop.wait()
        # Who asked over the socket gets the answer before the connections go.
        await trio.sleep(ANSWER_S)
        await scheduler.stop_all(*self._stopped_by)
        self._leave.set()


async def _serve_started(
    listening: Listening,
    context: ServerContext,
    *,
    task_status: trio.TaskStatus[list[trio.SocketListener]],
) -> None:
    await serve(listening.socket, context=context, task_status=task_status)


def prepare_state(state: Path) -> None:
    """Makes the state folder if only its last parts are missing.

    Raises:
        HostError: it cannot be made, or others may write to it.
    """
    try:
        state.mkdir(mode=0o711, parents=True, exist_ok=True)
        info = state.stat()
    except OSError as error:
        raise HostError(
            "refused",
            f"cannot use the state folder {state}: {error.strerror}; choose another with --state",
        ) from error
    if info.st_uid != os.geteuid() or info.st_mode & 0o022:
        raise HostError(
            "refused",
            f"cannot use the state folder {state}: others may write to it; choose one of your"
            " own with --state",
        )
