"""What happens while no soakd is there is told by the next one, once (docs/safety.md, 8).

One soakd is killed over many runs, and in each of them something happens then. The next soakd tells
of it; the one after that tells the same.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from soakd.simnode import order
from tests.e2e import faults
from tests.e2e.box import Box, Status
from tests.e2e.host import alive
from tests.e2e.pairs import Pairs, pairs
from tests.e2e.records import STATUS_KEYS, check_rounds, tsv
from tests.e2e.waiting import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.safety]

# Enough for nodes to do as they are told before their shim stops them.
_GRACE_S = 3
_SOON, _LATE = "soon back", "too late"
_ENDED: dict[str, tuple[str, dict[str, Any], str]] = {
    f"exits, {_SOON}": ("exit:7", {"code": 7, "signal": None}, "exit status 7"),
    f"exits, {_LATE}": ("exit:7", {"code": 7, "signal": None}, "exit status 7"),
    f"crashes, {_SOON}": ("die:SEGV", {"code": None, "signal": 11}, "SIGSEGV"),
    f"crashes, {_LATE}": ("die:SEGV", {"code": None, "signal": 11}, "SIGSEGV"),
    f"panics, {_SOON}": ("panic:the end", {"code": 101, "signal": None}, "exit status 101"),
}
"""What node b of a run was told to do, its exit, and words for that.

