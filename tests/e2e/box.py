"""A box to soak in: a real soakd with its folders, real soakctl, and proof that nothing is left."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from soakctl.session import Session
from soakd.simnode import install
from tests.e2e.host import is_locked, node_python
from tests.e2e.waiting import GUARD_S, STOP_GUARD_S, wait_for
from tests.ports import free_ports, free_udp_range, is_free

ROOT = Path(__file__).resolve().parents[2]
_UDP_PORTS = 8
FAST_NODES: Mapping[str, object] = {
    "udp_ports": _UDP_PORTS,
    "beacon_secs": 0.1,
    "warmup_secs": 0.2,
    "status_every_secs": 0.5,
    "latency_min_secs": 0.0,
    "latency_max_secs": 0.01,
    "sigint_miss_rate": 0.0,
    "seed_contacts": 4,
}
FAST_WAITS: Mapping[str, str] = {
    "WAIT_PUBLISH": "0.05",
    "WAIT_SEARCH": "0.1",
    "WAIT_BETWEEN": "0.05",
    "READ_EVERY": "0",
    "MISS_RECHECK_DELAY": "0.1",
}

_T = TypeVar("_T")
Status = dict[str, Any]


@dataclass(frozen=True)
class Done:
    """What a finished command printed."""

    out: str
    err: str
    status: int

    def json(self) -> Any:
        """Its one line of JSON."""
        return json.loads(self.out)

    def lines(self) -> list[Any]:
        """Its lines of JSON."""
        return [json.loads(line) for line in self.out.splitlines()]


class Box:
    """One soakd, its two simulated nodes, and everything a test starts; `close` ends it all."""

    def __init__(self, folder: Path) -> None:
        """Makes the folders; nothing is started yet."""
        self.folder = folder
        self.socket = folder / "s.sock"
        self.state = folder / "state"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.temporary.chmod(0o1777)
        (folder / "home").mkdir()
        # Tests submit faster than people.
        (folder / "soakd.toml").write_text("submissions_per_minute = 1000\n")
        self.python = sys.executable
        self._plots = 0
        self.ports: list[int] = []
        self.soaks: list[Path] = []
        self._udp = 0
        self.env = {
            # No coverage of these: hundreds of programs would take twice as long, and the memory of
            # soakd would grow by the books of coverage.
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(folder / "home"),
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "error",
        }
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._children: list[subprocess.Popen[Any]] = []
        self.renew()

    def renew(self) -> None:
        """Take ports, a network and node folders that no test before had."""
        self._plots += 1
        self.ports = free_ports(2)
        self._udp = free_udp_range(_UDP_PORTS)
        plot = self.folder / f"soaks-{self._plots}"
        self.soaks = [plot / "mule-a", plot / "mule-b"]

    # -- nodes ---------------------------------------------------------------------------------

    def install(self, **sim: object) -> None:
        """Make both node folders, of a network that only this box has."""
        for folder, port in zip(self.soaks, self.ports[:2], strict=True):
            install(
                folder,
                python=node_python(),
                port=port,
                session_name=folder.name,
                sim={
                    **FAST_NODES,
                    "network": f"{self.folder}-{self._plots}"[-40:],
                    "udp_first_port": self._udp,
                    **sim,
                },
            )

    def node(self, run: str, name: str) -> Path:
        """The staged folder of a node."""
        return self.run_folder(run) / "nodes" / f"mule-{name}"

    # -- soakd ---------------------------------------------------------------------------------

    def serve(
        self, *options: str, wrapper: Sequence[str] = (), **popen: Any
    ) -> subprocess.Popen[bytes]:
        """Start soakd and return once it answers."""
        with self.log().open("ab") as log:
            daemon = subprocess.Popen(
                [*wrapper, *self.daemon_command(*options)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.env,
                cwd=self.folder,
                **popen,
            )
        self._daemons.append(daemon)
        wait_for(lambda: self.answers() or daemon.poll() is not None, "soakd answers")
        assert daemon.poll() is None, self.log().read_text()
        return daemon

    def daemon_command(self, *options: str) -> list[str]:
        """How soakd is started here."""
        where = ("--config", "soakd.toml", "--socket", "s.sock", "--state", "state")
        return [self.python, "-m", "soakd", *where, *options]

    def serve_and_kill(self) -> None:
        """Start soakd and kill it as soon as it has opened its store, before it serves."""
        said = self.log().stat().st_size
        with self.log().open("ab") as log:
            daemon = subprocess.Popen(
                self.daemon_command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.env,
                cwd=self.folder,
            )
        self._daemons.append(daemon)
        wait_for(lambda: self.log().stat().st_size > said or self.answers(), "soakd begins")
        daemon.kill()
        daemon.wait()
        self._until_nobody_listens()

    def _until_nobody_listens(self) -> None:
        """A child that a killed soakd was about to start has its socket until it executes."""
        wait_for(lambda: not self.answers(), "nobody listens")

    def serve_refused(self, *options: str) -> str:
        """Start another soakd that must not come to serve; what it says."""
        with self.spawn(self.daemon_command(*options)) as daemon:
            _, said = daemon.communicate(timeout=GUARD_S)
        assert daemon.returncode != 0
        assert "Traceback" not in said
        return said

    def log(self) -> Path:
        """Where soakd's own log goes."""
        return self.folder / "soakd.log"

    def answers(self) -> bool:
        """Whether somebody accepts on the socket."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
            return True

    @property
    def daemon(self) -> subprocess.Popen[bytes]:
        """The soakd that was started last."""
        return self._daemons[-1]

    def leave(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Send a signal to the last soakd and return how long it took to end (in s)."""
        daemon = self._daemons[-1]
        began = time.monotonic()
        daemon.send_signal(number)
        ended = daemon.wait(STOP_GUARD_S)
        took_s = time.monotonic() - began
        assert ended == (-number if number == signal.SIGKILL else 0), self.log().read_text()
        self._until_nobody_listens()
        return took_s

    # -- soakctl -------------------------------------------------------------------------------

    def ctl(self, *args: str, status: int = 0, guard_s: float = STOP_GUARD_S, **popen: Any) -> Done:
        """Run soakctl to its end, which must come with this exit status."""
        with self.ctl_spawn(*args, **popen) as process:
            out, err = process.communicate(timeout=guard_s)
        done = Done(out, err, process.returncode)
        assert done.status == status, f"soakctl {args}: {done}"
        assert "Traceback" not in done.err
        return done

    def ctl_command(self, *args: str) -> list[str]:
        """How soakctl is called here."""
        return [sys.executable, "-m", "soakctl", "--socket", str(self.socket), *args]

    def ctl_spawn(self, *args: str, **popen: Any) -> subprocess.Popen[str]:
        """Start soakctl."""
        return self.spawn(self.ctl_command(*args), **popen)

    def spawn(
        self, command: Sequence[str], env: Mapping[str, str] | None = None, **popen: Any
    ) -> subprocess.Popen[str]:
        """Start a command in the box; its output is text in pipes unless told otherwise."""
        settings: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "cwd": self.folder,
            "env": {**self.env, **(env or {})},
            **popen,
        }
        process = subprocess.Popen(command, text=True, **settings)
        self._children.append(process)
        return process

    def plan_env(self, **variables: str) -> dict[str, str]:
        """The environment of a `start`: these nodes, short waits, and what the test adds."""
        return {
            "A_SRC": str(self.soaks[0]),
            "B_SRC": str(self.soaks[1]),
            "A_URL": f"127.0.0.1:{self.ports[0]}",
            "B_URL": f"http://127.0.0.1:{self.ports[1]}",
            **FAST_WAITS,
            **variables,
        }

    def other_urls(self) -> dict[str, str]:
        """Ports for a second pair of nodes, for `start`; looked at in the end as well."""
        self.ports += free_ports(2)
        return {"A_URL": f"127.0.0.1:{self.ports[-2]}", "B_URL": f"127.0.0.1:{self.ports[-1]}"}

    def start(self, *args: str, **variables: str) -> str:
        """Start a soak and return its id."""
        done = self.ctl("--json", "start", *args, env=self.plan_env(**variables))
        run = done.json()["id"]
        assert isinstance(run, str)
        return run

    def wait(self, run: str, status: int = 0) -> Status:
        """Wait for the end of a run with `soakctl wait`; the final status."""
        final: Status = self.ctl("--json", "wait", run, status=status).json()
        assert final["state"] == "finished"
        return final

    # -- looking on, without a process per look ------------------------------------------------

    def call(self, method: str, **params: object) -> Any:
        """Ask soakd directly, as soakctl would."""
        with Session(socket=str(self.socket), json=True, environ=self.env).connect() as client:
            return client.call(method, params)

    def status(self, run: str) -> Status:
        """The run's status now."""
        found: Status = self.call("run.status", run=run)
        return found

    def until(self, run: str, holds: Callable[[Status], object], what: str) -> Status:
        """The first status that fits."""

        def look() -> Status | None:
            status = self.status(run)
            if holds(status):
                return status
            assert status["state"] != "finished", f"finished before: {what}: {status}"
            return None

        return _some(wait_for(look, what))

    def until_rounds(self, run: str, count: int) -> Status:
        """The first status with so many recorded rounds."""
        return self.until(run, lambda s: s["rounds"]["total"] >= count, f"{count} rounds")

    def run_folder(self, run: str) -> Path:
        """The folder with a run's records."""
        return self.state / "runs" / run

    def read(self, run: str, name: str) -> str:
        """A record."""
        return (self.run_folder(run) / name).read_text()

    def records(self, run: str, name: str = "logs/rounds.ndjson") -> list[dict[str, Any]]:
        """The lines of a record of JSON lines."""
        return [json.loads(line) for line in self.read(run, name).splitlines()]

    def records_whole(self, run: str) -> list[dict[str, Any]]:
        """The rounds that are written down whole; behind a crash the last line may be torn."""
        text = self.read(run, "logs/rounds.ndjson")
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def row(self, run: str) -> dict[str, Any]:
        """What the store has of a run."""
        return next(row for row in self._rows() if row["id"] == int(run[1:]))

    def _rows(self) -> list[dict[str, Any]]:
        if not (self.state / "soakd.db").exists():
            return []
        with closing(sqlite3.connect(self.state / "soakd.db")) as store:
            store.row_factory = sqlite3.Row
            return [dict(row) for row in store.execute("SELECT * FROM runs")]

    # -- the end -------------------------------------------------------------------------------

    def processes(self) -> dict[int, str]:
        """Living processes of the box's runs, by evidence: label, working folder, command line."""
        labels = [f"SOAK_RUN_NONCE={row['nonce']}".encode() for row in self._rows()]
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                environment = (process / "environ").read_bytes().split(b"\0")
                inside = process.joinpath("cwd").readlink().is_relative_to(self.state)
                if command and (inside or any(label in environment for label in labels)):
                    found[int(process.name)] = command
        return found

    def leftovers(self) -> list[str]:
        """Everything of finished runs that should not be there any more."""
        left = [f"process {pid}: {command}" for pid, command in self.processes().items()]
        left += [f"port {port}" for port in self.ports if not is_free(port)]
        left += [f"temporary {path}" for path in self.temporary.iterdir()]
        for row in self._rows():
            folder = self.run_folder(f"r{row['id']}")
            left += [f"file {path}" for path in folder.glob("logs/*.pid")]
            left += [f"file {path}" for path in (*folder.glob("*.tmp"), *folder.glob("logs/*.tmp"))]
            left += [f"lock {path}" for path in folder.glob("shim.lock") if is_locked(path)]
            if row["cgroup"] and Path(row["cgroup"]).exists():
                left.append(f"cgroup {row['cgroup']}")
        with closing(sqlite3.connect(self.state / "soakd.db")) as store:
            left += [f"lease {row}" for row in store.execute("SELECT * FROM leases")]
        return left

    def settle(self) -> None:
        """Stop what a test left running, so that another test finds an idle soakd."""
        self._end_children()
        if not self.answers():
            self.serve()
        # The newest first: what is queued must not get the slot of what is stopped.
        for number in reversed(self._unfinished()):
            self.call("run.stop", run=f"r{number}")
        wait_for(lambda: not self._unfinished(), "the end of all runs")

    def _unfinished(self) -> list[int]:
        return [row["id"] for row in self._rows() if row["state"] != "finished"]

    def close(self) -> None:
        """Ask soakd to stop all runs and end; kill what does not go. Called after every test."""
        stubborn = False
        for daemon in self._daemons:
            if daemon.poll() is None:
                daemon.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    daemon.wait(STOP_GUARD_S)
            if daemon.poll() is None:
                stubborn = True
                daemon.kill()
                daemon.wait()
        self._end_children()
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert not stubborn, "soakd did not end on SIGINT"

    def _end_children(self) -> None:
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout, child.stderr):
                if stream is not None:
                    stream.close()
        self._children.clear()


def _some(found: _T | None) -> _T:
    assert found is not None
    return found
