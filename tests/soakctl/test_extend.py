from __future__ import annotations

import io
import json
from typing import Any

import pytest

from soakd.wire.errors import WireError
from tests.soakctl.conftest import Soakctl
from tests.soakctl.fake_soakd import FakeSoakd

Capture = pytest.CaptureFixture[str]
DONE: dict[str, Any] = {
    "id": "r7",
    "by_s": 3600,
    "longest_s": 3600,
    "duration_s": 7200.0,
    "applied": True,
    "effect": [],
}
DELAYED = DONE | {
    "effect": [{"id": "r9", "delay_s": 3600.0}, {"id": "r10", "delay_s": -60.0}],
}


class Typed(io.StringIO):
    """What somebody types at a terminal."""

    def isatty(self) -> bool:
        return True


def test_an_extension_that_delays_nobody_is_made(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """After a look at what it means, without a question."""
    soakd.handlers["run.extend"] = DONE
    assert soakctl("extend", "r7", "1h") == 0
    assert capsys.readouterr().out == "r7 goes on for 1 h longer, 2 h in all\n"
    assert soakd.calls == [
        ("run.extend", {"run": "r7", "by_s": 3600, "dry_run": True}),
        ("run.extend", {"run": "r7", "by_s": 3600}),
    ]


@pytest.mark.parametrize(("typed", "status"), [("y\n", 0), ("yes\n", 0), ("n\n", 75), ("", 75)])
def test_who_is_delayed_is_shown_and_asked_about(
    soakd: FakeSoakd,
    soakctl: Soakctl,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    status: int,
) -> None:
    """Only a yes extends."""
    soakd.handlers["run.extend"] = DELAYED
    monkeypatch.setattr("sys.stdin", Typed(typed))
    assert soakctl("extend", "r7", "1h") == status
    said = capsys.readouterr().err
    assert said.startswith(
        "r9 is expected to start 1 h later\nr10 is expected to start 1 min earlier\n"
        "extend r7 all the same? [y/N] "
    )
    assert len(soakd.calls) == (2 if status == 0 else 1)


def test_without_a_terminal_nobody_is_delayed_unasked(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script says --yes."""
    soakd.handlers["run.extend"] = DELAYED
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert soakctl("extend", "r7", "1h") == 75
    assert "--yes" in capsys.readouterr().err
    assert soakctl("extend", "r7", "1h", "--yes") == 0
    captured = capsys.readouterr()
    assert "r9 is expected to start 1 h later" in captured.err
    assert soakd.calls[1:] == [("run.extend", {"run": "r7", "by_s": 3600})]


def test_json_prints_the_answer(soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture) -> None:
    """Untouched."""
    soakd.handlers["run.extend"] = DONE
    assert soakctl("extend", "r7", "1h", "--json", "--yes") == 0
    assert json.loads(capsys.readouterr().out) == DONE


def test_a_promise_in_the_way_is_75_with_the_longest_extension(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """In soakd's words."""
    text = "cannot extend r7 by 3600 s: r8 was promised ...; the longest possible extension is 60 s"

    def refuse(*_: object) -> None:
        raise WireError("refused", text, {"longest_s": 60.0})

    soakd.handlers["run.extend"] = refuse
    assert soakctl("extend", "r7", "1h") == 75
    assert text in capsys.readouterr().err
