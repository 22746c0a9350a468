"""Starts that must fail: at once, in words that help, with nothing left (docs/safety.md, 1 and 2).

All of them are started side by side, each with a pair of nodes and ports of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from soakd.drivers.rust_mule_words import explain_failure
from soakd.simnode.failures import FAILURES
from tests.e2e import faults, inside
from tests.e2e.box import Box, Status
from tests.e2e.records import epoch
from tests.ports import is_free

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.safety]

_AT_A_TIME = 5
_CLEANED_UP_WITHIN_S = 10.0
WORDS = {
    "lock": "another rust-mule already runs on this data dir",
    "config-toml": "config.toml is not valid TOML",
    "config-read": "config.toml cannot be read",
    "config-value": "a value in config.toml is refused",
    "sam-unreachable": "the SAM bridge cannot be reached: does the I2P router run",
    "sam-silent": "the SAM bridge does not answer",
    "sam-closed": "the SAM bridge closed the connection",
    "sam-closed-bootstrap": "the SAM bridge closed the connection during bootstrap",
    "sam-refused": "the SAM bridge refused the session",
    "sam-destination": "delete sam.keys first",
    "sam-udp-port": "the UDP port sam.forward_port is taken",
    "sam-keys": "sam.keys is damaged",
    "kad-id": "preferencesKad.dat is damaged",
    "udp-key": "kad_udp_key_secret.dat has the wrong size",
    "nodes-read": "the contact file cannot be read",
    "nodes-format": "the contact file is damaged",
    "no-contacts": "nodes.dat has no usable contact",
}
"""What helps with each failure of contract 3.3, by simnode's name for it."""
_USUAL = ("lock", "config-toml", "sam-unreachable", "sam-udp-port", "no-contacts")
"""One of each part of the program; what it says differs in nothing but the words."""

WRAPPERS = {
    # What was submitted is replaced by another program under the same pid.
    "becomes": (
        "sleep 0.3; exec sleep 1000",
        r"\['sleep', '1000'\] runs in place of the staged rust-mule",
    ),
    # The program of another folder, by the very names that the staged one has.
    "elsewhere": (
        "sleep 0.3; cd '{source}' && exec ./rust-mule",
        "it has left its own folder for '.*/other/mule-b'",
    ),
    # The pid is the shell's, the node is its child: what the scripts took for a node.
    "parent": ("./real-mule & wait", "the program in the node folder must listen itself"),
}
"""Scripts in the place of rust-mule, and what soakd says of each."""

HOLDERS = ("node", "web", "silent")


