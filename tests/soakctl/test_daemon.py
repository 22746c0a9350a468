from __future__ import annotations

import json

import pytest

from tests.soakctl.conftest import Soakctl
from tests.soakctl.fake_soakd import FakeSoakd

Capture = pytest.CaptureFixture[str]
INFO = {
    "version": "0.1.0",
    "mode": "user",
    "pid": 42,
    "started_at": "2026-11-22T17:00:00.5Z",
    "uptime_s": 750.0,
}


def test_info_is_a_line_per_fact(soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture) -> None:
    """Times and durations as people read them."""
    soakd.handlers["daemon.info"] = INFO | {"draining": False}
    assert soakctl("daemon", "info") == 0
    assert capsys.readouterr().out.splitlines() == [
        "version     0.1.0",
        "mode        user",
        "pid         42",
        "started at  2026-11-22 17:00:00Z",
        "draining    no",
        "uptime      12 min 30 s",
    ]


def test_info_as_json_is_the_answer(soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture) -> None:
    """Untouched."""
    soakd.handlers["daemon.info"] = INFO
    assert soakctl("daemon", "info", "--json") == 0
    assert json.loads(capsys.readouterr().out) == INFO


def test_shutdown_says_what_happens(soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture) -> None:
    """It has been asked, it is not gone yet."""
    soakd.handlers["daemon.shutdown"] = {}
    assert soakctl("daemon", "shutdown") == 0
    assert capsys.readouterr().out == "soakd stops all runs, then ends\n"


def test_what_to_do_must_be_said(soakctl: Soakctl, capsys: Capture) -> None:
    """A usage error names the choices."""
    assert soakctl("daemon") == 2
    err = capsys.readouterr().err
    assert "the following arguments are required: info|drain|resume|shutdown" in err


@pytest.mark.parametrize(("verb", "word"), [("drain", "no run is started"), ("resume", "runs are")])
def test_drain_and_resume_say_what_holds_now(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, verb: str, word: str
) -> None:
    """And what goes on, or waits, all the same."""
    soakd.handlers[f"daemon.{verb}"] = {"draining": verb == "drain", "running": 1, "queued": 2}
    assert soakctl("daemon", verb) == 0
    said = capsys.readouterr().out
    assert said.startswith(word)
    assert said.endswith("; 1 running, 2 queued\n")