Whether soakd is soon back, or its shim gives up and ends before.
"""
_NOBODY, _TOLD, _LIVES = "nobody comes", "the shim is told to end", "nodes live"


class Absence:
    """Runs whose soakd was killed, and what was said of them before and afterwards.

    Attributes:
        before: by the soakd that was killed.
        told: by the next one, when all had ended but the run whose nodes live.
        again: by one more soakd.
    """

    def __init__(self, made: Pairs) -> None:
        """Starts the runs, has soakd killed, lets it all happen, and starts soakd twice."""
        self.box = made.box
        self.runs = made.runs
        _begin(made)
        self.before = {name: self.box.until_rounds(run, 1) for name, run in self.runs.items()}
        faults.now(self.box, self.runs[_NOBODY], "a", "daemon:2,noenv,chdir,deaf")
        self._shims = {name: self.box.row(run)["shim_pid"] for name, run in self.runs.items()}
        self.box.leave(signal.SIGKILL)
        self._happen()
        self.box.serve()
        wait_for(lambda: events(self.box, self.runs[_LIVES], "sam_session_lost"), "it is told")
        wait_for(self._are_over, "the ends of all other runs")
        self.told = made.statuses()
        self.box.leave(signal.SIGKILL)
        self.box.serve()
        self.again = made.statuses()

    def pids(self, name: str) -> list[int]:
        """The nodes of a run."""
        return [node["pid"] for node in self.before[name]["nodes"]]

    def _happen(self) -> None:
        """Tell nodes and a shim what to do, and return when it is done."""
        for name, (what, _, _) in _ENDED.items():
            order(self._data(name, "b"), what)
        os.kill(self._shims[_TOLD], signal.SIGTERM)
        order(self._data(_LIVES, "a"), "panic-thread:out of luck")
        order(self._data(_LIVES, "b"), "session-loss")
        gone = [self.pids(name)[1] for name in _ENDED]
        for name in (*(name for name in _ENDED if name.endswith(_LATE)), _NOBODY, _TOLD):
            gone += [self._shims[name], *self.pids(name)]
        gone += faults.descendants(self.box, self.runs[_NOBODY], "a")
        wait_for(lambda: not any(map(alive, gone)), "the ends of nodes and shims")
        wait_for(lambda: "out of luck" in self._said("a"), "the panic")
        wait_for(lambda: "kad service lost SAM socket" in self._said("b"), "the loss")

    def _data(self, name: str, node: str) -> Path:
        return self.box.node(self.runs[name], node) / "data"

    def _said(self, node: str) -> str:
        return self.box.read(self.runs[_LIVES], f"logs/{node}.out")

    def _are_over(self) -> bool:
        states = {name: self.box.row(run)["state"] for name, run in self.runs.items()}
        return set(states.values()) - {states.pop(_LIVES)} == {"finished"}


def _begin(made: Pairs) -> None:
    late = ("--set", f"orphan_grace_s={_GRACE_S}")
    for name in (*_ENDED, _NOBODY, _TOLD, _LIVES):
        gives_up = name.endswith(_LATE) or name == _NOBODY
        # Not more rounds than it takes to have some.
        made.begin(name, "600", *(late if gives_up else ()), WAIT_BETWEEN="2")


@pytest.fixture(scope="module")
def absence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Absence]:
    """Yield the runs of one absence of soakd, of which only `_LIVES` goes on."""
    with pairs(tmp_path_factory.mktemp("away"), at_a_time=len(_ENDED) + 3) as made:
        yield Absence(made)


def events(box: Box, run: str, kind: str) -> list[dict[str, Any]]:
    """The events of a kind, in order."""
    found = box.records(run, "logs/events.ndjson")
    return [event for event in found if event["kind"] == kind]


def _check_records(box: Box, run: str, final: Status) -> None:
    """All records agree on the rounds and on how the nodes ended."""
    recorded = json.loads(box.read(run, "run.json"))
    assert (recorded["nodes"], recorded["rounds"]) == (final["nodes"], final["rounds"])
    records = box.records(run)
    check_rounds(tsv(box, run), records)
    assert len(records) == final["rounds"]["total"]


@pytest.mark.parametrize("name", _ENDED)
def test_a_node_that_ended_meanwhile_gives_its_true_exit(absence: Absence, name: str) -> None:
    """The shim has seen it, and has written it down should it be gone itself by then."""
    box, run = absence.box, absence.runs[name]
    _, exit_, words = _ENDED[name]
    final = box.wait(run, status=1)
    assert (final["cause"]["code"], final["cause"]["node"]) == ("node_exited", "b")
    pid = absence.pids(name)[1]
    assert f"node b (pid {pid}) ended by itself: {words}" in final["cause"]["text"]
    assert final["nodes"][1]["exit"] == exit_
    assert final["nodes"][0]["exit"] == {"code": 0, "signal": None}
    _check_records(box, run, final)


def test_a_node_that_ended_in_a_gap_is_explained_by_its_last_words(absence: Absence) -> None:
    """Its own line, from the file that it was printed to."""
    name = f"panics, {_SOON}"
    assert "panicked at" in absence.again[name]["cause"]["text"]
    assert len(events(absence.box, absence.runs[name], "panic")) == 1


def test_a_soakd_that_stays_away_for_too_long_leaves_nothing_running(absence: Absence) -> None:
    """The shim stops its nodes politely and ends; the next soakd says why, and how they ended."""
    box, run = absence.box, absence.runs[_NOBODY]
    final = box.wait(run, status=5)
    assert (final["result"], final["cause"]["code"]) == ("failed", "shim_gone")
    assert f"no soakd was there for {_GRACE_S} s (orphan_grace_s)" in final["cause"]["text"]
    assert [node["exit"] for node in final["nodes"]] == [{"code": 0, "signal": None}] * 2
    _check_records(box, run, final)


def test_a_shim_that_is_told_to_end_while_soakd_is_away_aborts_its_run(absence: Absence) -> None:
    """As at a shutdown of its slice: the nodes end politely, the next soakd says by what."""
    final = absence.box.wait(absence.runs[_TOLD], status=4)
    assert (final["result"], final["cause"]["code"]) == ("aborted", "shim_told")
    assert "SIGTERM" in final["cause"]["text"]
    assert [node["exit"] for node in final["nodes"]] == [{"code": 0, "signal": None}] * 2


def test_a_finished_run_is_told_alike_by_all(absence: Absence) -> None:
    """By status, run.json and the store, also after a restart of soakd."""
    for name in absence.runs.keys() - {_LIVES}:
        told, again = absence.told[name], absence.again[name]
        recorded = json.loads(absence.box.read(absence.runs[name], "run.json"))
        # Whether a shim that is gone was lost is told as long as its soakd lives.
        unlike = set() if name.endswith(_SOON) else {"link"}
        for key in (STATUS_KEYS | {"result", "why", "hit_rate", "ended_at"}) - unlike:
            assert again[key] == told[key] == recorded[key], (name, key)


def test_a_panic_and_a_lost_session_in_a_gap_are_told_once(absence: Absence) -> None:
    """Not again by one more soakd; the panic fails its gate though nobody heard it."""
    box, run = absence.box, absence.runs[_LIVES]
    [panic] = events(box, run, "panic")
    [lost] = events(box, run, "sam_session_lost")
    assert (panic["node"], lost["node"]) == ("a", "b")
    out = (box.run_folder(run) / "logs" / "b.out").read_bytes()
    assert out[: lost["data"]["at_byte"]].endswith(b"\n")
    box.ctl("stop", run)
    final = box.wait(run, status=1)
    assert final["verdict"] == "failed"
    assert "panics is 1" in final["why"]


def test_nothing_of_all_these_runs_is_left(absence: Absence) -> None:
    """No process and no port, though nodes had daemons and shims were gone."""
    box = absence.box
    box.call("run.stop", run=absence.runs[_LIVES])
    box.until(absence.runs[_LIVES], lambda s: s["state"] == "finished", "its end")
    assert box.processes() == {}
    assert box.leftovers() == []
