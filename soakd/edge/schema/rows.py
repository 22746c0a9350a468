"""The rows of the store's tables as the rest of soakd sees them, and what the store refuses.

Part of `soakd.edge.store`, which hands them on; imported by nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """What a run is created from; times are epoch seconds."""

    owner_uid: int
    owner_name: str
    label: str | None
    created_at: float
    state: str
    state_json: str
    plan_json: str
    sha256_json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow(NewRun):
    """One run as stored. Times are epoch seconds; see ``schema/0001.sql`` for each column."""

    id: int
    nonce: str | None
    started_at: float | None
    ended_at: float | None
    result: str | None
    verdict: str | None
    why: str | None
    cause_json: str | None
    edits_json: str
    counters_json: str | None
    rounds_offset: int
    last_round: int
    measured_json: str | None
    cgroup: str | None
    boot_id: str | None
    shim_pid: int | None
    shim_ticks: int | None
    shim_n: int
    priority: int
    held: int


@dataclass(frozen=True, slots=True)
class SpellRow:
    """When a run of a user was executing; `ended_at` is None while it does."""

    id: int
    owner_uid: int
    started_at: float
    ended_at: float | None
    measured_json: str | None
    plan_json: str


@dataclass(frozen=True, slots=True)
class FactRow:
    """Something that soakd itself must not forget."""

    name: str
    value_json: str


@dataclass(frozen=True, slots=True)
class NodeRow:
    """The latest known life of one node of a run; `exit_json` is None while it lives."""

    run_id: int
    name: str
    pid: int | None
    ticks: int | None
    exit_json: str | None


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """Something (`kind`, `key`) that only `run_id` may use now, such as ("port", "17835")."""

    kind: str
    key: str
    run_id: int


@dataclass(frozen=True, slots=True)
class SecretRow:
    """A value that no bundle of the run may contain."""

    run_id: int
    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class GapRow:
    """A time in which soakd did not measure: `s` seconds by the boot clock."""

    run_id: int
    from_at: float
    to_at: float
    s: float
    why: str


@dataclass(frozen=True, slots=True)
class AuditRow:
    """Who (`uid`, None = soakd itself) did what, when."""

    id: int
    at: float
    run_id: int | None
    uid: int | None
    what: str
    detail_json: str


class StaleState(Exception):
    """The run was not (any more) in the state the caller expected; nothing was written."""

    def __init__(self, run_id: int, expected: str, found: str | None) -> None:
        super().__init__(f"cannot move r{run_id}: it is {found or 'unknown'}, not {expected}")
        self.run_id, self.expected, self.found = run_id, expected, found


class LeaseTaken(Exception):
    """Other runs hold leases that the run needs; nothing was written."""

    def __init__(self, run_id: int, blocking: Sequence[LeaseRow]) -> None:
        held = ", ".join(f"{row.kind} {row.key} is leased by r{row.run_id}" for row in blocking)
        super().__init__(f"cannot move r{run_id}: {held}")
        self.run_id, self.blocking = run_id, tuple(blocking)
