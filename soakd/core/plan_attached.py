"""What a plan cannot ask of nodes that somebody else runs. Part of `plan_parse`.

Such nodes are not staged, launched or stopped, and nothing is known of their processes: whatever
presumes one of these is a problem of the plan, not something that is silently left undone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from soakd.core.gates import NEED_PROCESSES
from soakd.core.plan_checks import Reader
from soakd.core.plan_shape import Plan

REFUSED: Final[Mapping[str, tuple[object, str]]] = {
    "ports": ("fixed", "they listen where they do"),
    "no_rounds": (False, "they are not kept by soakd"),
    "run_root": (None, "no folder of theirs is made"),
    "latest": (False, "no program is taken"),
    "keep_config": (False, "no configuration is edited"),
    "node_env": ((), "they run already"),
    "fresh_identity": (True, "their identity is their own"),
}
"""By key of a plan the one value that it may have, and why no other."""


def check_attached(plan: Plan, reader: Reader) -> None:
    """Note what attached nodes do not allow; a plan without any has nothing to fear.

    Args:
        plan: As it was read.
        reader: Of the plan's own keys.
    """
    if not plan.is_attached:
        return
    ours = [node.name for node in plan.nodes if not node.is_attached]
    if ours:
        what = f"cannot be attached to in part: {', '.join(ours)} without token_file"
        reader.bad("nodes", f"{what}; soakd runs all nodes of a plan, or none")
    for key, (allowed, why) in REFUSED.items():
        if getattr(plan, key) != allowed:
            reader.bad(key, f"cannot be given for nodes that somebody else runs: {why}")
    for index, node in enumerate(plan.nodes):
        if node.is_attached and node.env:
            what = "cannot be given for a node that somebody else runs: it runs already"
            reader.bad(f"nodes[{index}].env", what)


def gate_problem(metric: str) -> str | None:
    """Return why a gate's metric cannot be judged of attached nodes; None if it can."""
    why = NEED_PROCESSES.get(metric)
    return None if why is None else f"cannot judge nodes that somebody else runs: {why}"