class Starts:
    """A soakd with many doomed runs; `runs` by what dooms them."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.runs: dict[str, str] = {}
        self.ports: dict[str, list[int]] = {}

    def begin(self, name: str, spoil: Callable[[list[Path]], object]) -> None:
        """Start a run of a new pair of nodes, spoilt before."""
        self.box.renew()
        # They meet nobody.
        self.box.install(outcomes=["hit"], beacon_secs=5.0)
        spoil(self.box.soaks)
        self.ports[name] = self.box.ports
        self.runs[name] = inside.start(self.box, "50")

    def end(self, name: str, status: int) -> Status:
        """The end of a run, of which nothing may be left."""
        run = self.runs[name]
        final = inside.wait(self.box, run, status=status)
        assert final["result"] == "failed"
        assert (final["rounds"]["total"], final["rung"]) == (0, None)
        assert [node["pid"] for node in final["nodes"]] == [None, None]
        here = str(self.box.run_folder(run))
        left = {
            pid: command
            for pid, command in self.box.processes().items()
            if str(Path(f"/proc/{pid}/cwd").resolve()).startswith(f"{here}/")
        }
        assert left == {}
        assert all(map(is_free, self.ports[name]))
        assert list(self.box.run_folder(run).glob("logs/*.pid")) == []
        return final


@pytest.fixture(scope="module")
def starts(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Starts]:
    """Yield all doomed runs, begun."""
    box = Box(tmp_path_factory.mktemp("starts"))
    (box.folder / "soakd.toml").write_text(
        f"max_running = {_AT_A_TIME}\nrunning_per_user = {_AT_A_TIME}\nqueued_per_user = 100\n"
        "submissions_per_minute = 1000\n"
    )
    made = Starts(box)
    try:
        box.serve()
        # First what takes longest: six refusals, five seconds apart.
        made.begin("403", _all_answer_403)
        for wrapper, (script, _) in WRAPPERS.items():
            made.begin(wrapper, _wrapped(script))
        made.begin("at once", _wrapped("exit 3"))
        for holder in HOLDERS:
            made.begin(holder, _with_port_taken(holder))
        for cause in _USUAL:
            made.begin(cause, _failing_with(cause))
        yield made
    finally:
        box.close()
    assert box.leftovers() == []


def _all_answer_403(folders: list[Path]) -> None:
    for folder in folders:
        faults.at_install(folder, "http@start:403:/status")


def _with_port_taken(holder: str) -> Callable[[list[Path]], None]:
    return lambda folders: faults.at_install(folders[1], f"port-taken@start:{holder}")


def _failing_with(cause: str) -> Callable[[list[Path]], None]:
    return lambda folders: faults.at_install(folders[1], f"fail@start:{cause}")


# -- readiness -----------------------------------------------------------------------------------


def test_all_causes_of_the_contract_are_here() -> None:
    """A prefix that simnode learns needs words, and a test of them."""
    assert set(WORDS) == set(FAILURES)
    for cause, line in FAILURES.items():
        assert WORDS[cause] in (explain_failure(f"Error: {line}") or "")


@pytest.mark.parametrize(
    "cause",
    [pytest.param(cause, marks=() if cause in _USUAL else pytest.mark.campaign) for cause in WORDS],
)
def test_a_failed_start_is_told_in_the_nodes_own_words_and_in_ours(
    starts: Starts, cause: str
) -> None:
    """Exit 1 and one line on stderr: both stand in the cause, with what they mean."""
    if cause not in _USUAL:
        starts.begin(cause, _failing_with(cause))
    final = starts.end(cause, status=1)
    assert (final["cause"]["code"], final["cause"]["node"]) == ("node_exited", "b")
    text = final["cause"]["text"]
    line = f"Error: {FAILURES[cause]}"
    assert "exit status 1" in text
    assert WORDS[cause] in text
    assert line in text
    assert f"{line}\n" in starts.box.read(starts.runs[cause], "logs/b.out")
    assert final["nodes"][1]["exit"] == {"code": 1, "signal": None}
    waited_s = epoch(final["ended_at"]) - epoch(final["cause"]["at"])
    assert waited_s < _CLEANED_UP_WITHIN_S


def test_a_node_that_ends_at_once_is_booked_like_any_other(starts: Starts) -> None:
    """Before its start is even written down: true exit, no pid that nobody has."""
    final = starts.end("at once", status=1)
    assert (final["cause"]["code"], final["cause"]["node"]) == ("node_exited", "b")
    assert "exit status 3" in final["cause"]["text"]
    assert final["nodes"][1]["exit"] == {"code": 3, "signal": None}


def test_six_refusals_of_every_node_end_the_wait_with_the_likely_cause(starts: Starts) -> None:
    """Five seconds apart; nobody waits twenty minutes for a token that will not fit."""
    final = starts.end("403", status=1)
    assert final["cause"]["code"] == "ready_forbidden"
    assert "answered 403 6 times on end" in final["cause"]["text"]
    assert "another process owns the port" in final["cause"]["text"]
    log = starts.box.read(starts.runs["403"], "logs/runner.log")
    assert "A=403 B=403" in log
    waited_s = epoch(final["cause"]["at"]) - epoch(final["started_at"])
    assert 24.0 < waited_s < 60.0


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_stranger_on_the_port_is_recognised_before_a_token_is_sent(
    starts: Starts, holder: str
) -> None:
    """Another node, any web server, or one that never answers: named, asked nothing, soon."""
    final = starts.end(holder, status=5)
    assert (final["cause"]["code"], final["cause"]["node"]) == ("port_busy", "b")
    text = final["cause"]["text"]
    port = starts.ports[holder][1]
    assert f"127.0.0.1:{port} is held by pid " in text
    assert f"of uid {os.getuid()}" in text
    assert "no token was sent" in text
    asked = starts.box.node(starts.runs[holder], "b") / "data" / "sim.foreign"
    assert not asked.exists(), asked.read_text()
    waited_s = epoch(final["ended_at"]) - epoch(final["started_at"])
    assert waited_s < 2 * _CLEANED_UP_WITHIN_S


# -- the node itself, in its own folder ----------------------------------------------------------


def _wrapped(script: str) -> Callable[[list[Path]], None]:
    def spoil(folders: list[Path]) -> None:
        folder = folders[1]
        program = folder / "rust-mule"
        source = folder.parent / "other" / folder.name
        source.mkdir(parents=True)
        for path in (program, folder / "config.toml"):
            (source / path.name).write_bytes(path.read_bytes())
        (source / "rust-mule").chmod(0o755)
        program.rename(folder / "real-mule")
        program.write_text(f"#!/bin/sh\n{script.format(source=source)}\n")
        program.chmod(0o755)

    return spoil


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper_is_not_taken_for_the_node(starts: Starts, wrapper: str) -> None:
    """Found out soon, and ended with all that it started."""
    final = starts.end(wrapper, status=5 if wrapper == "parent" else 1)
    _, words = WRAPPERS[wrapper]
    code = "port_busy" if wrapper == "parent" else "node_not_executed"
    assert (final["cause"]["code"], final["cause"]["node"]) == (code, "b")
    assert re.search(words, final["cause"]["text"])
    waited_s = epoch(final["ended_at"]) - epoch(final["started_at"])
    assert waited_s < 2 * _CLEANED_UP_WITHIN_S
