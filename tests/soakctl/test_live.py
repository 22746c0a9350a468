from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading

import pytest

from soakctl.live import LiveLine, live_text
from soakctl.session import Session
from tests.soakctl.fake_soakd import FakeSoakd, Notify, Params
from tests.soakctl.samples import finished, node, rounds, status


def test_the_line_says_how_far_the_soak_is_and_how_it_goes() -> None:
    """Share, remaining time, round and phase, outcomes, rate, nodes."""
    line = live_text(status(duration_s=2000.0, remaining_s=1500.0, round=12), since_heard_s=0.0)
    assert line.plain == (
        "r7 running ━━━━──────────── 25 % 25 min left · round 12 wait_search"
        " · 9 hit 1 late 1 miss · 90.9 % of 11 hit · a ready · b ready"
    )


def test_the_remaining_time_counts_down_between_events() -> None:
    """And never below zero."""
    known = status(remaining_s=30.0)
    assert "20 s left" in live_text(known, since_heard_s=10.0).plain
    assert "0 s left" in live_text(known, since_heard_s=99.0).plain


def test_without_a_duration_the_rounds_are_the_progress() -> None:
    """`start --rounds 44`: eleven of them are a quarter."""
    line = live_text(status(duration_s=None, rounds_wanted=44, remaining_s=None), since_heard_s=0.0)
    assert line.plain.startswith("r7 running ━━━━──────────── 25 % · wait_search")


def test_what_is_not_known_yet_is_left_out() -> None:
    """A queued run has a reason and nothing else."""
    queued = {"id": "r8", "state": "queued", "reason": "slots", "remaining_s": 60.0}
    assert live_text(queued, since_heard_s=0.0).plain == "r8 queued · waits for slots"
    odd = status(rounds=rounds(), nodes=[node("a", state="warm")], remaining_s=None)
    assert live_text(odd, since_heard_s=0.0).plain == "r7 running · wait_search · a warm"


def _read_all(descriptor: int) -> bytes:
    """Read a terminal until its other end is closed."""
    data = b""
    while True:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:
            # EIO: nobody has the terminal open any more
            return data
        data += piece


@pytest.mark.slow
@pytest.mark.parametrize("colours", [True, False])
def test_on_a_terminal_one_line_is_redrawn_and_taken_away(
    soakd: FakeSoakd, child_env: dict[str, str], *, colours: bool
) -> None:
    """News scrolls above it; NO_COLOR takes the colours, not the line."""
    go = threading.Event()

    def watch(_params: Params, notify: Notify) -> dict[str, object]:
        missed = status(rounds=rounds(hit=9, late=1, miss=2))
        for seq, (kind, data) in enumerate([("progress", missed), ("end", finished())], start=2):
            notify("run.event", {"run": "r7", "seq": seq, "kind": kind, "data": data})
        go.set()
        return {"run": "r7", "last_seq": 3}

    soakd.handlers |= {"run.status": status(), "run.watch": watch}
    ours, theirs = pty.openpty()
    env = {**child_env, "TERM": "xterm-256color", "COLUMNS": "100"}
    env.pop("NO_COLOR", None)
    if not colours:
        env["NO_COLOR"] = "1"
    command = [sys.executable, "-m", "soakctl", "--socket", str(soakd.path), "watch"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as child:
        os.close(theirs)
        out = _read_all(ours)
    os.close(ours)
    assert child.returncode == 0
    text = out.decode()
    assert "r7 running" in text
    assert "round 12 " in text
    assert "wait_search" in text
    # The line is erased in the end, and the cursor is back.
    assert "\x1b[2K" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert ("\x1b[32mpassed" in text) is colours


def test_ctrl_c_waits_while_the_line_is_being_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A half-drawn display could not be taken away; the interrupt comes right behind it."""
    line = LiveLine(Session(socket=None, json=False, environ={}))
    drawn: list[str] = []

    def start(*_args: object, **_options: object) -> None:
        signal.raise_signal(signal.SIGINT)
        drawn.append("whole")

    monkeypatch.setattr(line._live, "start", start)
    monkeypatch.setattr(line._live, "stop", lambda: drawn.append("gone"))
    with pytest.raises(KeyboardInterrupt):
        line.begin(status())
    line.close()
    assert drawn == ["whole", "gone"]
