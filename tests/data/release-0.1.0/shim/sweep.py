"""The sweep after a dead shim: what it left behind is found by evidence and killed.

Done by a fresh shim that holds no run: having the run's uid, it is kept from foreign processes by
the kernel itself. No cgroup, no parenthood: only what `evidence` accepts is touched.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator

from soakd.shim import params, protocol, system
from soakd.shim.errors import VerbError
from soakd.shim.evidence import Judge, Order, Row, Verdict, look
from soakd.shim.params import Params

PASS_S = 0.005
"""Pause between two scans when nothing new was met."""
LAST_LOOK_S = 0.1
ADOPTION_S = 1.0
MAX_PIDS = 256
MAX_SPARED = 100
EMPTY_SCANS = 2


def order_from(request: Params) -> Order:
    """The order in a request.

    Raises:
        VerbError: it is none.
    """
    root = params.text(request, "nodes_root").rstrip("/")
    if not root.startswith("/"):
        raise VerbError("bad_params", f"cannot sweep {root!r}: the path must be absolute")
    nonce = params.text(request, "nonce")
    if not nonce:
        raise VerbError("bad_params", "cannot sweep: the nonce is empty")
    programs = request.get("programs", [])
    if not isinstance(programs, list) or not all(isinstance(p, dict) for p in programs):
        raise VerbError("bad_params", "cannot read parameter programs: it must be a list of maps")
    files = frozenset((params.whole(p, "dev"), params.whole(p, "ino")) for p in programs)
    return Order(root, nonce, params.whole(request, "started_ticks"), files)


class Sweep:
    """One sweep; `run` is driven to its end."""

    def __init__(self, order: Order) -> None:
        self._judge = Judge(order, frozenset({1, heir()}))
        self._killed: dict[int, None] = {}
        self._spared: dict[int, str] = {}
        self._left: list[int] = []

    def run(self) -> Generator[None, None, dict[str, object]]:
        """Kill until two scans meet nobody, at most for `protocol.SWEEP_S`."""
        until = system.boot_now() + protocol.SWEEP_S
        empty, thorough = 0, True
        while empty < EMPTY_SCANS:
            known = len(self._killed)
            met = self._scan(thorough=thorough)
            empty, thorough = (0 if met else empty + 1), False
            if met and system.boot_now() >= until:
                self._give_up(met)
                break
            yield
            # What forks itself on must be caught in the act: no pause while there is prey.
            if len(self._killed) == known:
                time.sleep(PASS_S)
        return self.result()

    def result(self) -> dict[str, object]:
        """What came of it: `spared` are those that something connects with the run."""
        killed = [pid for pid in self._killed if pid not in self._left]
        spared = [{"pid": pid, "why": why} for pid, why in self._spared.items()]
        return {
            "killed": killed[:MAX_PIDS],
            "spared": spared[:MAX_SPARED],
            "left": self._left[:MAX_PIDS],
        }

    def _scan(self, *, thorough: bool) -> list[Verdict]:
        """Kill whoever is met; `thorough` also names what is older than the run."""
        met = []
        table = _table()
        for pid, row in table.items():
            if self._judge.is_older(row) and not thorough:
                continue
            verdict = self._judge.judge(pid, row, table)
            if verdict is None:
                continue
            if verdict.spared is not None:
                # One that died while it was judged has no uid left to show.
                if look(pid) is not None:
                    self._spared[pid] = _sentence(verdict)
            elif self._kill(verdict, table):
                met.append(verdict)
                self._killed[pid] = None
                self._spared.pop(pid, None)
        return met

    def _kill(self, verdict: Verdict, table: dict[int, Row]) -> bool:
        """Kill exactly the process that was judged.

        The descriptor is taken first, then everything is read once more: what was read is true of
        the process that the descriptor means, or that one is dead and the signal goes nowhere.
        """
        try:
            fd = os.pidfd_open(verdict.pid)
        except OSError:
            return False
        try:
            row = look(verdict.pid)
            if row is None or row.ticks != verdict.ticks:
                return False
            again = self._judge.judge(verdict.pid, row, table)
            if again is None or again.spared is not None:
                return False
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        except ProcessLookupError:
            return False
        except OSError as exc:
            self._spared[verdict.pid] = f"cannot be killed: {exc.strerror}"
            return False
        finally:
            os.close(fd)
        return True

    def _give_up(self, met: list[Verdict]) -> None:
        time.sleep(LAST_LOOK_S)
        for verdict in met:
            row = look(verdict.pid)
            if row is not None and row.ticks == verdict.ticks:
                self._left.append(verdict.pid)


def heir() -> int:
    """Who adopts orphans where no shim does: init, or a subreaper above us such as a manager.

    No file of /proc tells a subreaper, so one orphan is made and asked.
    """
    system.prctl(system.PR_SET_CHILD_SUBREAPER, 0)
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        child = os.fork()
        if child == 0:
            _make_orphan(write)
        os.close(write)
        write = -1
        os.waitpid(child, 0)
        return int(os.read(read, 32) or b"1")
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)
        system.prctl(system.PR_SET_CHILD_SUBREAPER, 1)


def _make_orphan(write: int) -> None:
    try:
        parent = os.getpid()
        if os.fork() == 0:
            until = time.monotonic() + ADOPTION_S
            while os.getppid() == parent and time.monotonic() < until:
                time.sleep(0.001)
            os.write(write, str(os.getppid()).encode("ascii"))
    finally:
        os._exit(0)


def _table() -> dict[int, Row]:
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            row = look(int(name))
            if row is not None:
                found[int(name)] = row
    return found


def _sentence(verdict: Verdict) -> str:
    try:
        with open(f"/proc/{verdict.pid}/comm", "rb") as file:
            name = ascii(file.read(64).strip().decode("utf-8", "replace"))
    except OSError:
        name = "it"
    return f"{name} {verdict.evidence}, but {verdict.spared}"
