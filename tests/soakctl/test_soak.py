"""`soakctl soak`: rounds on kept nodes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.soakctl.conftest import Soakctl
from tests.soakctl.fake_soakd import FakeSoakd
from tests.soakctl.samples import finished, rounds, status, watch

Capture = pytest.CaptureFixture[str]
BEGUN = {
    "id": "r7", "measurement": 1, "first_round": 1, "rounds_wanted": 500, "deadline_at": None,
    "notes": ["cut at the end of r7"],
}  # fmt: skip


def soaked(verdict: str) -> dict[str, Any]:
    """A soak that has ended."""
    return {"number": 1, "scenario": "source_probe", "rounds": rounds(hit=3, miss=1),
            "verdict": verdict, "why": "because", "first_round": 1}  # fmt: skip


@pytest.fixture
def kept(soakd: FakeSoakd) -> FakeSoakd:
    """A soakd whose run keeps its nodes; the soak ends while it is followed."""
    running = status(id="r7", state="running", kept=True, soaks=[])
    after = {**running, "soaks": [soaked("failed")]}
    soakd.handlers |= {
        "run.soak": BEGUN,
        "run.status": running,
        "run.watch": watch(("state", after)),
    }
    return soakd


def test_a_soak_is_begun_and_left_alone(kept: FakeSoakd, soakctl: Soakctl, capsys: Capture) -> None:
    """Without anything it is of the daemon's choice: 500 rounds."""
    assert soakctl("soak") == 0
    assert kept.calls == [("run.soak", {"run": None, "soak": {}})]
    captured = capsys.readouterr()
    assert captured.out == "r7 soak 1 · from round 1 · 500 rounds · cut at the end of r7\n"
    assert captured.err == "follow it: soakctl watch r7\n"
    assert soakctl("--json", "soak", "r7") == 0
    assert json.loads(capsys.readouterr().out) == BEGUN


def test_what_is_measured_is_asked_for(kept: FakeSoakd, soakctl: Soakctl) -> None:
    """Under the names of the plan's keys."""
    argv = ["--rounds", "3", "--for", "4h", "--scenario", "keyword_probe", "--set", "wait_search=2"]
    assert soakctl("soak", "r7", *argv, "--gate", "rounds >= 3") == 0
    assert kept.calls[0][1]["soak"] == {
        "rounds": 3,
        "duration_s": 14400.0,
        "scenario": "keyword_probe",
        "wait_search_s": 2.0,
        "gates": ["rounds >= 3"],
    }


@pytest.mark.parametrize("how", ["--wait", "--watch"])
def test_whoever_waits_gets_the_verdict_of_the_soak(
    kept: FakeSoakd, soakctl: Soakctl, capsys: Capture, how: str
) -> None:
    """The run itself goes on."""
    assert soakctl("soak", "r7", how) == 1
    out = capsys.readouterr().out
    assert "soak 1 source_probe · 4: 3 hit, 1 miss · failed: because" in out


def test_programs_get_the_status(kept: FakeSoakd, soakctl: Soakctl, capsys: Capture) -> None:
    """With all soaks."""
    assert soakctl("--json", "soak", "--wait") == 1
    assert json.loads(capsys.readouterr().out)["soaks"][0]["number"] == 1


def test_a_run_that_ends_before_the_soak_gives_its_own_verdict(
    kept: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """Such as by a node that died."""
    kept.handlers["run.status"] = finished("failed", "node a ended", id="r7", soaks=[])
    assert soakctl("soak", "--wait") == 1
    assert "r7 finished before the soak had begun" in capsys.readouterr().out


def test_what_cannot_be_read_is_told_before_anything_is_asked(
    kept: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """All at once."""
    assert soakctl("soak", "--set", "wait_search=x", "--set", "nothing") == 78
    err = capsys.readouterr().err
    assert err.startswith("soakctl: cannot soak: the plan is not valid\n")
    assert "wait_search" in err
    assert "expected FIELD=VALUE" in err
    assert kept.calls == []


def test_kept_nodes_are_shown_with_what_they_were_used_for(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """And with what they are used for now."""
    now = {"number": 2, "scenario": "source_probe", "first_round": 5, "rounds_wanted": 500,
           "remaining_s": None}  # fmt: skip
    kept = status(id="r7", state="running", phase=None, kept=True, soaks=[soaked("passed")],
                  soak=now, rounds=rounds(hit=11))  # fmt: skip
    soakd.handlers["run.status"] = kept
    assert soakctl("status") == 0
    out = capsys.readouterr().out
    assert "  soak 1    source_probe, 4: 3 hit, 1 miss, passed\n" in out
    assert "  soak 2    source_probe, 7 of 500 rounds, under way\n" in out
    soakd.handlers["run.status"] = {**kept, "soak": None}
    assert soakctl("status") == 0
    assert "nodes kept: soakctl soak r7" in capsys.readouterr().out.splitlines()[0]


def test_ready_nodes_can_be_waited_for(soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture) -> None:
    """0 as soon as rounds may begin; a run that is over before gives its verdict."""
    starting = status(id="r7", state="starting")
    running = status(id="r7", state="running", kept=True)
    soakd.handlers |= {"run.status": starting, "run.watch": watch(("state", running))}
    assert soakctl("wait", "r7", "--for", "ready") == 0
    assert capsys.readouterr().out.startswith("r7 running")
    assert soakctl("--json", "wait", "r7", "--for", "ready") == 0
    assert json.loads(capsys.readouterr().out)["state"] == "running"
    failed = finished("failed", "not ready", id="r7")
    soakd.handlers["run.status"] = failed
    assert soakctl("wait", "r7", "--for", "ready") == 1
    stopping = status(id="r7", state="stopping")
    soakd.handlers |= {
        "run.status": starting,
        "run.watch": watch(("state", stopping), ("end", failed)),
    }
    assert soakctl("wait", "r7", "--for", "ready") == 1


def test_nodes_may_be_started_without_rounds(
    soakd: FakeSoakd, soakctl: Soakctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """For half a day, unless a duration says otherwise."""
    for name in "ab":
        folder = tmp_path / name
        folder.mkdir()
        (folder / "rust-mule").write_text("#!/bin/sh\n")
        (folder / "rust-mule").chmod(0o755)
        monkeypatch.setenv(f"{name.upper()}_SRC", str(folder))
    soakd.handlers["run.start"] = {"id": "r7", "state": "queued", "position": 1}
    assert soakctl("start", "--no-rounds") == 0
    plan = soakd.calls[0][1]["plan"]
    assert (plan["no_rounds"], plan["duration_s"], plan["rounds"]) == (True, 43200.0, None)
    assert soakctl("start", "--no-rounds", "--rounds", "5") == 78
