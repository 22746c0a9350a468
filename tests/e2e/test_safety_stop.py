"""However a node resists its end, nothing of the run outlives it (docs/safety.md, 3 and 5)."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import faults, inside
from tests.e2e.box import Box, Status
from tests.e2e.host import alive
from tests.e2e.pairs import served
from tests.e2e.waiting import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.safety]

# For nodes that do not heed SIGINT; the others get the usual ten seconds, and need none of them.
_SHORT_GRACE = ("--set", "stop_grace_s=0.3")
_DISPOSITIONS = ("SIGINT", "SIGQUIT", "SIGHUP", "SIGTERM")


# By a cgroup where one can be made, and without: by descent, and by evidence.
by_evidence = pytest.mark.parametrize("shared_box", ["evidence"], indirect=True)
either_way = pytest.mark.parametrize("shared_box", ["auto", "evidence"], indirect=True)


@pytest.fixture(scope="module")
def shared_box(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Box]:
    """Yield a box with a soakd that holds its runs as the test wants it."""
    settings = f'containment = "{request.param}"\n'
    with served(Box(tmp_path_factory.mktemp("stop")), settings) as box:
        yield box


def _rungs(box: Box, run: str) -> dict[str, list[int]]:
    """The rungs that were taken, each with the pids that it met first."""
    found: dict[str, list[int]] = {}
    for event in box.records(run, "logs/events.ndjson"):
        if event["kind"] == "rung":
            found.setdefault(event["data"]["rung"], event["data"]["pids"])
    return found


def _is_over(box: Box, run: str, pids: list[int]) -> Status:
    """Nothing is left, and nobody shows a pid any more."""
    final = box.status(run)
    assert final["state"] == "finished"
    assert [pid for pid in pids if alive(pid)] == []
    assert box.processes() == {}
    assert box.leftovers() == []
    assert (final["rung"], [node["pid"] for node in final["nodes"]]) == (None, [None, None])
    assert not re.search(r"^ +node [ab] .*\bpid\b", inside.status_text(final), re.MULTILINE)
    return final


_MISSES_SIGINT = "misses SIGINT"


@by_evidence
@pytest.mark.parametrize(
    ("orders", "rungs", "ended"),
    [
        pytest.param(
            (_MISSES_SIGINT, "ignore:INT"), ["sigint", "sigterm"], (None, 15), id="no SIGINT"
        ),
        pytest.param(
            ("ignore:INT,TERM", "stop"), ["sigint", "sigterm", "sigkill"], (None, 9),
            id="no SIGTERM, and stopped",
        ),
        pytest.param(
            ("fork:3", "fork:2,noenv,chdir,deaf"), ["sigint", "sigkill"], (0, None),
            id="forked children, and deaf ones",
        ),
        pytest.param(
            ("daemon:2", "daemon:2,noenv,chdir,deaf,listen"), ["sigint", "sweep"], (0, None),
            id="double-forked with setsid, and without a trace, on the port",
        ),
    ],
)  # fmt: skip
def test_a_stop_ends_a_node_and_all_that_it_started(
    box: Box, orders: tuple[str, str], rungs: list[str], ended: tuple[Any, Any]
) -> None:
    """As far down the ladder as it takes, and no further; each rung is written down with pids.

    Each of the two nodes has its own way to need that.
    """
    if orders[0] == _MISSES_SIGINT:
        _let_miss_sigint(box.soaks[0])
    run = inside.start(box, "50", *(_SHORT_GRACE if "sigterm" in rungs else ()))
    pids = [node["pid"] for node in box.until_rounds(run, 1)["nodes"]]
    descendants = []
    for node, order in zip("ab", orders, strict=True):
        if order == _MISSES_SIGINT:
            continue
        faults.now(box, run, node, order)
        made = faults.descendants(box, run, node)
        assert len(made) >= (order[:4] in {"fork", "daem"})
        descendants += made
    if "stop" in orders:
        wait_for(lambda: _state(pids[1]) == "T", "node b is stopped")
    assert all(map(alive, descendants))
    inside.stop(box, run)
    final = _is_over(box, run, [*pids, *descendants])
    taken = _rungs(box, run)
    assert list(taken) == rungs
    assert taken["sigint"] == pids
    assert set(descendants) <= set(taken[rungs[-1]])
    if not descendants:
        assert set(pids) <= set(taken[rungs[-1]])
    exits = [node["exit"] for node in final["nodes"]]
    assert [(code["code"], code["signal"]) for code in exits] == [ended, ended]
    assert (final["result"], final["verdict"]) == ("stopped", "aborted")


def _let_miss_sigint(folder: Path) -> None:
    config = folder / "config.toml"
    before = config.read_text()
    assert before.count("sigint_miss_rate = 0.0") == 1
    config.write_text(before.replace("sigint_miss_rate = 0.0", "sigint_miss_rate = 1.0"))


@either_way
def test_status_shows_the_rungs_and_pids_of_the_worst_pair(box: Box) -> None:
    """One node ignores all it can and has daemons, the other is stopped and has deaf children."""
    run = inside.start(box, "50", "--set", "stop_grace_s=1")
    pids = [node["pid"] for node in box.until_rounds(run, 1)["nodes"]]
    faults.now(box, run, "a", "daemon:2,noenv,chdir,deaf,listen", "ignore:INT,TERM,HUP")
    faults.now(box, run, "b", "fork:2,noenv,deaf", "stop")
    wait_for(lambda: _state(pids[1]) == "T", "node b is stopped")
    descendants = [pid for node in "ab" for pid in faults.descendants(box, run, node)]
    assert len(descendants) == 4
    with box.ctl_spawn("stop", run) as stopping:
        shown: dict[str, list[int]] = {}
        for rung in ("sigint", "sigterm"):
            status = box.until(run, lambda s, name=rung: _on_rung(s, name), rung)  # type: ignore[misc]
            shown[rung] = status["rung"]["pids"]
            if rung == "sigterm":
                text = " ".join(map(str, shown[rung]))
                assert f"SIGTERM to {text}" in box.ctl("status", run).out
        said, _ = stopping.communicate(timeout=20)
    final = _is_over(box, run, [*pids, *descendants])
    assert shown["sigint"] == shown["sigterm"] == pids
    lines = [line.split(" to ")[0].strip() for line in said.splitlines()[1:-1]]
    assert lines == ["SIGINT", "SIGTERM", "SIGKILL", "sweep"]
    taken = _rungs(box, run)
    assert set(pids) <= set(taken["sigkill"])
    assert set(descendants) <= {*taken["sigkill"], *taken["sweep"]}
    assert [node["exit"]["signal"] for node in final["nodes"]] == [9, 9]
    assert final["verdict"] == "aborted"


@either_way
@pytest.mark.parametrize("dies", [False, True], ids=["completed", "failed"])
def test_a_run_that_ends_by_itself_leaves_nothing_either(box: Box, *, dies: bool) -> None:
    """Completed, or failed since a node died: its daemons go, status and files name no pid."""
    faults.at_install(box.soaks[0], "daemon:2,noenv,chdir,deaf", "fork:1,noenv,chdir")
    faults.at_install(box.soaks[1], "daemon:1,noenv,chdir", *(["exit@0.8:7"] if dies else []))
    run = inside.start(box, *(["50"] if dies else ["--rounds", "4"]))
    pids = [node["pid"] for node in box.until(run, _both_run, "both nodes run")["nodes"]]
    inside.wait(box, run, status=1 if dies else 0)
    descendants = [pid for node in "ab" for pid in faults.descendants(box, run, node)]
    assert len(descendants) == 4
    final = _is_over(box, run, [*pids, *descendants])
    assert final["result"] == ("failed" if dies else "completed")
    if dies:
        assert final["nodes"][1]["exit"] == {"code": 7, "signal": None}
        assert "exit status 7" in final["cause"]["text"]


@either_way
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        # soakd sees no difference: the connection ends.
        pytest.param(signal.SIGSEGV, marks=pytest.mark.campaign),
        signal.SIGTERM,
    ],
)
def test_a_shim_that_dies_takes_its_nodes_along_and_the_cause_is_booked(
    box: Box, number: signal.Signals
) -> None:
    """Crashed or told to end: soakd says so, sweeps what is left, and blames no node."""
    run = inside.start(box, "50")
    pids = [node["pid"] for node in box.until_rounds(run, 1)["nodes"]]
    faults.now(box, run, "a", "daemon:1,deaf", "fork:1,chdir")
    descendants = faults.descendants(box, run, "a")
    shim = box.row(run)["shim_pid"]
    os.kill(shim, number)
    politely = number == signal.SIGTERM
    final = inside.wait(box, run, status=4 if politely else 5)
    assert final["cause"]["code"] == ("shim_told" if politely else "shim_lost")
    assert final["verdict"] == ("aborted" if politely else "harness_error")
    assert not alive(shim)
    _is_over(box, run, [*pids, *descendants])
    if politely:
        assert "SIGTERM" in final["cause"]["text"]
        assert [node["exit"]["code"] for node in final["nodes"]] == [0, 0]


def _on_rung(status: Status, name: str) -> bool:
    return status["rung"] is not None and status["rung"]["rung"] == name


def _both_run(status: Status) -> bool:
    return all(node["pid"] for node in status["nodes"])


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _ignore_as_a_shells_ampersand_does() -> None:
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP, signal.SIGUSR1])


def test_nodes_of_a_soakd_under_nohup_and_ampersand_hear_every_signal(bare_box: Box) -> None:
    """Ignored and blocked signals are inherited: the shim gives its nodes all of them back."""
    box = bare_box
    box.install(outcomes=["hit"])
    box.serve(wrapper=("nohup",), preexec_fn=_ignore_as_a_shells_ampersand_does)
    inherited = _dispositions(box.daemon.pid)
    assert "SIGHUP" in inherited["SigIgn"]
    run = inside.start(box, "50")
    pids = [node["pid"] for node in box.until_rounds(run, 1)["nodes"]]
    for pid in pids:
        found = _dispositions(pid)
        assert {*found["SigIgn"], *found["SigBlk"]}.isdisjoint(_DISPOSITIONS)
    inside.stop(box, run)
    final = _is_over(box, run, pids)
    assert list(_rungs(box, run)) == ["sigint"]
    assert [node["exit"]["code"] for node in final["nodes"]] == [0, 0]
    # soakd itself still hears the signal that ends it (`close` sends SIGINT).
    box.leave(signal.SIGTERM)


def _dispositions(pid: int) -> dict[str, list[str]]:
    """Names of the signals that a process ignores and blocks."""
    text = Path(f"/proc/{pid}/status").read_text()
    masks = dict(re.findall(r"(SigIgn|SigBlk):\s+([0-9a-f]+)", text))
    return {
        key: [item.name for item in signal.Signals if int(mask, 16) >> (item.value - 1) & 1]
        for key, mask in masks.items()
    }
