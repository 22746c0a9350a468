"""The plan of a soak on kept nodes: the run's own, with what was asked for laid over it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from soakd.core.errors import UserError
from soakd.core.gates import gates_of
from soakd.core.plan_checks import Problems, show
from soakd.core.plan_parse import raise_problems, read_plan
from soakd.core.plan_shape import Plan, plan_to_dict

MEASURING: Final = (
    "scenario", "rounds", "duration_s", "wait_publish_s", "wait_search_s", "wait_between_s",
    "read_every_s", "miss_recheck_attempts", "miss_recheck_delay_s", "pairs", "pair_seed",
    "file_size_bytes", "file_type", "wait_sources_s", "debug_lookup", "peers_snapshot",
    "routing_snapshot", "warmup", "warmup_samples", "warmup_check_s", "warmup_timeout_s",
)  # fmt: skip
"""The keys that say what is measured and how: these, the gates and what nodes publish."""
DEFAULT_ROUNDS: Final = 500
"""What `rust_mule_soak.sh soak` did without a number."""
_PUBLISHED: Final = ("query", "file_id", "filename")


def soak_plan(plan: Plan, keys: Mapping[str, Any]) -> Plan:
    """Return the plan of a soak.

    Another scenario than the run's has its own defaults; the same one has what the run was
    started with.

    Args:
        plan: The run's, with `no_rounds`.
        keys: By name of the plan's key; `nodes` has by node's name what it publishes.

    Raises:
        UserError: With code `bad_plan` and all problems.
    """
    problems = Problems({})
    for key in keys:
        if key not in {*MEASURING, "gates", "nodes"}:
            problems.add(str(key), "cannot be asked of nodes that are kept already")
    data = plan_to_dict(plan) | {"no_rounds": False, "rounds": None, "duration_s": None}
    if keys.get("scenario", plan.scenario) != plan.scenario:
        data = {key: value for key, value in data.items() if key not in MEASURING}
    else:
        del data["rounds"], data["duration_s"]
    data["nodes"] = _published(data["nodes"], keys.get("nodes", {}), problems)
    data |= {key: value for key, value in keys.items() if key != "nodes"}
    has_end = data.get("rounds") is not None or data.get("duration_s") is not None
    if not has_end and data.get("scenario") != "dht_selftest":
        data["rounds"] = DEFAULT_ROUNDS
    soak = read_plan(data, problems)
    for gate in gates_of(soak.gates):
        if gate.abort and "gates" in keys:
            what = "cannot abort a soak on kept nodes, whose run it would end"
            problems.add("gates", f"{what}: leave abort out, got {show(gate.text)}")
    raise_problems(problems)
    return soak


def room_for(soak_s: float, plan_s: float, run: str) -> UserError | None:
    """Return why a soak has rounds that are too long for a run; None if they fit."""
    if soak_s <= plan_s:
        return None
    text = (
        f"cannot soak {run}: a round may take {soak_s:g} s, {run} leaves room for {plan_s:g} s;"
        " ask for shorter waits, or start other nodes with these"
    )
    return UserError("refused", text)


def _published(nodes: Any, changes: object, problems: Problems) -> list[dict[str, Any]]:
    """The nodes with what they are to publish."""
    changed = {node["name"]: dict(node) for node in nodes}
    if not isinstance(changes, Mapping):
        problems.add("nodes", f"cannot read what nodes publish, got {show(changes)}")
        return list(changed.values())
    for name, own in changes.items():
        if name not in changed or not isinstance(own, Mapping) or set(own) - set(_PUBLISHED):
            what = f"cannot change other than {', '.join(_PUBLISHED)} of the run's nodes"
            problems.add(f"nodes.{name}", f"{what}, got {show(own)}")
            continue
        changed[name] |= own
    return list(changed.values())
