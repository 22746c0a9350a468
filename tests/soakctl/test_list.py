from __future__ import annotations

import json

import pytest

from tests.soakctl.conftest import Soakctl
from tests.soakctl.fake_soakd import FakeSoakd
from tests.soakctl.samples import finished, status

Capture = pytest.CaptureFixture[str]


def test_runs_are_a_table(soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture) -> None:
    """Newest first as soakd sends them; of others' runs there is less to show."""
    queued = {"id": "r8", "owner": "bob", "label": None, "state": "queued", "reason": "slots"}
    soakd.handlers["run.list"] = {"runs": [queued, status(), finished(id="r6")]}
    assert soakctl("list", "--all") == 0
    assert capsys.readouterr().out.splitlines() == [
        "RUN  STATE     OWNER  LABEL    STARTED               ROUNDS  HIT RATE      VERDICT",
        "r8   queued    bob    –        –                     –       –             slots",
        "r7   running   alice  nightly  2026-11-22 17:00:00Z  11      90.9 % of 11  –",
        "r6   finished  alice  nightly  2026-11-22 17:00:00Z  11      90.9 % of 11  passed",
    ]
    assert soakd.calls == [("run.list", {"all": True})]


def test_what_is_left_of_a_run_is_behind_its_verdict(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """It keeps others waiting: whoever looks for the reason finds it here."""
    rung = {"rung": "blocked", "pids": [4711, 4712]}
    soakd.handlers["run.list"] = {"runs": [finished("aborted", rung=rung)]}
    assert soakctl("list") == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("  aborted, blocked by pids 4711 4712")


def test_an_empty_list_says_how_to_begin(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """On stderr: stdout stays empty for scripts."""
    soakd.handlers["run.list"] = {"runs": []}
    assert soakctl("list") == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "soakctl start 7200" in captured.err


def test_a_list_that_was_cut_says_so(soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture) -> None:
    """A missing old run must not look as if it never was."""
    soakd.handlers["run.list"] = {"runs": [status()], "truncated": True}
    soakctl("list")
    assert capsys.readouterr().err == "only the newest 1 are shown\n"


def test_json_is_an_array(soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture) -> None:
    """Also when it is empty."""
    for runs in ([], [status()]):
        soakd.handlers["run.list"] = {"runs": runs}
        assert soakctl("--json", "list") == 0
        assert json.loads(capsys.readouterr().out) == runs
