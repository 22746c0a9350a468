from __future__ import annotations

import json
import threading

import pytest

from soakd.wire.errors import WireError
from tests.soakctl.conftest import Soakctl
from tests.soakctl.fake_soakd import FakeSoakd, Hangup, Notify, Params
from tests.soakctl.samples import finished, status

Capture = pytest.CaptureFixture[str]


def _stoppable(soakd: FakeSoakd) -> threading.Event:
    """Make a run whose ladder begins when it is asked to stop; return what sets it off."""
    asked = threading.Event()

    def watch(_params: Params, notify: Notify) -> dict[str, object]:
        def event(seq: int, kind: str, data: dict[str, object]) -> None:
            notify("run.event", {"run": "r7", "seq": seq, "kind": kind, "data": data})

        event(1, "progress", status())
        if not asked.wait(5):
            raise Hangup
        event(2, "state", status(state="stopping"))
        event(3, "rung", {"rung": "sigint", "pids": [4711, 4712]})
        event(4, "rung", {"rung": "sigint", "pids": [4711, 4712]})
        event(5, "rung", {"rung": "sigterm", "pids": [4712]})
        event(6, "end", finished("aborted", "stopped by alice"))
        return {"run": "r7", "last_seq": 6}

    def stop(*_: object) -> dict[str, object]:
        asked.set()
        return status(state="stopping")

    soakd.handlers |= {"run.status": status(), "run.watch": watch, "run.stop": stop}
    return asked


def test_each_rung_is_printed_once_until_nothing_is_left(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """The watch is open before the run is asked, so that no rung is missed."""
    _stoppable(soakd)
    assert soakctl("stop") == 0
    assert capsys.readouterr().out.splitlines() == [
        "stopping r7",
        "  SIGINT to 4711 4712",
        "  SIGTERM to 4712",
        "r7 finished · aborted: stopped by alice",
    ]
    assert [method for method, _ in soakd.calls] == ["run.status", "run.watch", "run.stop"]


def test_json_prints_only_the_final_status(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """Rungs are for people."""
    _stoppable(soakd)
    assert soakctl("--json", "stop", "r7") == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "aborted"


def test_no_wait_returns_at_once(soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture) -> None:
    """With the state it then has."""
    _stoppable(soakd)
    assert soakctl("stop", "r7", "--no-wait") == 0
    assert capsys.readouterr().out == "r7 stopping · wait_search\n"
    assert soakd.calls == [("run.stop", {"run": "r7"})]


def test_a_finished_run_is_not_asked_again(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """Its verdict stays what it is."""
    soakd.handlers["run.status"] = finished()
    assert soakctl("stop", "r7") == 0
    assert capsys.readouterr().out == "r7 finished · passed: every gate holds\n"
    assert [method for method, _ in soakd.calls] == ["run.status"]


def test_another_users_run_is_77(soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture) -> None:
    """In soakd's words."""
    refused = _stoppable(soakd)

    def refuse(*_: object) -> None:
        refused.set()
        raise WireError("not_allowed", "cannot stop r7: it belongs to bob")

    soakd.handlers["run.stop"] = refuse
    assert soakctl("stop", "r7") == 77
    assert capsys.readouterr().err == "soakctl: cannot stop r7: it belongs to bob\n"
