"""What two runs must not share, where slots are free for both."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from soakd.simnode.identity import DESTINATION_BYTES, i2p_base64
from tests.e2e import inside
from tests.e2e.box import Box
from tests.e2e.pairs import served

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def shared_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Yield a box whose soakd has slots for two runs."""
    settings = "max_running = 2\nrunning_per_user = 2\n"
    with served(Box(tmp_path_factory.mktemp("wide")), settings) as box:
        yield box


def _kinds(box: Box, run: str) -> list[str]:
    with closing(sqlite3.connect(box.state / "soakd.db")) as store:
        rows = store.execute("SELECT kind FROM leases WHERE run_id = ?", (run[1:],))
        return sorted(kind for (kind,) in rows)


def _give_identity(folder: Path) -> None:
    """Let a node folder have keys, as after a first start of the node."""
    public = i2p_base64(b"\x51" + os.urandom(DESTINATION_BYTES - 4) + bytes(3))
    keys = folder / "data" / "sam.keys"
    keys.parent.mkdir(exist_ok=True)
    keys.write_text(f"PUB={public}\nPRIV={public}{i2p_base64(os.urandom(276))}\n")


def test_two_runs_never_live_on_one_identity(box: Box) -> None:
    """The second fails, naming the first and the way out; afterwards the identity is free."""
    for folder in box.soaks:
        _give_identity(folder)
    first = inside.start(box, "50", SOAK_FRESH_IDENTITY="0")
    box.until_rounds(first, 1)
    assert _kinds(box, first).count("identity") == 2
    second = inside.start(box, "--rounds", "1", SOAK_FRESH_IDENTITY="0", **box.other_urls())
    cause = inside.wait(box, second, status=5)["cause"]
    assert (cause["code"], cause["node"]) == ("identity_leased", "a")
    assert f"{first} uses it" in cause["text"]
    assert "SOAK_FRESH_IDENTITY=1" in cause["text"]
    fresh = inside.start(box, "--rounds", "1", **box.other_urls())
    assert inside.wait(box, fresh)["verdict"] == "passed"
    inside.stop(box, first)
    later = inside.start(box, "--rounds", "1", SOAK_FRESH_IDENTITY="0")
    assert inside.wait(box, later)["verdict"] == "passed"


def test_a_run_holds_its_leases_exactly_as_long_as_it_lives(box: Box) -> None:
    """From its slot to its end, over a restart of soakd; a run of the same ports waits for it."""
    first = inside.start(box, "50")
    held = ["port", "port", "session", "session", "slot"]
    assert _kinds(box, first) == held
    second = box.ctl("--json", "start", "--rounds", "1", env=box.plan_env()).json()
    assert second["reason"] == f"port {min(box.ports)} leased by {first}"
    assert _kinds(box, second["id"]) == []
    box.leave()
    box.serve()
    assert _kinds(box, first) == held
    inside.stop(box, first)
    assert _kinds(box, first) == []
    assert inside.wait(box, second["id"])["verdict"] == "passed"
    assert _kinds(box, second["id"]) == []
