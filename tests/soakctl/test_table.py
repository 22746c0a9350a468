from __future__ import annotations

import json
from typing import Any

import pytest

from soakd.core.plan import parse_plan, plan_to_dict
from tests.soakctl.conftest import Soakctl
from tests.soakctl.fake_soakd import FakeSoakd, Notify, Params
from tests.soakctl.samples import finished, rounds, status
from tests.soakctl.test_plan import PLAN

Capture = pytest.CaptureFixture[str]

RUNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "r3": (finished("failed", "x", id="r3", label="n: wait_search_s=10"), {"wait_search_s": 10}),
    "r4": (
        finished("passed", "x", id="r4", label="n: wait_search_s=20", rounds=rounds(hit=8, miss=2)),
        {"wait_search_s": 20.0},
    ),
    "r10": (finished("passed", "x", id="r10", label="n: wait_search_s=10"), {"wait_search_s": 10}),
    "r11": (
        status(id="r11", label="n", state="queued", reason="slots", rounds=rounds(), hit_rate=None),
        {"wait_search_s": 20.0, "node_env": {"X": "1"}},
    ),
    "r12": (finished("passed", "x", id="r12", label="night"), {}),
}


@pytest.fixture
def runs(soakd: FakeSoakd) -> None:
    """Let soakd have some runs, newest first."""

    def plan(params: Params, _notify: Notify) -> dict[str, Any]:
        changes = RUNS[params["run"]][1]
        data = {**PLAN, "node_env": {}, **changes}
        return {"id": params["run"], "plan": plan_to_dict(parse_plan(data))}

    listed = [run for run, _ in reversed(RUNS.values())]
    soakd.handlers |= {"run.list": {"runs": listed, "truncated": False}, "run.plan": plan}


@pytest.mark.usefixtures("runs")
def test_the_runs_of_a_group_stand_side_by_side(soakctl: Soakctl, capsys: Capture) -> None:
    """Oldest first, with what their plans differ in; of equal plans the latest."""
    assert soakctl("table", "n") == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split()[:4] == ["RUN", "wait_search_s", "node.env.X", "STATE"]
    assert [row.split()[:4] for row in rows] == [
        ["r4", "20", "–", "finished"],
        ["r10", "10", "–", "finished"],
        ["r11", "20", "1", "queued"],
    ]
    assert rows[0].split()[4:9] == ["10", "8", "0", "2", "0"]
    assert rows[0].split()[-1] == "passed"
    assert rows[2].split()[-2:] == ["–", "slots"]


@pytest.mark.usefixtures("runs")
def test_all_shows_the_earlier_ones_too(soakctl: Soakctl, capsys: Capture) -> None:
    """One night beside the other."""
    assert soakctl("table", "n", "--all") == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["r3", "r4", "r10", "r11"]


@pytest.mark.usefixtures("runs")
def test_json_has_the_values_of_each_run(soakctl: Soakctl, capsys: Capture) -> None:
    """For whoever draws it."""
    assert soakctl("--json", "table", "n") == 0
    first, second, _ = json.loads(capsys.readouterr().out)
    assert (first["id"], first["values"]) == (
        "r4",
        {"wait_search_s": 20.0, "node.env.X": None},
    )
    assert first["rounds"]["hit"] == 8
    assert (second["label"], second["verdict"]) == ("n: wait_search_s=10", "passed")


@pytest.mark.usefixtures("runs")
def test_a_label_that_nothing_has_is_66(soakctl: Soakctl, capsys: Capture) -> None:
    """With the way to find the right one."""
    assert soakctl("table", "N") == 66
    err = capsys.readouterr().err
    assert "cannot find a run of yours with the label 'N'" in err
    assert "soakctl list" in err


@pytest.mark.usefixtures("runs")
def test_a_single_run_is_a_table_of_one(soakctl: Soakctl, capsys: Capture) -> None:
    """Nothing differs, so no column says it."""
    assert soakctl("table", "night") == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split()[:2] == ["RUN", "STATE"]
    assert row.split()[0] == "r12"


def flows_of(count: int) -> list[dict[str, Any]]:
    """Flows with ever more misses."""
    return [
        {"flow": f"source:a>n{n}", "rounds": rounds(miss=n), "hit_rate": {"value": 0.0, "n": n}}
        for n in range(count)
    ]


def test_the_table_of_a_run_shows_its_flows(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """Of the run that is named, or of the latest; in the order of their first rounds."""
    soakd.handlers["run.flows"] = {"id": "r7", "flows": flows_of(2)}
    assert soakctl("table", "r7") == 0
    assert soakctl("table") == 0
    assert soakd.calls == [("run.flows", {"run": "r7"}), ("run.flows", {"run": None})]
    rows = [row.split()[0] for row in capsys.readouterr().out.splitlines()]
    assert rows == ["FLOW", "source:a>n0", "source:a>n1"] * 2


def test_of_very_many_flows_the_worst_are_shown(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """All of them for programs, and where they are asked for."""
    soakd.handlers["run.flows"] = {"id": "r7", "flows": flows_of(50)}
    assert soakctl("table", "r7") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[0] == "source:a>n49"
    assert lines[-1] == "and 10 more flows with fewer misses: --all"
    assert soakctl("table", "r7", "--all") == 0
    assert len(capsys.readouterr().out.splitlines()) == 51
    assert soakctl("--json", "table", "r7") == 0
    assert len(json.loads(capsys.readouterr().out)["flows"]) == 50


def test_a_run_without_rounds_has_no_flows_yet(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """It says so."""
    soakd.handlers["run.flows"] = {"id": "r7", "flows": []}
    assert soakctl("table", "r7") == 0
    assert capsys.readouterr().out == "no round has ended yet\n"
