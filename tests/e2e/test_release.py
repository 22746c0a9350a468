"""What soakd 0.1.0 left behind, loads and is taken over: store, run folders, and its shim.

The data stand as text in `tests/data/release-0.1.0` and are never edited again.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tarfile
from pathlib import Path

import pytest

from soakd.edge.shim_client import build_zip
from soakd.edge.shim_client import spawn as spawning
from soakd.edge.store import Store
from tests.e2e.box import Box
from tests.shim import harness

DATA = Path(__file__).parents[1] / "data" / "release-0.1.0"

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def build_state(state: Path) -> None:
    """Make a state folder out of the release's text."""
    state.mkdir(mode=0o711, parents=True, exist_ok=True)
    with sqlite3.connect(state / "soakd.db") as database:
        database.executescript((DATA / "store.sql").read_text())
    database.close()
    (state / "soakd.db").chmod(0o600)
    shutil.copytree(DATA / "runs", state / "runs")
    for run in (state / "runs").iterdir():
        (run / "shim").mkdir(mode=0o700)


def test_the_store_of_the_release_loads(tmp_path: Path) -> None:
    """Every run with its state, its counters, its secrets and its audit."""
    build_state(tmp_path)
    store = Store(tmp_path / "soakd.db")
    try:
        runs = {run.label: run for run in store.list_runs()}
        states = {label: run.state for label, run in runs.items()}
        assert states == {"release": "finished", "live": "running", "queued": "queued"}
        done = runs["release"]
        counters = json.loads(done.counters_json or "{}")
        assert (done.verdict, counters["hit"], counters["late"]) == ("passed", 2, 1)
        assert {node.name for node in store.nodes(done.id)} == {"a", "b"}
        assert store.secrets(done.id)
        assert store.audit(done.id)
    finally:
        store.close()


def test_a_soakd_of_today_takes_the_release_over(bare_box: Box) -> None:
    """The finished run is as it was and can be collected, the live one ended with its boot.

    The queued one goes on.
    """
    box = bare_box
    build_state(box.state)
    box.serve()
    recorded = json.loads((DATA / "runs" / "r1" / "run.json").read_text())
    done = box.status("r1")
    for key in ("verdict", "why", "rounds", "hit_rate", "started_at", "run_tag"):
        assert done[key] == recorded[key], key
    # What later releases know besides does not count.
    for node, then in zip(done["nodes"], recorded["nodes"], strict=True):
        assert node | then == node
    live = box.wait("r2", status=4)
    assert (live["result"], live["cause"]["code"]) == ("aborted", "reboot")
    assert "the host was restarted" in live["why"]
    before = len((DATA / "runs" / "r2" / "logs" / "rounds.ndjson").read_text().splitlines())
    assert live["rounds"]["total"] - live["rounds"]["skipped"] == before
    assert len(box.records("r2")) == live["rounds"]["total"]
    # Its folders are not on this host, so it fails; but it was given its slot.
    assert box.wait("r3", status=5)["started_at"] is not None
    # Its records come out as they stand.
    box.ctl("collect", "r1", "--keep-destinations", "-o", "old.tar.gz")
    with tarfile.open(box.folder / "old.tar.gz") as bundle:
        rows = bundle.extractfile("logs/rounds.tsv")
        assert rows is not None
        assert rows.read() == (DATA / "runs" / "r1" / "logs" / "rounds.tsv").read_bytes()


async def test_the_shim_of_the_release_is_understood(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose shim is of 0.1.0 can be held, stopped and ended by a soakd of today."""
    monkeypatch.setattr(spawning, "shim_zip", lambda python: build_zip(DATA / "shim", python))
    async with harness.running_shim(short_dir) as shim:
        made = await shim.run_program("trap 'exit 0' INT; echo up >&2; while :; do sleep 0.1; done")
        await shim.wait_for("stderr", line="up")
        assert shim.link.hello["protocol"] == 1
        await shim.call("stop", reason="test")
        assert (await shim.wait_for("stopped"))["left"] == []
        assert (await shim.wait_for("node_exited"))["pid"] == made["pid"]
        await shim.call("end")
        assert await shim.wait_exit() == 0
