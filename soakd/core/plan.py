"""Plans: the one place to import everything about them from.

A plan is read by `parse_plan` (plain data) or `plan_from_environment` (what the user typed),
travels as `plan_to_dict`, and never changes once it is submitted.
"""

from __future__ import annotations

from soakd.core.duration import parse_duration
from soakd.core.plan_env import (
    ENVIRONMENT_NAMES,
    ignored_node_env,
    parse_url,
    plan_from_environment,
)
from soakd.core.plan_parse import parse_plan
from soakd.core.plan_shape import (
    CALL_TIMEOUT_S,
    DEFAULT_DURATION_S,
    MAX_DURATION_S,
    NodePlan,
    Plan,
    flows_per_round,
    ladder_s,
    latest_end_s,
    longest_round_s,
    plan_to_dict,
    running_s,
    warmup_s,
)

IGNORED_NODE_ENV = ignored_node_env

__all__ = [
    "CALL_TIMEOUT_S",
    "DEFAULT_DURATION_S",
    "ENVIRONMENT_NAMES",
    "IGNORED_NODE_ENV",
    "MAX_DURATION_S",
    "NodePlan",
    "Plan",
    "flows_per_round",
    "ignored_node_env",
    "ladder_s",
    "latest_end_s",
    "longest_round_s",
    "parse_duration",
    "parse_plan",
    "parse_url",
    "plan_from_environment",
    "plan_to_dict",
    "running_s",
    "warmup_s",
]
