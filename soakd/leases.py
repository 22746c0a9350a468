"""What a run takes from all others: its slot, ports, session names, identities.

Decided here: which leases a run must have before it may start, how a process that survived the
stop ladder is written down, and what `status` says of it. The store keeps the leases and ends them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from soakd.core.plan import Plan
from soakd.drivers import registry
from soakd.edge.store import Lease, LeaseTaken
from soakd.view import run_name

BLOCKED = "blocked"
"""A process of a finished run that could not be ended: slot and ports stay the run's."""
FORGOTTEN = "forgotten"
"""Such a process after an admin's `forget`: it holds nothing any more."""

Process = tuple[int, int]
"""A pid with its start ticks: of this boot."""


def session_names(run_id: int, plan: Plan) -> dict[str, str]:
    """By node, the names outside of this host that no other run may have at the same time."""
    driver, run = registry.of_stored(plan), run_name(run_id)
    names = {node.name: driver.session_name(plan, node.name, run) for node in plan.nodes}
    return {node: name for node, name in names.items() if name is not None}


def of_start(run_id: int, plan: Plan) -> list[Lease]:
    """What a run needs before any of its processes exists; with somebody else's nodes nothing."""
    if plan.is_attached:
        return []
    name = run_name(run_id)
    nodes = plan.nodes
    return [
        ("slot", name),
        *(("port", str(node.port)) for node in nodes),
        *(("session", session) for session in session_names(run_id, plan).values()),
    ]


def identity(keys: bytes) -> Lease:
    """The lease of the identity that a key file makes."""
    return ("identity", hashlib.sha256(keys).hexdigest())


def refusal(taken: LeaseTaken) -> str:
    """Why a run cannot have its slot, for people."""
    row = taken.blocking[0]
    holder = run_name(row.run_id)
    return (
        f"cannot start {run_name(taken.run_id)}: {row.kind} {row.key} is leased by {holder};"
        f" wait for the end of {holder}, then submit again"
    )


def key_of(process: Process, boot: str) -> str:
    """A process as the key of a `blocked` lease; another boot's process is gone for certain."""
    pid, ticks = process
    return f"{boot}:{pid}:{ticks}"


def process_of(key: str, boot: str) -> Process | None:
    """The process behind such a key; None if it was of another boot, or the key is none of ours."""
    process_boot, pid, ticks = key.rsplit(":", 2) if key.count(":") >= 2 else ("", "", "")
    if process_boot != boot or not (pid.isdecimal() and ticks.isdecimal()):
        return None
    return int(pid), int(ticks)


def with_blocked(status: dict[str, Any], plan: Plan, pids: Sequence[int]) -> dict[str, Any]:
    """The status of a finished run while processes of it keep its slot and ports."""
    if not pids:
        return status
    they, are = ("processes", "they are") if len(pids) > 1 else ("process", "it is")
    named = " ".join(map(str, pids))
    note = f"{they} {named} could not be killed"
    if not plan.is_attached:
        ports = " ".join(str(node.port) for node in plan.nodes)
        note += (
            f"; slot and ports {ports} stay taken until {are} gone"
            f" or an admin says `soakctl forget {status['id']}`"
        )
    rung = {"rung": BLOCKED, "pids": list(pids)}
    return status | {"rung": rung, "notes": [*status["notes"], note]}
