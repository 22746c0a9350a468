from __future__ import annotations

import json

import pytest

from soakd.wire.errors import WireError
from tests.soakctl.conftest import Soakctl
from tests.soakctl.fake_soakd import FakeSoakd
from tests.soakctl.samples import finished, node, rounds, status

Capture = pytest.CaptureFixture[str]


def test_a_running_run_is_shown_with_everything_that_matters(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """State, phase, remaining time, rounds, rate with n, nodes, edits."""
    soakd.handlers["run.status"] = status()
    assert soakctl("status") == 0
    assert capsys.readouterr().out.splitlines() == [
        "r7 running · wait_search · 28 min 12 s left",
        "  label     nightly",
        "  owner     alice",
        "  started   2026-11-22 17:00:00Z",
        "  rounds    11: 9 hit, 1 late, 1 miss",
        "  hit rate  90.9 % of 11",
        "            search alone 88.9 % of 9; 2 stored there before the search",
        "  node a    ready  pid 4711",
        "  node b    ready  pid 4712",
        "  edited    a: sam.session_name = rust-mule-a-soak-x-r7",
    ]
    assert soakd.calls == [("run.status", {"run": None})]


def test_a_finished_run_shows_its_verdict_with_its_sentence(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """The verdict is the headline, the cause and the exit status follow."""
    soakd.handlers["run.status"] = finished(
        "failed",
        "node_exits == 0 does not hold: 1",
        cause={"code": "node_exited", "text": "node a exited", "node": "a", "at": None},
        nodes=[node("a", pid=None, state="exited", exit={"signal": 11})],
    )
    assert soakctl("status", "r7") == 0
    out = capsys.readouterr().out
    assert out.startswith("r7 finished · failed: node_exits == 0 does not hold: 1\n")
    assert "  node a    exited  killed by signal 11\n" in out
    assert "  cause     node a exited (node a)\n" in out


def test_a_cause_that_the_verdict_has_told_is_not_told_twice(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """Its headline is enough, unless the cause names a node."""
    told = {"code": "stop_asked", "text": "stopped by alice", "node": None, "at": None}
    soakd.handlers["run.status"] = finished("aborted", "stopped by alice", cause=told)
    assert soakctl("status", "r7") == 0
    assert capsys.readouterr().out.count("stopped by alice") == 1
    soakd.handlers["run.status"] = status(state="stopping", cause=told)
    assert soakctl("status", "r7") == 0
    assert "  cause     stopped by alice\n" in capsys.readouterr().out


def test_trouble_of_a_node_stands_below_it(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """What is wrong now, as soakd says it; control characters of a node are shown escaped."""
    text = "node a: its API hangs since 17:05:00Z (no whole answer\x1b)"
    soakd.handlers["run.status"] = status(nodes=[node("a", trouble=[text]), node("b", trouble=[])])
    assert soakctl("status") == 0
    lines = capsys.readouterr().out.splitlines()
    shown = "  trouble   node a: its API hangs since 17:05:00Z (no whole answer\\x1b)"
    assert lines[lines.index("  node a    ready  pid 4711") + 1] == shown
    assert sum("trouble" in line for line in lines) == 1


def test_a_simulation_a_gap_a_rung_and_a_lost_link_are_named(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """What makes the figures less than they seem must not be missed."""
    soakd.handlers["run.status"] = status(
        state="stopping",
        simulation=True,
        link="lost",
        gaps=[
            {
                "from": "2026-11-22T17:10:00.0Z",
                "to": "2026-11-22T17:10:12.0Z",
                "s": 12.0,
                "why": "soakd restarted",
            }
        ],
        rung={"rung": "sigint", "pids": [4711, 4712]},
    )
    soakctl("status")
    out = capsys.readouterr().out
    assert "SIMULATED" in out
    assert "link to the shim lost" in out
    assert "  gap       2026-11-22 17:10:00Z, 12 s: soakd restarted\n" in out
    assert "  stopping  SIGINT to 4711 4712\n" in out


def test_what_is_left_of_a_finished_run_is_in_its_headline(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """And soakd's note says what it keeps and how to get rid of it."""
    note = "process 4711 could not be killed; ... an admin says `soakctl forget r7`"
    rung = {"rung": "blocked", "pids": [4711]}
    soakd.handlers["run.status"] = finished("aborted", "stopped by ann", rung=rung, notes=[note])
    assert soakctl("status", "r7") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "r7 finished · aborted: stopped by ann · blocked by pid 4711"
    assert f"  note      {note}" in lines
    assert not [line for line in lines if line.startswith("  stopping")]


def test_another_users_run_shows_what_there_is(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """A PublicRun has eight keys and is no reason to fail."""
    soakd.handlers["run.status"] = {
        "id": "r8",
        "owner": "bob",
        "label": None,
        "state": "queued",
        "created_at": "2026-11-22T17:00:00Z",
        "started_at": None,
        "ended_at": None,
        "reason": "port 17835 leased by r7",
    }
    assert soakctl("status", "r8") == 0
    assert capsys.readouterr().out.splitlines() == [
        "r8 queued · waits for: port 17835 leased by r7",
        "  owner     bob",
        "  queued    2026-11-22 17:00:00Z",
    ]


def test_a_rate_without_rounds_is_a_dash(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """No round is not a rate of zero."""
    soakd.handlers["run.status"] = status(rounds=rounds(), hit_rate={"value": None, "n": 0})
    soakctl("status")
    out = capsys.readouterr().out
    assert "  rounds    0: 0 hit, 0 miss\n  hit rate  –\n" in out


def test_json_prints_the_answer_as_it_came_and_nothing_else(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """For programs: one line on stdout, `--json` before or after the verb."""
    soakd.handlers["run.status"] = status()
    for argv in (["--json", "status"], ["status", "--json"]):
        assert soakctl(*argv) == 0
        captured = capsys.readouterr()
        assert json.loads(captured.out) == status()
        assert captured.out.count("\n") == 1
        assert captured.err == ""


def test_control_characters_of_others_are_shown_escaped(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """A label must not drive the reader's terminal."""
    soakd.handlers["run.status"] = status(label="\x1b[2Jgone\u202e")
    soakctl("status")
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert r"\x1b[2Jgone\u202e" in out


def test_an_unknown_run_is_66_and_points_to_the_list(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """The message of soakd, then what to do."""

    def unknown(*_: object) -> None:
        raise WireError("no_such_run", "cannot find run r99: there is no such run")

    soakd.handlers["run.status"] = unknown
    assert soakctl("status", "r99") == 66
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "soakctl: cannot find run r99: there is no such run\n"
        "  see which runs there are: soakctl list\n"
    )
