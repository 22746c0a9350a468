"""The shape of a plan and the times that follow from it. Import from `soakd.core.plan`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

PROGRAM: Final = "rust-mule"
CONFIG: Final = "config.toml"

CALL_TIMEOUT_S: Final = 12.0
"""Longest time of one call to a node, connecting included."""

DEFAULT_DURATION_S: Final = 1800.0
MAX_DURATION_S: Final = 14 * 86400.0
MAX_ROUNDS: Final = 1_000_000

# SIGTERM's 3 s, the sweep's 10 s, and a margin for the shim to reply.
_LADDER_TAIL_S: Final = 15.0
# Publish, early read, search, deciding read, the status of two nodes, and two reads of the
# publisher's own table: whether it answers, and what its id is.
_CALLS_PER_ROUND: Final = 8


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node: where its folder is and where its API will listen.

    Attributes:
        env: Additions to this node's environment; they win over the plan's `node_env`.
    """

    name: str
    source: str
    host: str
    port: int
    roles: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a user asks for, frozen once submitted.

    Attributes:
        duration_s: Time in which rounds may start; None: only `rounds` ends the run.
        rounds: Number of rounds; None: only the duration ends the run.
        read_every_s: Distance of dating reads, 0 = off.
        run_tag: Part of the nodes' session names.
        run_root: Where the node folders go; None: into the run's own folder.
        latest: Take a program that changed while the run was queued.
        node_env: Additions to the nodes' environment.
        gates: Conditions of the verdict; empty: the default ones.
    """

    scenario: str = "source_probe"
    nodes: tuple[NodePlan, ...]
    duration_s: float | None
    rounds: int | None
    wait_publish_s: float = 20.0
    wait_search_s: float = 20.0
    wait_between_s: float = 5.0
    read_every_s: float = 5.0
    miss_recheck_attempts: int = 1
    miss_recheck_delay_s: float = 20.0
    ready_timeout_s: float = 1200.0
    fresh_identity: bool = True
    run_tag: str
    run_root: str | None = None
    label: str | None = None
    keep_config: bool = False
    latest: bool = False
    node_env: tuple[tuple[str, str], ...] = ()
    ports: str = "fixed"
    stop_grace_s: float = 10.0
    orphan_grace_s: float = 600.0
    staging_timeout_s: float = 600.0
    gates: tuple[str, ...] = ()


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """Return plain data that `parse_plan` reads back to an equal plan."""
    data: dict[str, Any] = {field: getattr(plan, field) for field in Plan.__slots__}
    data["nodes"] = [
        {
            "name": node.name,
            "source": node.source,
            "host": node.host,
            "port": node.port,
            "roles": list(node.roles),
            "env": dict(node.env),
        }
        for node in plan.nodes
    ]
    data["node_env"] = dict(plan.node_env)
    data["gates"] = list(plan.gates)
    return data


def longest_round_s(plan: Plan) -> float:
    """Return how long a round takes if every call of it runs into its time-out."""
    rechecks = plan.miss_recheck_attempts
    # A dating read begun just before the end of its wait reaches beyond it.
    calls = _CALLS_PER_ROUND + rechecks + (plan.read_every_s > 0)
    waits_s = plan.wait_publish_s + plan.wait_search_s + plan.wait_between_s
    return waits_s + rechecks * plan.miss_recheck_delay_s + calls * CALL_TIMEOUT_S


def running_s(plan: Plan) -> float:
    """Return how long rounds may start; without a deadline, the longest they can take."""
    if plan.duration_s is not None:
        return plan.duration_s
    return (plan.rounds or 0) * longest_round_s(plan)


def ladder_s(plan: Plan) -> float:
    """Return how long the stop ladder may take."""
    return plan.stop_grace_s + _LADDER_TAIL_S


def latest_end_s(plan: Plan) -> float:
    """Return the latest end of a run, in seconds after the start of its staging."""
    return (
        plan.staging_timeout_s
        + plan.ready_timeout_s
        + running_s(plan)
        + longest_round_s(plan)
        + ladder_s(plan)
    )
