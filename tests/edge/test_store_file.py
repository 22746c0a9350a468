from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from soakd.core.errors import HostError
from soakd.edge import schema
from soakd.edge.store import NewRun, Store

RUN = NewRun(
    owner_uid=1, owner_name="a", label=None, created_at=1.0, state="queued",
    state_json="{}", plan_json="{}", sha256_json="{}",
)  # fmt: skip


def test_the_file_is_private_and_durable(tmp_path: Path) -> None:
    """It holds tokens, and a commit must survive a power cut."""
    path = tmp_path / "soakd.db"
    old = os.umask(0)
    try:
        store = Store(path)
        store.create_run(RUN)
    finally:
        os.umask(old)
    modes = {f.name: stat.S_IMODE(f.stat().st_mode) for f in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("soakd.db", "soakd.db-wal", "soakd.db-shm", "soakd.lock"), 0o600)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    store.close()


def test_what_was_stored_is_there_after_reopening(tmp_path: Path) -> None:
    """And ids go on where they ended."""
    store = Store(tmp_path / "soakd.db")
    first = store.create_run(RUN)
    store.close()
    store.close()
    store = Store(tmp_path / "soakd.db")
    row = store.get_run(first)
    assert row is not None
    assert row.owner_name == "a"
    store._db.execute("DELETE FROM runs")
    assert store.create_run(RUN) == first + 1
    store.close()


def test_a_second_soakd_is_refused(tmp_path: Path) -> None:
    """Two supervisors of one state would fight over every run."""
    store = Store(tmp_path / "soakd.db")
    with pytest.raises(HostError, match="another soakd uses it; talk to that one"):
        Store(tmp_path / "soakd.db")
    store.close()
    Store(tmp_path / "soakd.db").close()


@pytest.mark.slow
def test_a_killed_soakd_leaves_a_usable_store(tmp_path: Path) -> None:
    """SIGKILL loses no acknowledged commit and leaves no lock."""
    program = (
        "import sys; from pathlib import Path; from soakd.edge.store import *\n"
        "store = Store(Path(sys.argv[1]))\n"
        "while True:\n"
        "    run = NewRun(owner_uid=1, owner_name='a', label=None, created_at=1.0,"
        " state='queued', state_json='{}', plan_json='{}', sha256_json='{}')\n"
        "    print(store.create_run(run), flush=True)\n"
    )
    path = tmp_path / "soakd.db"
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, cwd=root
    ) as child:
        assert child.stdout is not None
        acknowledged = [int(child.stdout.readline()) for _ in range(20)]
        child.send_signal(signal.SIGKILL)
    store = Store(path)
    assert all(store.get_run(run_id) is not None for run_id in acknowledged)
    assert store._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store.close()


def test_a_newer_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    """An older soakd must not guess."""
    path = tmp_path / "soakd.db"
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 999")
    db.close()
    before = path.read_bytes()
    with pytest.raises(HostError, match=r"newer soakd .schema 999, this one knows"):
        Store(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("junk", [b"not a database at all" * 100, b"x"])
def test_a_damaged_store_is_refused_and_left_alone(tmp_path: Path, junk: bytes) -> None:
    """Corrupt state means refuse to start and say what to do, never start empty."""
    path = tmp_path / "soakd.db"
    path.write_bytes(junk)
    with pytest.raises(HostError, match="restore it from a copy"):
        Store(path)
    assert path.read_bytes() == junk


def test_a_damaged_page_is_found_at_the_start(tmp_path: Path) -> None:
    """Not in the middle of a run."""
    path = tmp_path / "soakd.db"
    store = Store(path)
    for _ in range(200):
        store.create_run(RUN)
    store.close()
    data = bytearray(path.read_bytes())
    data[4096 * 2 : 4096 * 8] = b"\xff" * (4096 * 6)
    path.write_bytes(data)
    with pytest.raises(HostError, match="restore it from a copy"):
        Store(path)


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    """--state pointed at the wrong folder."""
    path = tmp_path / "soakd.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")
    db.close()
    with pytest.raises(HostError, match="another program"):
        Store(path)


@pytest.mark.parametrize("empty", [True, False])
def test_a_lost_store_beside_records_is_not_replaced(tmp_path: Path, *, empty: bool) -> None:
    """Its ids would be used again for other runs."""
    path = tmp_path / "soakd.db"
    (tmp_path / "runs" / "r1").mkdir(parents=True)
    if empty:
        path.touch()
    with pytest.raises(HostError, match=r"holds records of runs; restore soakd.db"):
        Store(path)
    (tmp_path / "runs" / "r1").rmdir()
    Store(path).close()


def test_an_unreachable_file_is_refused(tmp_path: Path) -> None:
    """The message names the folder to mend."""
    with pytest.raises(HostError, match=r"make .*nowhere writable"):
        Store(tmp_path / "nowhere" / "soakd.db")
    (tmp_path / "soakd.db").symlink_to("/etc/passwd")
    with pytest.raises(HostError, match="check owner and mode"):
        Store(tmp_path / "soakd.db")


def test_a_migration_is_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement that fails leaves the old schema and the old version."""
    path = tmp_path / "soakd.db"
    Store(path).close()
    first = schema._migrations()
    broken = (*first, "ALTER TABLE runs ADD COLUMN mood TEXT; SELECT no_such();")
    monkeypatch.setattr(schema, "_migrations", lambda: broken)
    with pytest.raises(HostError, match="no_such"):
        Store(path)
    good = (*first, "ALTER TABLE runs ADD COLUMN mood TEXT;")
    monkeypatch.setattr(schema, "_migrations", lambda: good)
    store = Store(path)
    row = store.get_run(store.create_run(RUN))
    assert row is not None
    assert store._db.execute("PRAGMA user_version").fetchone() == (len(good),)
    store.close()
