"""What soakd must not forget: runs, nodes, leases, secrets, gaps and the audit log, in SQLite.

Decided here: that a state moves only from the state the caller believed in, and what is one
transaction. Not decided here: the tables and when the file is refused (``schema/``), what the
states and the ``*_json`` texts mean, and what time it is.

All methods block (a commit waits for the disk: synchronous=FULL). The daemon calls them with
``trio.to_thread.run_sync(..., limiter=CapacityLimiter(1))``; tests call them directly.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TypeVar

from soakd.core.errors import HostError
from soakd.edge.schema import Database
from soakd.edge.schema.rows import (
    AuditRow,
    FactRow,
    GapRow,
    LeaseRow,
    LeaseTaken,
    NewRun,
    NodeRow,
    RunRow,
    SecretRow,
    SpellRow,
    StaleState,
)

__all__ = [
    "AuditRow",
    "GapRow",
    "LeaseRow",
    "LeaseTaken",
    "NewRun",
    "NodeRow",
    "RunRow",
    "SecretRow",
    "SpellRow",
    "StaleState",
    "Store",
]

Value = str | int | float | None
Lease = tuple[str, str]
"""A lease as (kind, key): ("port", "17835")."""

_COLUMNS = frozenset((
    "label", "nonce", "started_at", "ended_at", "result", "verdict", "why", "cause_json",
    "edits_json", "counters_json", "rounds_offset", "last_round", "measured_json", "cgroup",
    "boot_id", "shim_pid", "shim_ticks", "shim_n", "plan_json", "sha256_json", "state_json",
    "priority", "held",
))  # fmt: skip
"""What `transition` and `set_columns` may write: not ids, owner and the state's name."""


_Row = TypeVar("_Row", RunRow, SpellRow, FactRow, NodeRow, LeaseRow, SecretRow, GapRow, AuditRow)


@cache
def _queries() -> Mapping[str, str]:
    text = resources.files("soakd.edge").joinpath("queries.sql").read_text("utf-8")
    parts = (part.partition("\n") for part in text.split("-- name: ")[1:])
    return {name.strip(): body.strip() for name, _, body in parts}


