from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from soakd.simnode.__main__ import main


def test_the_command_line_makes_a_node_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Knobs are given as TOML."""
    folder = tmp_path / "a"
    given = ["--set", "hit_rate=0.5", "--set", 'outcomes=["hit"]', "--session-name", "s"]
    assert main(["install", str(folder), "--port", "18000", *given]) == 0
    assert "SIMULATED" in capsys.readouterr().out
    table = tomllib.loads((folder / "config.toml").read_text())
    assert table["api"]["port"] == 18000
    assert table["sim"] == {"hit_rate": 0.5, "outcomes": ["hit"]}
    assert table["sam"]["session_name"] == "s"
    assert table["general"]["auto_open_ui"] is False


@pytest.mark.parametrize("wrong", ["hit_rate=", "unheard_of=1", "hit_rate=7"])
def test_a_bad_knob_is_bad_usage(
    tmp_path: Path, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2 and a sentence."""
    with pytest.raises(SystemExit) as ended:
        main(["install", str(tmp_path), "--port", "18000", "--set", wrong])
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_a_port_must_be_one(tmp_path: Path) -> None:
    """0 would make the node refuse to start."""
    with pytest.raises(SystemExit):
        main(["install", str(tmp_path), "--port", "0"])
