"""What two runs must not share, where slots are free for both."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import pytest

from tests.e2e.box import Box

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def wide_box(bare_box: Box) -> Box:
    """Return a box whose soakd has slots for two runs."""
    (bare_box.folder / "soakd.toml").write_text("max_running = 2\nrunning_per_user = 2\n")
    bare_box.install(outcomes=["hit"])
    bare_box.serve()
    return bare_box


def _kinds(box: Box, run: str) -> list[str]:
    with closing(sqlite3.connect(box.state / "soakd.db")) as store:
        rows = store.execute("SELECT kind FROM leases WHERE run_id = ?", (run[1:],))
        return sorted(kind for (kind,) in rows)


def test_two_runs_never_live_on_one_identity(wide_box: Box) -> None:
    """The second fails, naming the first and the way out; afterwards the identity is free."""
    box = wide_box
    maker = box.start("50")
    box.until_rounds(maker, 1)
    for folder, name in zip(box.soaks, "ab", strict=True):
        keys = folder / "data" / "sam.keys"
        keys.parent.mkdir(exist_ok=True)
        shutil.copyfile(box.node(maker, name) / "data" / "sam.keys", keys)
    box.ctl("stop", maker)
    assert _kinds(box, maker) == []
    first = box.start("50", SOAK_FRESH_IDENTITY="0")
    box.until_rounds(first, 1)
    assert _kinds(box, first).count("identity") == 2
    second = box.start("--rounds", "1", SOAK_FRESH_IDENTITY="0", **box.other_urls())
    cause = box.wait(second, status=5)["cause"]
    assert (cause["code"], cause["node"]) == ("identity_leased", "a")
    assert f"{first} uses it" in cause["text"]
    assert "SOAK_FRESH_IDENTITY=1" in cause["text"]
    fresh = box.start("--rounds", "1", **box.other_urls())
    assert box.wait(fresh)["verdict"] == "passed"
    box.ctl("stop", first)
    later = box.start("--rounds", "1", SOAK_FRESH_IDENTITY="0")
    assert box.wait(later)["verdict"] == "passed"


def test_a_run_holds_its_leases_exactly_as_long_as_it_lives(wide_box: Box) -> None:
    """From its slot to its end, over a restart of soakd; a run of the same ports waits for it."""
    box = wide_box
    first = box.start("50")
    held = ["port", "port", "session", "session", "slot"]
    assert _kinds(box, first) == held
    second = box.ctl("--json", "start", "--rounds", "1", env=box.plan_env()).json()
    assert second["reason"] == f"port {min(box.ports)} leased by {first}"
    assert _kinds(box, second["id"]) == []
    box.leave()
    box.serve()
    assert _kinds(box, first) == held
    box.ctl("stop", first)
    assert _kinds(box, first) == []
    assert box.wait(second["id"])["verdict"] == "passed"
    assert _kinds(box, second["id"]) == []