class Store:
    """One SQLite file, held exclusively by one soakd. Close it with `close`.

    Args:
        path: the file, made (0600) if there is none and no records of runs stand beside it;
            `MEMORY` for a store that lives as long as the object.

    Raises:
        HostError: the file is unreadable, of a newer soakd, in use by another soakd, or missing
            although records of runs stand beside it; the message says what to do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = Database(path)
        self._db = self._database.connection

    def close(self) -> None:
        """Close the file and let another soakd have it. Twice is once."""
        self._database.close()

    # -- runs ----------------------------------------------------------------------------------

    def create_run(self, new: NewRun) -> int:
        """Store a new run with its first audit row; its id, never used before."""
        with self._transaction():
            values = {field.name: getattr(new, field.name) for field in fields(NewRun)}
            run_id = int(self._run("insert_run", **values).lastrowid or 0)
            self._audit(new.created_at, run_id, new.owner_uid, f"created as {new.state}")
        return run_id

    def transition(  # noqa: PLR0913 - one fact each, and all of them belong to one transaction
        self,
        run_id: int,
        expect_state: str,
        state: str,
        state_json: str,
        who_uid: int | None,
        reason: str,
        *,
        at: float,
        take: Sequence[Lease] = (),
        left: Sequence[str] | None = None,
        **columns: Value,
    ) -> None:
        """Move a run from `expect_state` to `state`, with who and why, in one transaction.

        Args:
            run_id: the run.
            expect_state: name of the state the caller believes it to be in.
            state: name of the new state (may be the same, e.g. a new deadline).
            state_json: the whole new state.
            who_uid: who asked for it; None = soakd itself.
            reason: for the audit log.
            at: epoch seconds, for the audit log.
            take: leases that the new state needs.
            left: None where the processes of the run are not over; else those that could not be
                ended, as keys of `blocked` leases. None of them left: all leases end.
            **columns: further columns of the run to write with it (`started_at=...`).

        Raises:
            StaleState: the run is in another state; nothing was written.
            LeaseTaken: another run holds one of `take`; nothing was written.
            HostError: the disk is full or failing; nothing was written.
        """
        with self._transaction():
            moved = self._run(
                "move_state", id=run_id, expect=expect_state, state=state, state_json=state_json
            )
            if moved.rowcount != 1:
                found = self.get_run(run_id)
                raise StaleState(run_id, expect_state, found.state if found else None)
            self._set(run_id, columns)
            if blocking := self._take(take, run_id):
                raise LeaseTaken(run_id, blocking)
            if left is not None:
                self._end_leases(run_id, left)
            self._audit(at, run_id, who_uid, f"{expect_state} -> {state}: {reason}")

    def set_columns(self, run_id: int, **columns: Value) -> None:
        """Write columns that do not depend on the state (`edits_json`, `cgroup`, ...)."""
        with self._transaction():
            self._set(run_id, columns)

    def amend(
        self,
        run_id: int,
        at: float,
        uid: int | None,
        what: str,
        detail_json: str = "{}",
        *,
        expect_state: str | None = None,
        **columns: Value,
    ) -> None:
        """Write columns of a run with who wanted it, in one transaction.

        Raises:
            StaleState: the run is not in `expect_state`; nothing was written.
            HostError: the disk is full or failing; nothing was written.
        """
        with self._transaction():
            found = self.get_run(run_id)
            if expect_state is not None and (found is None or found.state != expect_state):
                raise StaleState(run_id, expect_state, found.state if found else None)
            self._set(run_id, columns)
            self._audit(at, run_id, uid, what, detail_json)

    def checkpoint(
        self, run_id: int, counters_json: str, rounds_offset: int, last_round: int
    ) -> None:
        """Remember the counters over ``rounds.ndjson`` up to the byte `rounds_offset`.

        Call it after the file was synced: the file may be ahead of the store, never behind.
        """
        self.set_columns(
            run_id,
            counters_json=counters_json,
            rounds_offset=rounds_offset,
            last_round=last_round,
        )

    def set_shim(  # noqa: PLR0913 - one identity
        self,
        run_id: int,
        *,
        n: int,
        nonce: str,
        pid: int | None = None,
        ticks: int | None = None,
        boot_id: str | None = None,
        cgroup: str | None = None,
    ) -> None:
        """Record shim number `n` of a run: as an intent before the spawn, then as a process.

        The intent (no pid) forgets the process of the shim before: from there on only the nonce
        may find one. `ticks` is field 22 of ``/proc/<pid>/stat``; `cgroup` the path or unit the
        shim was put into.
        """
        self.set_columns(
            run_id,
            shim_n=n,
            nonce=nonce,
            shim_pid=pid,
            shim_ticks=ticks,
            boot_id=boot_id,
            cgroup=cgroup,
        )

    def get_run(self, run_id: int) -> RunRow | None:
        """The run, or None."""
        return self._one(RunRow, "run_by_id", id=run_id)

    def list_runs(self, owner_uid: int | None = None, limit: int = 1000) -> list[RunRow]:
        """Runs of one owner or (None) of all, newest first."""
        return self._all(RunRow, "all_runs", owner_uid=owner_uid, limit=limit)

    def unfinished_runs(self) -> list[RunRow]:
        """Every run that is not finished, oldest first."""
        return self._all(RunRow, "unfinished_runs")

    def latest_run_of(self, uid: int) -> RunRow | None:
        """The user's executing run, else the newest queued, else the newest finished one."""
        return self._one(RunRow, "latest_run_of", owner_uid=uid)

    def spells(self, since: float) -> list[SpellRow]:
        """When runs were executing, as far as they were after `since` (epoch seconds)."""
        return self._all(SpellRow, "spells", since=since)

    # -- what belongs to soakd itself ----------------------------------------------------------

    def put_fact(self, name: str, value_json: str) -> None:
        """Remember something of that name instead of what was known before."""
        self._write("put_fact", name=name, value_json=value_json)

    def fact(self, name: str) -> str | None:
        """What was put last under that name, or None."""
        row = self._one(FactRow, "fact", name=name)
        return None if row is None else row.value_json

    # -- what belongs to a run -----------------------------------------------------------------

    def put_node(self, run_id: int, name: str, pid: int, ticks: int) -> None:
        """Record a launched node; an exit recorded before is forgotten."""
        self._write("put_node", run_id=run_id, name=name, pid=pid, ticks=ticks)

    def node_exited(self, run_id: int, name: str, exit_json: str) -> None:
        """Record how a node ended."""
        self._write("node_exited", run_id=run_id, name=name, exit_json=exit_json)

    def nodes(self, run_id: int) -> list[NodeRow]:
        """The nodes of a run that were ever launched, by name."""
        return self._all(NodeRow, "nodes_of", run_id=run_id)

    def lease(self, kind: str, key: str, run_id: int) -> int | None:
        """Take a lease; None if the run has it now, else the id of the run that holds it."""
        return next((row.run_id for row in self.lease_all([(kind, key)], run_id)), None)

    def lease_all(self, wanted: Sequence[Lease], run_id: int) -> list[LeaseRow]:
        """Take all of `wanted` or none; the leases of others in the way, [] = taken."""
        with self._transaction():
            return self._take(wanted, run_id)

    def leases(self) -> list[LeaseRow]:
        """Every lease of every run."""
        return self._all(LeaseRow, "all_leases")

    def release(self, run_id: int) -> None:
        """Give back all leases of a run: only when its processes are proven gone."""
        self._write("release_leases", run_id=run_id)

    def forget(self, run_id: int, at: float, uid: int, detail_json: str) -> None:
        """Give back all leases of a run although processes are left, with who wanted it.

        Its `blocked` leases become `forgotten` ones, which hold nothing: they say what is still
        to be cleaned up after.
        """
        with self._transaction():
            self._run("forget_blocked", run_id=run_id)
            self._run("release_all_but_forgotten", run_id=run_id)
            self._audit(at, run_id, uid, "forgot the blocked lease", detail_json)

    def add_secret(self, run_id: int, kind: str, value: str) -> None:
        """Remember a value that no bundle may contain; known ones are kept once."""
        self._write("add_secret", run_id=run_id, kind=kind, value=value)

    def secrets(self, run_id: int) -> list[SecretRow]:
        """The secrets recorded for a run."""
        return self._all(SecretRow, "secrets_of", run_id=run_id)

    def add_gap(self, run_id: int, *, from_at: float, to_at: float, s: float, why: str) -> None:
        """Record a time without measuring; `s` by the boot clock, the others epoch seconds."""
        self._write("add_gap", run_id=run_id, from_at=from_at, to_at=to_at, s=s, why=why)

    def gaps(self, run_id: int) -> list[GapRow]:
        """The gaps of a run in order of time."""
        return self._all(GapRow, "gaps_of", run_id=run_id)

    def add_audit(
        self, at: float, run_id: int | None, uid: int | None, what: str, detail_json: str = "{}"
    ) -> None:
        """Record an act that is not a transition (collect, shutdown, ...)."""
        with self._transaction():
            self._audit(at, run_id, uid, what, detail_json)

    def audit(self, run_id: int) -> list[AuditRow]:
        """What was done to a run, in order."""
        return self._all(AuditRow, "audit_of", run_id=run_id)

    # -- SQL -----------------------------------------------------------------------------------

    def _audit(
        self, at: float, run_id: int | None, uid: int | None, what: str, detail_json: str = "{}"
    ) -> None:
        self._run("add_audit", at=at, run_id=run_id, uid=uid, what=what, detail_json=detail_json)

    def _take(self, wanted: Sequence[Lease], run_id: int) -> list[LeaseRow]:
        rows = [self._one(LeaseRow, "lease_holder", kind=kind, key=key) for kind, key in wanted]
        blocking = [row for row in rows if row is not None and row.run_id != run_id]
        for kind, key in wanted if not blocking else ():
            self._run("take_lease", kind=kind, key=key, run_id=run_id)
        return blocking

    def _end_leases(self, run_id: int, left: Sequence[str]) -> None:
        if not left:
            self._run("release_leases", run_id=run_id)
        for key in left:
            # A process that another run is blocked by already stays that run's.
            self._run("take_lease", kind="blocked", key=key, run_id=run_id)

    def _set(self, run_id: int, columns: Mapping[str, Value]) -> None:
        unknown = columns.keys() - _COLUMNS
        if unknown:
            raise AssertionError(f"not columns to write: {sorted(unknown)}")
        if columns:
            assignments = ", ".join(f"{column} = :{column}" for column in columns)
            sql = _queries()["set_columns"].replace("{assignments}", assignments)
            self._db.execute(sql, {**columns, "id": run_id})

    def _write(self, query: str, **values: Value) -> None:
        with self._transaction():
            self._run(query, **values)

    def _run(self, query: str, **values: Value) -> sqlite3.Cursor:
        return self._db.execute(_queries()[query], values)

    def _all(self, row: type[_Row], query: str, **values: Value) -> list[_Row]:
        cursor = self._run(query, **values)
        names = [column[0] for column in cursor.description]
        # A column added by a later schema must not break the rows of this version.
        known = {f.name for f in fields(row)}
        return [
            row(**{n: v for n, v in zip(names, record, strict=True) if n in known})
            for record in cursor
        ]

    def _one(self, row: type[_Row], query: str, **values: Value) -> _Row | None:
        return next(iter(self._all(row, query, **values)), None)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """BEGIN IMMEDIATE ... COMMIT; rolled back on any exception."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                # SQLITE_FULL and SQLITE_IOERR may have rolled back by themselves.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.OperationalError as error:
            raise HostError(
                "internal", f"cannot write {self.path}: {error}; free disk space or mend the disk"
            ) from error
