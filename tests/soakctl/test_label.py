from __future__ import annotations

import json

import pytest

from tests.soakctl.conftest import Soakctl
from tests.soakctl.fake_soakd import FakeSoakd

Capture = pytest.CaptureFixture[str]


def test_a_label_is_given(soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture) -> None:
    """The answer names it."""
    soakd.handlers["run.label"] = {"id": "r7", "label": "night"}
    assert soakctl("label", "r7", "night") == 0
    assert capsys.readouterr().out == "r7 is labelled night\n"
    assert soakd.calls == [("run.label", {"run": "r7", "label": "night"})]


def test_without_a_text_it_is_taken_away(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """Also with --json."""
    soakd.handlers["run.label"] = {"id": "r7", "label": None}
    assert soakctl("label", "r7") == 0
    assert capsys.readouterr().out == "r7 has no label now\n"
    assert soakctl("--json", "label", "r7") == 0
    assert json.loads(capsys.readouterr().out) == {"id": "r7", "label": None}
    assert soakd.calls == [("run.label", {"run": "r7"})] * 2
