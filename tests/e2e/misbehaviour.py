"""Nodes that misbehave on order: many soaks side by side in one soakd, and what came of each.

What a misbehaving node must come to stands in `test_misbehaviour*.py`; here soaks are started, a
node of each is told what to do wrong once rounds go well, and everything is kept for the tests.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from soakctl.commands import start
from soakctl.planning import start_requests
from soakctl.session import Session
from soakctl.watching import submit
from soakd.core.plan import longest_round_s, parse_plan
from soakd.simnode import install, order
from tests.e2e.box import FAST_NODES, Box, Status
from tests.e2e.host import node_python
from tests.e2e.records import epoch
from tests.ports import free_ports, free_udp_range, is_free

MANY = 24
"""Soaks at a time; more would make two cores the subject of the test."""
SETTINGS = (
    f"max_running = {MANY}\nrunning_per_user = {MANY}\nqueued_per_user = 100\n"
    "submissions_per_minute = 1000\n"
)
"""For soakd.toml."""
LENGTH_S = 20.0
SPARE_S = 15.0
"""A soak that must not end yet is given more when it has less left: the next look may be late."""
PROMPT_S = 12.0
"""Enough rounds where no call runs into its time-out."""
MOST_ERRORS = 0.05
"""More of them fail a verdict."""
GUARD_S = 180.0
_LOOK_EVERY_S = 1.0
_UDP_PORTS = 2
_CALM_NODES = {
    **FAST_NODES,
    "udp_ports": _UDP_PORTS,
    "beacon_secs": 0.5,
    "status_every_secs": 1.0,
    "outcomes": ["hit"],
    # Longer than a round with all its rechecks.
    "session_recreate_secs": 5.0,
}
# About one round in two seconds: so many soaks have two cores to share.
_CALM_WAITS = {
    "WAIT_PUBLISH": "0.2",
    "WAIT_SEARCH": "0.4",
    "WAIT_BETWEEN": "1.2",
    "READ_EVERY": "0",
    "MISS_RECHECK_ATTEMPTS": "2",
    "MISS_RECHECK_DELAY": "1",
}


SHORT, WHOLE = "short", "whole"
FORMS = (SHORT, pytest.param(WHOLE, marks=pytest.mark.campaign))
"""Of a campaign: some faults of each kind, and all of them, for the fixture that plays it."""


def in_forms(
    argument: str, told: Sequence[Any], name: Callable[[Any], str], short: Collection[str]
) -> pytest.MarkDecorator:
    """Make a test of each of `told` in the whole campaign, and of those named in the short one."""
    params = [pytest.param(SHORT, one, id=name(one)) for one in told if name(one) in short]
    params += [
        pytest.param(WHOLE, one, id=f"{name(one)}-{WHOLE}", marks=pytest.mark.campaign)
        for one in told
    ]
    return pytest.mark.parametrize(
        ("campaign", argument), params, indirect=["campaign"], scope="module"
    )


@dataclass(frozen=True)
class Case:
    """One soak: which node is told to do what.

    Attributes:
        name: of the test.
        orders: for the running node, see `soakd.simnode.faults`; none are given if `from_start`.
        node: `a` publishes, `b` searches.
        fault_s: how long rounds may start after the order, at least; two time-outs of a call fit
            if nothing else is said.
        from_start: the orders stand in the node's configuration.
        well_s: how long rounds must have gone well before the order, in `play_each`.
    """

    name: str
    orders: tuple[str, ...]
    node: str = "b"
    fault_s: float = 25.0
    from_start: bool = False
    well_s: float = 0.0


@dataclass
class Soak:
    """A soak of a case, and what was seen of it."""

    case: Case
    run: str
    box: Box
    ports: list[int]
    ordered_at: float = 0.0
    finished_at: float = 0.0
    troubles: list[str] = field(default_factory=list)
    """Every sentence that `status` ever showed for a node, once."""
    shown: str = ""
    """What `soakctl status` printed while one of them was there."""
    status: Status = field(default_factory=dict)
    """Seen last."""
    ends_at: float | None = None
    """About when its measuring ends, by this process's clock; None while that is not known."""
    final: Status = field(default_factory=dict)

    @property
    def is_shown(self) -> bool:
        """Whether `soakctl status` printed one of the sentences."""
        return any(text in self.shown for text in self.troubles)

    def note(self, status: Status) -> None:
        """Keep what was seen of it."""
        self.status = status
        left_s = status["remaining_s"] if status["state"] == "running" else None
        self.ends_at = None if left_s is None else time.monotonic() + left_s

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """The events of these kinds; all of them without."""
        events = self.box.records(self.run, "logs/events.ndjson")
        return [event for event in events if not kinds or event["kind"] in kinds]

    def rounds(self) -> list[dict[str, Any]]:
        """What rounds.ndjson has."""
        return self.box.records(self.run)

    def rounds_before(self) -> list[dict[str, Any]]:
        """The rounds that ended before the order was given."""
        return [r for r in self.rounds() if epoch(r["ended_at"]) <= self.ordered_at]

    def rounds_after(self, settle_s: float = 0.5) -> list[dict[str, Any]]:
        """The rounds that began when the order was certainly obeyed."""
        since = self.ordered_at + settle_s
        return [r for r in self.rounds() if epoch(r["started_at"]) >= since]

    def rounds_since_order(self) -> list[dict[str, Any]]:
        """The rounds that the order may have touched."""
        return [r for r in self.rounds() if epoch(r["ended_at"]) > self.ordered_at]

    def longest_round_s(self) -> float:
        """How long a round of this soak may take when all its calls time out."""
        plan = json.loads(self.box.read(self.run, "plan.json"))["plan"]
        return longest_round_s(parse_plan(plan))


