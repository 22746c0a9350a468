from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from soakctl import client, watching
from soakd.wire.errors import VERDICT_EXIT_STATUS
from tests.soakctl.conftest import Soakctl
from tests.soakctl.fake_soakd import HELLO, FakeSoakd, Hangup, Notify, Params
from tests.soakctl.samples import finished, status, watch

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(("verdict", "expected"), VERDICT_EXIT_STATUS.items())
def test_the_exit_status_is_the_verdict(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, verdict: str, expected: int
) -> None:
    """So that a script needs nothing else."""
    soakd.handlers["run.status"] = status()
    soakd.handlers["run.watch"] = watch(("progress", status()), ("end", finished(verdict, "why")))
    assert soakctl("wait", "r7") == expected
    captured = capsys.readouterr()
    assert captured.out.startswith(f"r7 finished · {verdict}: why\n")
    assert captured.err == "its records: soakctl collect r7\n"


def test_a_verdict_of_a_newer_soakd_is_not_taken_for_success(
    soakd: FakeSoakd, soakctl: Soakctl
) -> None:
    """What we do not know did not pass."""
    soakd.handlers["run.status"] = finished("splendid")
    assert soakctl("wait", "r7") == 5


def test_json_prints_the_final_status(soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture) -> None:
    """Once, at the end."""
    soakd.handlers["run.status"] = status()
    soakd.handlers["run.watch"] = watch(("progress", status()), ("end", finished()))
    assert soakctl("wait", "--json") == 0
    assert json.loads(capsys.readouterr().out) == finished()


def test_a_time_out_is_124_and_the_soak_goes_on(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is stopped by giving up."""
    monkeypatch.setattr(watching, "TICK_S", 0.01)
    end = threading.Event()
    soakd.handlers["run.status"] = status()
    soakd.handlers["run.watch"] = lambda *_: end.wait(5) and {}
    assert soakctl("wait", "r7", "--timeout", "0.05") == 124
    end.set()
    err = capsys.readouterr().err
    assert "cannot wait longer: r7 is not finished after 0.05 s" in err
    assert "the soak goes on: soakctl watch r7" in err


@pytest.mark.parametrize("bad", ["soon", "-1", "5 parsecs"])
def test_a_bad_time_out_is_a_usage_error(soakctl: Soakctl, capsys: Capture, bad: str) -> None:
    """With what is expected."""
    assert soakctl("wait", "--timeout", bad) == 2
    assert "30s, 90m, 4h" in capsys.readouterr().err or bad == "-1"


def _dies_once(then: Callable[[Params, Notify], object]) -> Callable[[Params, Notify], object]:
    lives = iter([False])

    def handle(params: Params, notify: Notify) -> object:
        if next(lives, True):
            return then(params, notify)
        notify("run.event", {"run": "r7", "seq": 1, "kind": "progress", "data": status()})
        raise Hangup

    return handle


def test_a_restart_of_soakd_is_waited_for(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The soak survives soakd, so a script that waits for it should too."""
    monkeypatch.setattr(watching, "_RETRY_EVERY_S", 0.01)
    soakd.handlers["run.status"] = status()
    soakd.handlers["run.watch"] = _dies_once(watch(("end", finished())))
    assert soakctl("wait") == 0
    assert "lost soakd; the soak goes on" in capsys.readouterr().err
    assert soakd.calls[2:] == [("run.status", {"run": "r7"}), ("run.watch", {"run": "r7"})]


def test_a_soakd_that_takes_long_to_come_back_is_waited_for(
    soakd: FakeSoakd, soakctl: Soakctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It listens while it takes its runs over, and says hello only then."""
    monkeypatch.setattr(watching, "_RETRY_EVERY_S", 0.01)
    monkeypatch.setattr(client, "HELLO_TIMEOUT_S", 0.2)
    late = threading.Event()
    greetings = iter([HELLO, None, HELLO])

    def hello(_params: Params, _notify: Notify) -> object:
        greeting = next(greetings)
        if greeting is None:
            late.wait(5)
        return greeting

    soakd.handlers |= {"hello": hello, "run.status": status()}
    soakd.handlers["run.watch"] = _dies_once(watch(("end", finished())))
    try:
        assert soakctl("wait") == 0
    finally:
        late.set()


def test_a_time_out_names_what_was_waited_for(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """With `--for ready` nobody asked whether the run is finished."""

    def progress(_params: Params, notify: Notify) -> None:
        event = {"run": "r7", "seq": 1, "kind": "progress", "data": status(state="starting")}
        notify("run.event", event)
        threading.Event().wait(0.5)

    soakd.handlers |= {"run.status": status(state="starting"), "run.watch": progress}
    assert soakctl("wait", "--for", "ready", "--timeout", "0") == 124
    assert "r7 is not ready after 0 s" in capsys.readouterr().err


def test_a_soakd_that_stays_away_is_69(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time that was announced."""
    monkeypatch.setattr(watching, "_RETRY_EVERY_S", 0.01)
    monkeypatch.setattr(watching, "RECONNECT_S", 0.05)

    def die(params: Params, notify: Notify) -> None:
        soakd.path.unlink()
        raise Hangup

    soakd.handlers |= {"run.status": status(), "run.watch": die}
    assert soakctl("wait") == 69
    assert "cannot reach soakd" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["wait", "watch", "logs"])
def test_ctrl_c_only_detaches(soakd: FakeSoakd, child_env: dict[str, str], verb: str) -> None:
    """130, and the way back."""
    watched, end = threading.Event(), threading.Event()

    def stream(*_: object) -> dict[str, object]:
        watched.set()
        end.wait(20)
        return {}

    soakd.handlers |= {"run.status": status(), "run.watch": stream, "run.logs": stream}
    command = [sys.executable, "-m", "soakctl", "--socket", str(soakd.path), verb, "r7"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=child_env
    ) as child:
        assert watched.wait(20)
        try:
            child.send_signal(signal.SIGINT)
            _out, err = child.communicate(timeout=20)
        finally:
            child.kill()
            end.set()
    assert child.returncode == 130
    assert err == "\ndetached; the soak goes on: soakctl watch r7\n"
