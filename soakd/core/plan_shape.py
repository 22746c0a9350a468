"""The shape of a plan and the times that follow from it. Import from `soakd.core.plan`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

CALL_TIMEOUT_S: Final = 12.0
"""Longest time of one call to a node, connecting included."""

DEFAULT_DURATION_S: Final = 1800.0
MAX_DURATION_S: Final = 14 * 86400.0
MAX_ROUNDS: Final = 1_000_000
DEFAULT_KEEP_S: Final = 12 * 3600.0
"""How long nodes without rounds are kept."""

KEPT_ROUND_S: Final = 900.0
"""The longest round, at least, that kept nodes leave room for."""

# SIGTERM's 3 s, the sweep's 10 s, and a margin for the shim to reply.
_LADDER_TAIL_S: Final = 15.0
# Publish, early read, search, deciding read, the status of two nodes, and two reads of the
# publisher's own table: whether it answers, and what its id is.
_CALLS_PER_ROUND: Final = 8
# Peers and the routing table after it; all nodes are asked at the same time.
_CALLS_OF_SNAPSHOTS: Final = 2
# Health, status, peers, routing summary and buckets, a lookup, and routing once more.
_CALLS_BEFORE_ROUNDS: Final = 8
# The word that there is nothing to wait for needs its time too.
_NO_WARMUP_S: Final = 5.0
# Keyword to oneself, to the other, source; and back.
_SELFTEST_FLOWS: Final = 6


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node: where its folder is and where its API will listen.

    Attributes:
        env: Additions to this node's environment; they win over the plan's `node_env`.
        query: What it publishes as keyword; None: a word of the scenario's choice.
        file_id: The file it publishes under that keyword, 32 hex digits; None: a fresh one each
            time, since what was published once never expires.
        filename: The name of that file; None: made of the node's name.
        token_file: Where the token of a node stands that somebody else runs, absolute; such a node
            has no `source`.
    """

    name: str
    source: str
    host: str
    port: int
    roles: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    query: str | None = None
    file_id: str | None = None
    filename: str | None = None
    token_file: str | None = None

    @property
    def is_attached(self) -> bool:
        """Whether somebody else runs it: it is measured, never started or stopped."""
        return self.token_file is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a user asks for, frozen once submitted.

    Attributes:
        driver: What knows the nodes' program; which ones there are is not known here.
        duration_s: Time in which rounds may start; None: only `rounds` ends the run.
        rounds: Number of rounds; None: only the duration ends the run.
        read_every_s: Distance of dating reads, 0 = off.
        run_tag: Part of the nodes' session names.
        run_root: Where the node folders go; None: into the run's own folder.
        latest: Take a program that changed while the run was queued.
        node_env: Additions to the nodes' environment.
        gates: Conditions of the verdict; empty: the default ones.
        no_rounds: The nodes are kept for `duration_s`; rounds are asked for while they live.
        pairs: Which nodes a round is about: the first pair, each in turn, or each once per turn in
            an order drawn by `pair_seed`.
        warmup: Conditions on every node's status before the first round.
        warmup_on_timeout: `go_on` marks the rounds as cold, `end` ends the run.
        file_size_bytes: Said of files that are published under a keyword.
        wait_sources_s: In a self-test, from the search for a source to the read.
        peers_snapshot: When a self-test records the peers; so `routing_snapshot`.
    """

    scenario: str = "source_probe"
    driver: str = "rust_mule"
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
    no_rounds: bool = False
    pairs: str = "fixed"
    pair_seed: int = 0
    warmup: tuple[str, ...] = ()
    warmup_samples: int = 3
    warmup_check_s: float = 30.0
    warmup_timeout_s: float = 900.0
    warmup_on_timeout: str = "go_on"
    file_size_bytes: int = 123
    file_type: str | None = None
    wait_sources_s: float = 15.0
    debug_lookup: bool = False
    peers_snapshot: str = "each"
    routing_snapshot: str = "each"

    @property
    def is_attached(self) -> bool:
        """Whether somebody else runs its nodes; of one plan it is all of them, or none."""
        return any(node.is_attached for node in self.nodes)


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
            **{
                key: value
                for key in ("query", "file_id", "filename", "token_file")
                if (value := getattr(node, key)) is not None
            },
        }
        for node in plan.nodes
    ]
    data["node_env"] = dict(plan.node_env)
    data["gates"] = list(plan.gates)
    data["warmup"] = list(plan.warmup)
    return data


def flows_per_round(plan: Plan) -> int:
    """Return how many flows, each with an outcome of its own, make one of the plan's `rounds`."""
    return _SELFTEST_FLOWS if plan.scenario == "dht_selftest" else 1


def longest_round_s(plan: Plan) -> float:
    """Return how long one flow takes if every call of it runs into its time-out."""
    rechecks = plan.miss_recheck_attempts
    # A dating read begun just before the end of its wait reaches beyond it.
    calls = _CALLS_PER_ROUND + rechecks + (plan.read_every_s > 0)
    wait_search_s = plan.wait_search_s
    if plan.scenario == "dht_selftest":
        calls += _CALLS_OF_SNAPSHOTS
        wait_search_s = max(plan.wait_search_s, plan.wait_sources_s)
    waits_s = plan.wait_publish_s + wait_search_s + plan.wait_between_s
    whole_s = waits_s + rechecks * plan.miss_recheck_delay_s + calls * CALL_TIMEOUT_S
    # What will be asked for is not known yet, and the end of the run is promised all the same.
    return max(whole_s, KEPT_ROUND_S) if plan.no_rounds else whole_s


def warmup_s(plan: Plan) -> float:
    """Return how long it may take from ready nodes to the first round."""
    before_s = _CALLS_BEFORE_ROUNDS * CALL_TIMEOUT_S if plan.scenario == "dht_selftest" else 0.0
    return before_s + (plan.warmup_timeout_s if plan.warmup else _NO_WARMUP_S)


def running_s(plan: Plan) -> float:
    """Return how long rounds may start; without a deadline, the longest they can take."""
    if plan.duration_s is not None:
        return plan.duration_s
    return (plan.rounds or 0) * flows_per_round(plan) * longest_round_s(plan)


def ladder_s(plan: Plan) -> float:
    """Return how long the stop ladder may take."""
    return plan.stop_grace_s + _LADDER_TAIL_S


def latest_end_s(plan: Plan) -> float:
    """Return the latest end of a run, in seconds after the start of its staging."""
    return (
        plan.staging_timeout_s
        + plan.ready_timeout_s
        + warmup_s(plan)
        + running_s(plan)
        + longest_round_s(plan)
        + ladder_s(plan)
    )
