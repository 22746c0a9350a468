"""The verdict of a bundle: gates held against what was read.

Gates come from the command line, else from the plan, else the default ones. What the records do
not tell makes a gate inconclusive, never passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from soakd.core import gates
from soakd.core.gates import Facts, Gate, GateResult
from soakd.core.model import RESULTS, Cause, Result, Verdict
from soakd.triage.findings import Findings
from soakd.triage.outcomes import Outcomes
from soakd.triage.times import measured_time

_MAX_CHARS = 200


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict, why, and what came of each gate."""

    verdict: Verdict
    why: str
    results: tuple[GateResult, ...]


def gates_for(plan: dict[str, Any] | None, asked: Sequence[str]) -> list[str]:
    """Return the texts of the gates: those asked for, else the plan's; empty = default ones."""
    if asked:
        return list(asked)
    inner = (plan or {}).get("plan")
    texts = inner.get("gates") if isinstance(inner, dict) else None
    if texts is None:
        return []
    # What is no text is no gate that anybody can read, and is told, not passed over.
    listed = texts if isinstance(texts, list) else [texts]
    return [text if isinstance(text, str) else repr(text)[:_MAX_CHARS] for text in listed]


def is_attached(plan: dict[str, Any] | None) -> bool:
    """Whether somebody else ran the nodes: nothing is known of their processes."""
    inner = (plan or {}).get("plan")
    nodes = inner.get("nodes") if isinstance(inner, dict) else None
    return isinstance(nodes, list) and any(
        isinstance(node, dict) and node.get("token_file") is not None for node in nodes
    )


def judge(found: Findings, outcomes: Outcomes, asked: Sequence[str]) -> Judgement:
    """Hold the gates against what was read."""
    exits, panics = _node_exits(found), _panics(found)
    facts = Facts(
        outcomes.series, exits or 0, panics or 0, measured_time(found, outcomes)["measured"]
    )
    unknown = {name for name, value in (("node_exits", exits), ("panics", panics)) if value is None}
    plan = found.documents.get("plan.json")
    texts = gates_for(plan, asked)
    # Asked for on the command line, a gate stands for itself.
    if asked:
        judged = gates.evaluate(gates.readable(texts), facts)
    else:
        judged = gates.judge(texts, facts, attached=is_attached(plan))
    results = tuple(_unknown(item, unknown) for item in judged)
    result, cause = _ending(found)
    verdict, why = gates.verdict(result, cause, results)
    if found.is_torn and verdict == "passed":
        # What is missing may be what would have failed.
        verdict, why = "inconclusive", f"all gates hold for what can be read, but {found.notes[-1]}"
    return Judgement(verdict, why, results)


def _unknown(item: GateResult, unknown: set[str]) -> GateResult:
    """A gate about something that nobody recorded."""
    gate: Gate = item.gate
    if gate.metric not in unknown:
        return item
    text = f"{gate.metric} is unknown: the records do not tell it, wanted {gate.text}"
    return replace(item, status="inconclusive", value=None, text=text, needs=None)


def _node_exits(found: Findings) -> int | None:
    """Nodes that ended by themselves; None if the records do not tell.

    The scripts did not look. But a node whose status stands at the end of the last round lived
    until then, and one that had a status before and has none there did not.
    """
    if found.events is not None:
        return found.events.exits
    status = found.status.get("logs/status.ndjson")
    if status is None or len(status.nodes) < 2:
        return None
    last = max(node.lines for node in status.nodes.values())
    return sum(not node.ends_readable or node.lines < last - 1 for node in status.nodes.values())


def _panics(found: Findings) -> int | None:
    """Panics that were heard or that stand in the output, whichever are more."""
    heard = None if found.events is None else found.events.panics
    printed = sum(output.panic_starts for output in found.outputs.values())
    if heard is None:
        return printed if found.outputs else None
    return max(heard, printed)


def _ending(found: Findings) -> tuple[Result, Cause | None]:
    """How the run ended by its own word; a bundle of a live run is judged on what it has."""
    run = found.documents.get("run.json")
    if run is not None and run.get("result") in RESULTS:
        cause = run.get("cause")
        if not isinstance(cause, dict) or "code" not in cause or "text" not in cause:
            cause = None
        return cast("Result", run["result"]), None if cause is None else Cause.from_dict(cause)
    # A stop that came too late is in the log and not in the state.
    was_asked = found.soak_log.stop_line is not None and found.runner_state != "completed"
    if found.runner_state == "stopped" or was_asked:
        text = found.soak_log.stop_line or "the run was stopped"
        return "stopped", Cause("stopped", text)
    if found.runner_state == "failed" and run is None:
        errors = [] if found.runner_log is None else found.runner_log.errors
        # The scripts fail when a node does not get ready, or is refused.
        text = errors[-1] if errors else "the runner failed, its log does not say why"
        return "failed", Cause("ready_timeout", text)
    return "completed", None
