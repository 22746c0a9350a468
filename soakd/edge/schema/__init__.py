"""The store's file: claimed by one soakd, checked, and brought to the schema of this version.

Decided here: when a file is refused. One that cannot be read, or is missing although records of
runs stand beside it, is never replaced by an empty one: ids would be used again. Part of
`soakd.edge.store`, imported by nothing else; a change of the tables is a new file ``NNNN.sql``.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

from soakd.core.errors import HostError

APPLICATION_ID: Final = 0x736F616B  # "soak": tells our file from another program's
MEMORY: Final = Path(":memory:")
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_SMALLEST_BYTES: Final = 512  # SQLite takes anything shorter for a new file


class Database:
    """An open store file; `close` it.

    Args:
        path: the file, made (0600) when it may be, or `MEMORY`.

    Attributes:
        connection: in autocommit mode; usable from any one thread at a time.

    Raises:
        HostError: the file is refused; the message says why and what to do.
    """

    def __init__(self, path: Path) -> None:
        self._lock_fd = -1 if path == MEMORY else _claim(path)
        try:
            self.connection = _connect(path)
        except BaseException:
            self._unlock()
            raise

    def close(self) -> None:
        """Close the file and let another soakd have it. Twice is once."""
        self.connection.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


@cache
def _migrations() -> tuple[str, ...]:
    folder = resources.files("soakd.edge.schema")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return tuple(f.read_text("utf-8") for f in files)


def _claim(path: Path) -> int:
    """Hold the file against a second soakd, and make it private if it is new."""
    try:
        lock_fd = os.open(path.with_suffix(".lock"), _FLAGS, 0o600)
    except OSError as error:
        raise _refusal(path, f"{error.strerror}; make {path.parent} writable for soakd") from error
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _check_presence(path)
        # SQLite gives its WAL the mode of the file, so the mode must be right before it writes.
        os.close(os.open(path, _FLAGS, 0o600))
    except BaseException as error:
        os.close(lock_fd)
        if isinstance(error, BlockingIOError):
            cause = "another soakd uses it; talk to that one, or give this one its own --state"
        elif isinstance(error, OSError):
            cause = f"{error.strerror}; check owner and mode of {path}"
        else:
            raise
        raise _refusal(path, cause) from error
    return lock_fd


def _check_presence(path: Path) -> None:
    size = path.stat().st_size if path.exists() else 0
    if 0 < size < _SMALLEST_BYTES:
        raise _damage(path, f"it has only {size} bytes")
    runs = path.parent / "runs"
    if size == 0 and runs.is_dir() and any(runs.iterdir()):
        raise _refusal(
            path,
            f"it is empty, but {runs} holds records of runs; restore {path.name} "
            f"from a copy, or move {runs} away to begin anew",
        )


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        _check(db, path)
        _migrate(db)
    except sqlite3.DatabaseError as error:
        db.close()
        raise _damage(path, str(error)) from error
    except BaseException:
        db.close()
        raise
    return db


def _check(db: sqlite3.Connection, path: Path) -> None:
    version, newest = _pragma(db, "user_version"), len(_migrations())
    if version > newest:
        raise _refusal(
            path,
            f"it was written by a newer soakd (schema {version}, this one knows {newest}); "
            "install that version again, or start with another --state",
        )
    tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables and _pragma(db, "application_id") != APPLICATION_ID:
        raise _refusal(path, "it belongs to another program; start with another --state")
    # Cheap for our sizes, and a damaged page found now is better than in the middle of a run.
    damage = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if damage != "ok":
        raise sqlite3.DatabaseError(damage)


def _migrate(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    db.execute("PRAGMA journal_size_limit = 4194304")
    for version, script in enumerate(_migrations(), start=1):
        if version > _pragma(db, "user_version"):
            # The version is part of the transaction: a crash leaves the old schema, whole.
            db.executescript(
                f"BEGIN IMMEDIATE; {script}\nPRAGMA application_id = {APPLICATION_ID};"
                f"PRAGMA user_version = {version}; COMMIT;"
            )


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def _refusal(path: Path, cause: str) -> HostError:
    return HostError("internal", f"cannot open the store {path}: {cause}")


def _damage(path: Path, cause: str) -> HostError:
    return _refusal(
        path,
        f"{cause}; restore it from a copy, or move it away with its "
        "-wal and -shm files and the runs folder to begin anew",
    )
