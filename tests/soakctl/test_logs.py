from __future__ import annotations

import json
from typing import Any

import pytest

from soakctl.commands import logs
from soakctl.session import Session
from tests.soakctl.conftest import Soakctl
from tests.soakctl.fake_soakd import FakeSoakd, Handler, Notify, Params


def _pieces(*pieces: bytes) -> Handler:
    def handle(_params: Params, notify: Notify) -> dict[str, Any]:
        for seq, data in enumerate(pieces, start=1):
            notify("run.log", {"seq": seq, "data": data})
        return {"run": "r7", "bytes": sum(map(len, pieces))}

    return handle


def test_into_a_pipe_every_byte_goes_as_it_came(
    soakd: FakeSoakd, soakctl: Soakctl, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Colours, broken UTF-8 and a missing last newline included."""
    soakd.handlers["run.logs"] = _pieces(b"\x1b[32mgr\xc3", b"\xbcn\xff\n", b"rest")
    assert soakctl("logs", "r7", "--node", "a", "-n", "5", "-f") == 0
    assert capfdbinary.readouterr().out == b"\x1b[32mgr\xc3\xbcn\xff\nrest"
    asked = {"run": "r7", "node": "a", "follow": True, "tail": 5}
    assert soakd.calls == [("run.logs", asked)]


def test_answers_and_a_nodes_output_are_two_things(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of them would be left out without a word."""
    soakd.handlers["run.logs"] = _pieces(b"")
    assert soakctl("logs", "--answers", "--node", "a") == 2
    assert "--answers of one --node" in capsys.readouterr().err
    assert soakd.calls == []


def test_json_is_one_object_per_line(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever pieces the lines came in."""
    soakd.handlers["run.logs"] = _pieces(b"on", b"e\ntw\xc3", b"\xbc\nlast")
    assert soakctl("logs", "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"line": "one"}, {"line": "twü"}, {"line": "last"}]


def test_on_a_terminal_control_characters_are_escaped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tabs stay; a node must not drive the reader's terminal."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    writer = logs.writer_for(Session(socket=None, json=False, environ={}))
    writer.feed(b"a\tb\x1b]0;title\x07\n")
    writer.end()
    assert capsys.readouterr().out == "a\tb\\x1b]0;title\\x07\n"


@pytest.mark.parametrize("bad", ["-1", "many"])
def test_a_bad_line_count_is_a_usage_error(
    soakctl: Soakctl, capsys: pytest.CaptureFixture[str], bad: str
) -> None:
    """Before anything is asked."""
    assert soakctl("logs", f"--tail={bad}") == 2
    assert "expected a number" in capsys.readouterr().err
