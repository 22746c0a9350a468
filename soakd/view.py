"""What `status`, `list` and watchers see of a run: plain maps in the words of the wire.

A run that is not live is shown from its row; a live one lays its present over that (`Run.status`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from soakd.core import node_state, stats
from soakd.core.plan import Plan, flows_per_round, plan_to_dict
from soakd.core.stats import Counters
from soakd.edge.clock import rfc3339
from soakd.edge.store import GapRow, NodeRow, RunRow

FINISHED = "finished"
QUEUED = "queued"


def run_name(run_id: int) -> str:
    """The run's id as people and the wire write it."""
    return f"r{run_id}"


def public(row: RunRow, reason: str | None) -> dict[str, Any]:
    """What anyone may see of another user's run: an allow-list (`PublicRun`)."""
    return {
        "id": run_name(row.id),
        "owner": row.owner_name,
        "label": row.label,
        "state": row.state,
        "created_at": rfc3339(row.created_at),
        "started_at": _time(row.started_at),
        "ended_at": _time(row.ended_at),
        "reason": reason,
    }


def from_row(
    row: RunRow, plan: Plan, nodes: Iterable[NodeRow], gaps: Iterable[GapRow], reason: str | None
) -> dict[str, Any]:
    """The whole status of a run as the store knows it."""
    counters = (
        stats.counters_from_dict(json.loads(row.counters_json)) if row.counters_json else Counters()
    )
    measured = json.loads(row.measured_json) if row.measured_json else {}
    known = {node.name: node for node in nodes}
    return {
        **public(row, reason),
        "phase": None,
        "link": "connected",
        "result": row.result,
        "verdict": row.verdict,
        "why": row.why,
        "cause": json.loads(row.cause_json) if row.cause_json else None,
        "remaining_s": plan.duration_s if row.state != FINISHED else None,
        **rates(counters),
        "nodes": [
            node_state.public_node(node.name, node_state.Attached()) | {"trouble": []}
            if node.is_attached
            else _node(node.name, known.get(node.name))
            for node in plan.nodes
        ],
        "gaps": [gap_map(gap) for gap in gaps],
        "edits": json.loads(row.edits_json),
        "rung": None,
        "scenario": plan.scenario,
        "simulation": bool(measured.get("simulation")),
        "duration_s": plan.duration_s,
        "rounds_wanted": None if plan.rounds is None else plan.rounds * flows_per_round(plan),
        "run_tag": plan.run_tag,
        "round": row.last_round or None,
        "flow": None,
        "kept": plan.no_rounds,
        "soak": None,
        "soaks": measured.get("soaks", []),
        "deadline_at": measured.get("deadline_at"),
        "notes": measured.get("notes", []),
    }


def planned(row: RunRow, plan: Plan) -> dict[str, Any]:
    """What a run was asked to do (`PlanResult`), under the label that it has now."""
    return {
        "id": run_name(row.id),
        "state": row.state,
        "created_at": rfc3339(row.created_at),
        "plan": plan_to_dict(plan) | {"label": row.label},
        "sha256": json.loads(row.sha256_json),
    }


def rates(counters: Counters) -> dict[str, Any]:
    """`rounds` with both rates, each with its n."""
    searched = counters.classified - counters.prestored_hit - counters.prestored_miss
    return {
        "rounds": stats.public_counts(counters),
        "hit_rate": {"value": stats.hit_rate(counters), "n": counters.classified},
        "search_hit_rate": {"value": stats.search_hit_rate(counters), "n": searched},
    }


def gap_map(gap: GapRow) -> dict[str, Any]:
    """One time without measurement."""
    return {
        "from": rfc3339(gap.from_at),
        "to": rfc3339(gap.to_at),
        "s": round(gap.s, 3),
        "why": gap.why,
    }


def _node(name: str, row: NodeRow | None) -> dict[str, Any]:
    ended = json.loads(row.exit_json) if row is not None and row.exit_json else None
    state = "exited" if ended else "none"
    # A pid is shown only while its process is known to live: the row of a node that is not live has
    # none to show.
    return {"name": name, "pid": None, "state": state, "exit": ended, "trouble": []}


def _time(epoch: float | None) -> str | None:
    return None if epoch is None else rfc3339(epoch)


def parse_run_name(text: str) -> int | None:
    """Number in `r7`; None if the text is no run id."""
    digits = text[1:]
    if not text.startswith("r") or not digits.isascii() or not digits.isdigit() or len(digits) > 18:
        return None
    return int(digits)