class Memory:
    """How much memory a process has taken since `begin`, at most; in MB (10^6 bytes)."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.before_mb = 0.0
        self.most_mb = 0.0

    def begin(self) -> None:
        """Forget what the process had before."""
        # proc(5): 5 resets the high water mark.
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        self.before_mb = self.most_mb = _status_mb(self.pid, "VmRSS")

    def look(self) -> None:
        """Take the high water mark, if the process still lives."""
        with suppress(OSError, LookupError):
            self.most_mb = max(self.most_mb, _status_mb(self.pid, "VmHWM"))

    @property
    def grown_mb(self) -> float:
        """The most it ever had over what it had."""
        return self.most_mb - self.before_mb

    def __str__(self) -> str:
        return f"{self.before_mb:.1f} MB before, at most {self.grown_mb:.1f} MB more"


def _status_mb(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise LookupError(name)  # a zombie has no memory


class Campaign:
    """Soaks side by side in a box whose soakd runs; `play` them, a wave at a time."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.soaks: dict[str, Soak] = {}
        self.soakd = Memory(box.daemon.pid)
        self.shims: list[Memory] = []

    def play(self, cases: Sequence[Case], failing: Collection[Case] = ()) -> None:
        """Start a soak of each case, give the orders once rounds go well, wait for all ends.

        Those of `failing` go on until their errors are enough for a failed verdict: how many rounds
        went well before the order, while others started, depends on the host.
        """
        wave = self._start(cases, self._is_measured)
        self._until(wave, self._is_measured, "a first round of every soak")
        if not self.soakd.before_mb:
            self.soakd.begin()
        for soak in wave:
            self._order(soak)
        failing_soaks = [soak for soak in wave if soak.case in failing]
        self._until(failing_soaks, self._has_failed, "errors of every soak that shall fail")
        self.finish(wave)

    def play_each(self, cases: Sequence[Case]) -> None:
        """Start a soak of each case, give its orders as soon as its own rounds go well."""
        wave = self._start(cases, self._is_ordered)
        self._until(wave, self._is_ordered, "a first round of every soak")
        self.finish(wave)

    def start(self, cases: Sequence[Case], ready_s: float) -> list[Soak]:
        """Start a soak of each case whose orders hold before it can get ready."""
        return self._start(cases, lambda _: True, READY_TIMEOUT_SECS=f"{ready_s:g}")

    def finish(self, wave: Iterable[Soak]) -> None:
        """Look on until every soak has ended."""
        self._until(wave, lambda soak: bool(soak.final), "the end of every soak")

    def left(self) -> list[str]:
        """What should not be there any more."""
        ports = [port for soak in self.soaks.values() for port in soak.ports]
        return [*self.box.leftovers(), *(f"port {port}" for port in ports if not is_free(port))]

    def _start(
        self, cases: Sequence[Case], holds: Callable[[Soak], bool], **variables: str
    ) -> list[Soak]:
        """Start a soak of each case; meanwhile `holds` is asked of those that are there."""
        # Both at once: what is chosen one by one can be chosen twice.
        ports = free_ports(2 * len(cases))
        first_udp = free_udp_range(_UDP_PORTS * len(cases))
        wave = []
        for number, case in enumerate(cases):
            own = ports[2 * number : 2 * number + 2]
            env = self._install(case, own, first_udp + _UDP_PORTS * number)
            run = self._submit(case.name, {**env, **variables})
            wave.append(Soak(case, run, self.box, own))
            self.soaks[case.name] = wave[-1]
            self._look(wave, holds)
        return wave

    def _submit(self, label: str, env: dict[str, str]) -> str:
        """Do what `soakctl start` does, without a process for each soak."""
        parser = argparse.ArgumentParser()
        start.add_arguments(parser)
        options = parser.parse_args(
            [f"{LENGTH_S:.0f}", "--set", "stop_grace_s=2", "--label", label]
        )
        session = self._session(env)
        (request,) = start_requests(session, options).each
        return str(submit(session, "run.start", request)["id"])

    def _session(self, env: Mapping[str, str] | None = None) -> Session:
        environ = {**self.box.env, **(env or {})}
        return Session(socket=str(self.box.socket), json=True, environ=environ)

    def _order(self, soak: Soak) -> None:
        """Let the node of a soak do what its case says."""
        shim = Memory(self.box.row(soak.run)["shim_pid"])
        shim.begin()
        self.shims.append(shim)
        self._keep(soak, soak.case.fault_s, soak.case.fault_s)
        soak.ordered_at = time.time()
        order(self.box.node(soak.run, soak.case.node) / "data", *soak.case.orders)

    def _keep(self, soak: Soak, at_least_s: float, then_s: float) -> None:
        """Extend a soak that has less left; how long the others take to start nobody knows."""
        if soak.ends_at is None:
            soak.note(self.box.status(soak.run))
        if soak.ends_at is None or (left_s := soak.ends_at - time.monotonic()) >= at_least_s:
            return
        by_s = math.ceil(then_s - left_s)
        self.box.call("run.extend", run=soak.run, by_s=by_s)
        soak.ends_at += by_s

    def _install(self, case: Case, ports: list[int], udp: int) -> dict[str, str]:
        """Make both node folders; the environment to start them with."""
        plot = self.box.folder / f"soaks-{case.name.replace('/', '_')}"
        for name, port in zip("ab", ports, strict=True):
            told = case.orders if case.from_start and name == case.node else ()
            install(
                plot / f"mule-{name}",
                python=node_python(),
                port=port,
                session_name=f"mule-{name}",
                sim={
                    **_CALM_NODES,
                    "network": f"misbehaviour-{udp}-{self.box.daemon.pid}",
                    "udp_first_port": udp,
                    "faults": list(told),
                },
            )
        return {
            "A_SRC": str(plot / "mule-a"),
            "B_SRC": str(plot / "mule-b"),
            "A_URL": f"127.0.0.1:{ports[0]}",
            "B_URL": f"127.0.0.1:{ports[1]}",
            **_CALM_WAITS,
        }

    def _until(self, wave: Iterable[Soak], holds: Callable[[Soak], bool], what: str) -> None:
        """Look at all soaks again and again until `holds` is true of each."""
        left = list(wave)
        give_up = time.monotonic() + GUARD_S
        while left := self._look(left, holds):
            late = [f"{soak.case.name} ({soak.run})" for soak in left]
            assert time.monotonic() < give_up, f"not within {GUARD_S:g} s: {what}: {late}"
            time.sleep(_LOOK_EVERY_S)

    def _look(self, soaks: Collection[Soak], holds: Callable[[Soak], bool]) -> list[Soak]:
        """Look once at soaks that have not ended; return those of which `holds` is not true."""
        left = []
        with self._session().connect() as client:
            for soak in soaks:
                if not soak.final:
                    self._see(soak, client.call("run.status", {"run": soak.run}))
                if not holds(soak):
                    left.append(soak)
        for memory in (self.soakd, *self.shims):
            memory.look()
        return left

    def _see(self, soak: Soak, status: Status) -> None:
        soak.note(status)
        sentences = [text for node in status["nodes"] for text in node.get("trouble") or ()]
        soak.troubles += [text for text in sentences if text not in soak.troubles]
        # What this look saw may be over before the next one.
        if sentences and not soak.is_shown and not soak.final:
            soak.shown = self.box.ctl("status", soak.run).out
        if status["state"] == "finished" and not soak.final:
            soak.final, soak.finished_at = status, time.time()

    def _has_failed(self, soak: Soak) -> bool:
        rounds = soak.status["rounds"]
        if soak.final or (soak.is_shown and rounds["error"] > MOST_ERRORS * rounds["total"]):
            return True
        self._keep(soak, 0.5 * LENGTH_S, 0.75 * LENGTH_S)
        return False

    def _is_ordered(self, soak: Soak) -> bool:
        if not soak.ordered_at and self._is_measured(soak):
            well_s = time.time() - epoch(soak.rounds()[0]["started_at"])
            if well_s >= soak.case.well_s:
                self._order(soak)
        return bool(soak.ordered_at)

    def _is_measured(self, soak: Soak) -> bool:
        assert not soak.final, f"{soak.case.name} ended before the order: {soak.final}"
        self._keep(soak, SPARE_S, LENGTH_S)
        if not (soak.box.run_folder(soak.run) / "logs/rounds.ndjson").exists():
            return False
        return bool(soak.rounds())
