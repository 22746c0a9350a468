from __future__ import annotations

import json

import pytest

from soakd.wire.errors import WireError
from tests.soakctl.conftest import Soakctl
from tests.soakctl.fake_soakd import FakeSoakd

Capture = pytest.CaptureFixture[str]


def test_what_is_free_and_what_is_left_is_said(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """The processes are not gone: the admin must know which they are."""
    soakd.handlers["run.forget"] = {"id": "r7", "pids": [4711, 4712]}
    assert soakctl("forget", "r7") == 0
    assert capsys.readouterr().out == (
        "forgot r7: its slot and ports are free; still there: pids 4711 4712\n"
    )
    assert soakd.calls == [("run.forget", {"run": "r7"})]


def test_json_prints_the_answer(soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture) -> None:
    """As it came."""
    soakd.handlers["run.forget"] = {"id": "r7", "pids": [4711]}
    assert soakctl("--json", "forget", "r7") == 0
    assert json.loads(capsys.readouterr().out) == {"id": "r7", "pids": [4711]}


def test_a_run_that_blocks_nothing_is_75(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """With soakd's words."""

    def refuse(*_: object) -> None:
        raise WireError("refused", "cannot forget r7: no process of it is left")

    soakd.handlers["run.forget"] = refuse
    assert soakctl("forget", "r7") == 75
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (
        "",
        "soakctl: cannot forget r7: no process of it is left\n",
    )


def test_the_run_must_be_named(soakctl: Soakctl, capsys: Capture) -> None:
    """Nothing is forgotten by default."""
    assert soakctl("forget") == 2
    assert "RUN" in capsys.readouterr().err
