"""Groups of runs from one plan file: submitted, refused half-way, waited for."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from soakd.core.plan import parse_plan
from soakd.wire.errors import WireError
from tests.soakctl.conftest import Soakctl
from tests.soakctl.fake_soakd import FakeSoakd, Notify, Params
from tests.soakctl.samples import finished, watch
from tests.soakctl.test_plan import nodes
from tests.soakctl.test_selftest import interrupt

Capture = pytest.CaptureFixture[str]


class Queue:
    """Takes runs as soakd does, up to a limit."""

    def __init__(self, soakd: FakeSoakd, *, room: int = 100) -> None:
        self.plans: list[dict[str, Any]] = []
        self.room = room
        soakd.handlers |= {"run.start": self.start, "run.plan": self.plan}

    def start(self, params: Params, _notify: Notify) -> dict[str, Any]:
        if len(self.plans) == self.room:
            raise WireError("refused", "cannot queue another run: 2 of yours wait")
        self.plans.append(params["plan"])
        return {
            "id": f"r{len(self.plans)}",
            "state": "queued",
            "position": len(self.plans),
            "expected_start": None,
            "reason": "slots",
        }

    def plan(self, params: Params, _notify: Notify) -> dict[str, Any]:
        return {"id": params["run"], "plan": self.plans[int(params["run"][1:]) - 1]}

    def labels(self) -> list[str]:
        return [plan["label"] for plan in self.plans]


@pytest.fixture
def plan_path(tmp_path: Path) -> Path:
    """Return a plan file of three runs, beside its node folders."""
    path = tmp_path / "night plan.toml"
    path.write_text(f"wait_search = [10, 20, 40]\nrounds = 3\n{nodes(tmp_path)}")
    return path


def test_ctrl_c_half_way_says_which_are_submitted(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, plan_path: Path
) -> None:
    """They go on, and soakd may just have taken another."""
    queue = Queue(soakd)

    def start(params: Params, notify: Notify) -> dict[str, Any]:
        if len(queue.plans) == 2:
            interrupt()
        return queue.start(params, notify)

    soakd.handlers["run.start"] = start
    assert soakctl("start", "--plan", str(plan_path)) == 130
    error = capsys.readouterr().err
    assert "interrupted; submitted are r1 r2 of 3, or one more: soakctl list" in error


def test_ctrl_c_before_a_group_is_followed_detaches(
    soakd: FakeSoakd,
    soakctl: Soakctl,
    capsys: Capture,
    plan_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What draws the line is being loaded."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    Queue(soakd)
    monkeypatch.setattr("soakctl.groups.display_for", interrupted)
    assert soakctl("start", "--plan", str(plan_path), "--watch") == 130
    assert "detached; the soak goes on: soakctl watch r1" in capsys.readouterr().err


LABELS = [f"night plan: wait_search_s={seconds}" for seconds in (10, 20, 40)]


def test_each_run_is_submitted_with_its_values_in_its_label(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, plan_path: Path
) -> None:
    """In the order of the file; the next step is the table."""
    queue = Queue(soakd)
    assert soakctl("start", "--plan", str(plan_path)) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        f"r{number} queued · position {number} · waits for: slots · {label}"
        for number, label in enumerate(LABELS, 1)
    ]
    assert "soakctl table 'night plan'\n" in captured.err
    plans = [parse_plan(plan) for plan in queue.plans]
    assert [plan.wait_search_s for plan in plans] == [10.0, 20.0, 40.0]
    assert {(plan.rounds, plan.duration_s) for plan in plans} == {(3, None)}
    assert len({plan.run_tag for plan in plans}) == 1


def test_json_is_an_array_of_answers(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, plan_path: Path
) -> None:
    """Each as of a single start; a label of the command line names the group."""
    queue = Queue(soakd)
    assert soakctl("--json", "start", "--plan", str(plan_path), "--label", "weekly") == 0
    assert [run["id"] for run in json.loads(capsys.readouterr().out)] == ["r1", "r2", "r3"]
    assert queue.labels() == [label.replace("night plan", "weekly") for label in LABELS]


def test_what_is_refused_can_be_submitted_later(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, plan_path: Path
) -> None:
    """75; those before it stay, and the command that it names makes the missing run."""
    queue = Queue(soakd, room=1)
    assert soakctl("start", "--plan", str(plan_path)) == 75
    err = capsys.readouterr().err
    assert (
        "cannot submit 2 of the 3 runs of night plan: cannot queue another run: 2 of yours wait"
        in err
    )
    assert [line for line in err.splitlines() if "not submitted" in line] == [
        f"  - not submitted: {label}" for label in LABELS[1:]
    ]
    assert "submitted before that: r1; show them: soakctl table 'night plan'" in err
    queue.room = 100
    _, _, command = err.partition("one by one: soakctl ")
    assert soakctl(*shlex.split(command)) == 0
    assert queue.labels() == LABELS[:2]
    assert parse_plan(queue.plans[1]).wait_search_s == 20.0


def test_nothing_is_said_of_runs_before_if_there_are_none(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, plan_path: Path
) -> None:
    """The first one is refused."""
    Queue(soakd, room=0)
    assert soakctl("start", "--plan", str(plan_path)) == 75
    err = capsys.readouterr().err
    assert "cannot submit 3 of the 3 runs" in err
    assert "submitted before" not in err


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        (("passed", "passed", "passed"), 0),
        (("passed", "inconclusive", "passed"), 3),
        (("inconclusive", "aborted", "passed"), 4),
        (("aborted", "harness_error", "passed"), 5),
        (("passed", "failed", "harness_error"), 1),
        (("passed", "strange", "aborted"), 5),
        (("passed", "strange", "failed"), 1),
    ],
)
@pytest.mark.parametrize("flag", ["--wait", "--watch"])
def test_the_exit_status_is_that_of_the_worst_verdict(
    *,
    soakd: FakeSoakd,
    soakctl: Soakctl,
    capsys: Capture,
    plan_path: Path,
    flag: str,
    verdicts: tuple[str, ...],
    status: int,
) -> None:
    """And the table is printed when the last one is over."""
    Queue(soakd)

    def final(params: Params, *_: object) -> dict[str, Any]:
        return finished(verdicts[int(params["run"][1:]) - 1], id=params["run"])

    soakd.handlers |= {"run.status": final, "run.watch": watch()}
    assert soakctl("start", "--plan", str(plan_path), flag) == status
    rows = [row.split() for row in capsys.readouterr().out.splitlines() if row[:1] in "Rr"]
    assert [row[:2] for row in rows] == [
        ["RUN", "wait_search_s"],
        ["r1", "10"],
        ["r2", "20"],
        ["r3", "40"],
    ]
    assert [row[-1] for row in rows[1:]] == list(verdicts)


def test_variables_that_the_file_passes_on_are_not_named_as_kept_back(
    soakd: FakeSoakd,
    soakctl: Soakctl,
    capsys: Capture,
    plan_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The file has said what it is to be."""
    Queue(soakd)
    monkeypatch.setenv("RUST_LOG", "debug")
    monkeypatch.setenv("MALLOC_CONF", "x")
    monkeypatch.setenv("WAIT_SEARCH", "3")
    with plan_path.open("a") as file:
        file.write('[node.b.env]\nRUST_LOG = "info"\n')
    assert soakctl("start", "--plan", str(plan_path)) == 0
    err = capsys.readouterr().err
    assert "ignored, since --plan says everything: WAIT_SEARCH" in err
    kept_back = next(line for line in err.splitlines() if "not passed" in line)
    assert "MALLOC_CONF" in kept_back
    assert "RUST_LOG" not in kept_back
