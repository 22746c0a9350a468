from __future__ import annotations

import json
import re
from typing import Any

import pytest

from soakctl import watching
from tests.soakctl.conftest import Soakctl
from tests.soakctl.fake_soakd import FakeSoakd
from tests.soakctl.samples import finished, node, rounds, status, watch

Capture = pytest.CaptureFixture[str]


def _lines(out: str) -> list[str]:
    """Return the lines without their time of day."""
    return [re.sub(r"^\d\d:\d\d:\d\d  ", "", line) for line in out.splitlines()]


def test_in_a_pipe_each_thing_that_happens_is_one_line(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """Not one line per event: only what is new."""
    first = status(phase="publish", rounds=rounds(hit=1), hit_rate={"value": 1.0, "n": 1})
    again: dict[str, Any] = {**first, "phase": "wait_publish"}
    missed = {
        **first,
        "rounds": rounds(hit=1, miss=1),
        "hit_rate": {"value": 0.5, "n": 2},
        "remaining_s": 60.0,
    }
    lost = {**missed, "link": "lost"}
    dead = {**lost, "nodes": [node("a", pid=None, state="exited", exit={"code": 101}), node("b")]}
    soakd.handlers["run.status"] = {**first, "nodes": [node("a"), node("b")]}
    soakd.handlers["run.watch"] = watch(
        ("progress", again),
        ("progress", missed),
        ("event", {"n": 1, "kind": "panic", "node": "a", "data": {"line": "\x1boops"}}),
        ("event", {"kind": "api_dead", "node": None, "data": {"text": "no answer"}}),
        ("event", {"kind": "node_exited", "node": "a", "data": {"code": 101}}),
        ("gap", {"from": 3, "to": 5}),
        ("state", lost),
        ("state", dead),
        ("rung", {"rung": "sigterm", "pids": [4712]}),
        (
            "end",
            {
                **finished("failed", "panics == 0 does not hold: 1"),
                "rounds": rounds(hit=1, miss=1),
                "link": "lost",
            },
        ),
    )
    assert soakctl("watch") == 0
    assert _lines(capsys.readouterr().out)[:10] == [
        "r7 running · publish · 28 min 12 s left",
        "round 2 miss · 2: 1 hit, 1 miss · hit rate 50.0 % of 2 · 1 min left",
        r"panic (node a): line=\x1boops",
        "api_dead: no answer",
        "some events were missed: this terminal was too slow",
        "r7 running · publish · 1 min left · link to the shim lost",
        "node a exited exit status 101",
        "stopping: SIGTERM to 4712",
        "r7 finished · failed: panics == 0 does not hold: 1",
        "  label     nightly",
    ]
    assert soakd.calls[:2] == [("run.status", {"run": None}), ("run.watch", {"run": "r7"})]


def test_json_is_one_event_per_line(soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture) -> None:
    """As they came, the end included."""
    soakd.handlers["run.status"] = status()
    soakd.handlers["run.watch"] = watch(("progress", status()), ("end", finished()))
    assert soakctl("watch", "r7", "--json") == 0
    captured = capsys.readouterr()
    events = [json.loads(line) for line in captured.out.splitlines()]
    assert [event["kind"] for event in events] == ["progress", "end"]
    assert events[1]["data"]["verdict"] == "passed"


def test_a_run_that_is_over_is_only_shown(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """No watch is opened; the exit status of `watch` is not the verdict."""
    soakd.handlers["run.status"] = finished("failed", "errors <= 5% does not hold: 50%")
    assert soakctl("watch", "r7") == 0
    assert "failed: errors <= 5% does not hold" in capsys.readouterr().out
    assert [method for method, _ in soakd.calls] == ["run.status"]


def test_a_watch_that_ends_before_its_run_is_opened_again(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A soakd that leaves for a restart ends its watches, not its runs."""
    monkeypatch.setattr(watching, "_RETRY_EVERY_S", 0.01)
    answers = iter([status(), status(), finished()])
    soakd.handlers["run.status"] = lambda *_: next(answers)
    soakd.handlers["run.watch"] = watch(("gap", {"from": 1, "to": 9}))
    assert soakctl("watch") == 0
    captured = capsys.readouterr()
    assert "finished · passed" in captured.out
    assert captured.err.count("lost soakd") == 1
