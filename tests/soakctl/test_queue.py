from __future__ import annotations

import json

import pytest

from tests.soakctl.conftest import Soakctl
from tests.soakctl.fake_soakd import FakeSoakd

Capture = pytest.CaptureFixture[str]
RUNNING = {
    "id": "r7",
    "owner": "ann",
    "label": "nightly",
    "state": "running",
    "created_at": "2026-11-22T16:59:00Z",
    "started_at": "2026-11-22T17:00:00.5Z",
    "ended_at": None,
    "reason": None,
    "position": None,
    "expected_start": None,
    "promised": False,
    "ends_by": "2026-11-22T20:00:00.5Z",
    "soak_hours": 1.25,
    "priority": 0,
}
HEAD = RUNNING | {
    "id": "r8",
    "owner": "bob",
    "label": None,
    "state": "queued",
    "started_at": None,
    "reason": "slots",
    "position": 1,
    "expected_start": "2026-11-22T20:00:00.5Z",
    "promised": True,
    "ends_by": "2026-11-22T21:00:00Z",
    "soak_hours": 0.0,
}
NEXT = HEAD | {
    "id": "r9",
    "position": 2,
    "promised": False,
    "expected_start": "2026-11-22T21:00:00Z",
    "ends_by": None,
}
HELD = NEXT | {"id": "r10", "position": 3, "reason": "held", "expected_start": None}


def test_the_queue_is_a_table(soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture) -> None:
    """Owner, label, state, reason, promise or estimate, end, soak-hours."""
    soakd.handlers["queue.list"] = {"runs": [RUNNING, HEAD, NEXT, HELD], "draining": False}
    assert soakctl("queue") == 0
    captured = capsys.readouterr()
    cells = [line.split("  ") for line in captured.out.splitlines()]
    rows = [[cell.strip() for cell in row if cell.strip()] for row in cells]
    assert rows == [
        ["POS", "RUN", "OWNER", "LABEL", "STATE", "REASON", "START", "END BY", "SOAK-HOURS"],
        ["–", "r7", "ann", "nightly", "running", "–", "2026-11-22 17:00:00Z",
         "2026-11-22 20:00:00Z", "1.2"],
        ["1", "r8", "bob", "–", "queued", "slots", "by 2026-11-22 20:00:00Z",
         "2026-11-22 21:00:00Z", "0.0"],
        ["2", "r9", "bob", "–", "queued", "slots", "~ 2026-11-22 21:00:00Z", "–", "0.0"],
        ["3", "r10", "bob", "–", "queued", "held", "–", "–", "0.0"],
    ]  # fmt: skip
    assert captured.err == ""


def test_an_empty_queue_is_a_note(soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture) -> None:
    """On stderr; a drain is told as well."""
    soakd.handlers["queue.list"] = {"runs": [], "draining": True}
    assert soakctl("queue") == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "nothing runs and nothing waits\n"
        "draining: no run is started until an admin says `soakctl daemon resume`\n"
    )


def test_json_is_an_array_of_entries(soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture) -> None:
    """Untouched."""
    soakd.handlers["queue.list"] = {"runs": [RUNNING, HEAD], "draining": False}
    assert soakctl("--json", "queue") == 0
    assert json.loads(capsys.readouterr().out) == [RUNNING, HEAD]


@pytest.mark.parametrize("verb", ["hold", "release", "top"])
def test_acts_say_where_the_run_stands_now(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, verb: str
) -> None:
    """As `start` did; with --json the answer itself."""
    answer = {key: HEAD[key] for key in ("id", "state", "position", "expected_start", "reason")}
    answer["promised"] = True
    soakd.handlers[f"queue.{verb}"] = answer
    assert soakctl(verb, "r8") == 0
    assert capsys.readouterr().out == (
        "r8 queued · position 1 · waits for: slots · promised to start by 2026-11-22 20:00:00Z\n"
    )
    assert soakctl("--json", verb, "r8") == 0
    assert json.loads(capsys.readouterr().out) == answer
    assert soakd.calls == [(f"queue.{verb}", {"run": "r8"})] * 2


@pytest.mark.parametrize("verb", ["hold", "release", "top", "extend", "label"])
def test_acts_on_the_queue_need_the_name_of_the_run(
    soakctl: Soakctl, capsys: Capture, verb: str
) -> None:
    """Nothing is moved by accident."""
    assert soakctl(verb) == 2
    assert "RUN" in capsys.readouterr().err
