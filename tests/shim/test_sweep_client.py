"""soakd's side of the sweep: what it takes from the sweeper and the journal, and how it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from soakd.core.errors import HostError
from soakd.edge.shim_client import Swept, staged_programs
from soakd.edge.shim_client.sweep import swept_from
from tests.shim import harness
from tests.shim.scene import Scene


def test_malformed_answers_are_left_out() -> None:
    """What a user's process says is taken piece by piece."""
    assert swept_from({}) == Swept((), (), ())
    assert swept_from({"killed": "x", "spared": {"pid": 1}, "left": 3}) == Swept((), (), ())
    answer = {
        "killed": [1, "2", None],
        "spared": [{"pid": 3, "why": "w"}, {"pid": "3", "why": "w"}, {"pid": 4}, 5],
        "left": [6],
    }
    assert swept_from(answer) == Swept((1,), ((3, "w"),), (6,))


def test_programs_come_from_the_journal() -> None:
    """Each launch names the staged binary; torn, strange and older lines say nothing."""
    started = b'{"event":"node_started","node":"a","program":{"dev":1,"ino":%d}}\n'
    journal = (
        started % 5
        + b'{"event":"node_started","node":"a"}\n[1]\nx\n{"event":"begun"}\n'
        + started % 6
        + started % 5
        + b'{"event":"node_started","program":{"dev":"1","ino":7}}\n{"event":"node_sta'
    )
    assert staged_programs(journal) == ((1, 5), (1, 6))
    assert staged_programs(b"") == ()


@pytest.mark.slow
async def test_refused_sweep_is_a_host_error(
    short_dir: Path, child_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said with the run's name; a socket that an earlier sweep has left is no hindrance."""
    made = Scene(short_dir)
    made.open()
    (short_dir / "shim" / "0.sock").touch()
    harness.run_from_source(monkeypatch, child_env)
    made.nonce = ""
    with pytest.raises(HostError, match="cannot sweep after run r7: .*nonce is empty"):
        await made.sweep()
    assert list((short_dir / "shim").iterdir()) == []


@pytest.mark.slow
async def test_sweeper_that_dies_is_a_host_error(
    short_dir: Path, child_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is left behind but its lines in runner.out."""
    made = Scene(short_dir)
    made.open()
    dies = "from soakd.shim import verbs; import os; verbs.Sweep = lambda order: os._exit(3)"
    harness.run_from_source(monkeypatch, child_env, dies)
    with pytest.raises(HostError, match="cannot sweep after run r7: .*lost"):
        await made.sweep()
    assert list((short_dir / "shim").iterdir()) == []
