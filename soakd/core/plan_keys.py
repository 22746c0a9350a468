"""Every key of a plan: what it is, its limits, and what a reader of `docs/plan.md` needs.

The one place for limits and kinds: the parser checks by it, variables, flags and plan files are
read by it, and a test holds the document against it. Names and defaults are those of `Plan` and
`NodePlan`. Not here: rules that tie two keys together; they are code in `plan_parse`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from soakd.core.plan_shape import MAX_DURATION_S, MAX_ROUNDS, NodePlan, Plan

Kind: TypeAlias = Literal["seconds", "whole", "flag", "choice", "text", "path", "list", "table"]
"""`seconds` also take text as people write durations; only `list` and `table` have parts."""

_DAY_S: Final = 86400.0
UNIT_SUFFIX: Final = "_s"
MIN_PORT: Final = 1024
MAX_PORT: Final = 65535


class Key(NamedTuple):
    """One key; `low` and `high` bound numbers, both included."""

    kind: Kind
    low: float = 0
    high: float = 0
    choices: tuple[str, ...] = ()

    @property
    def is_single(self) -> bool:
        """Whether its value is one value, so that a list of them makes a group of runs."""
        return self.kind not in {"list", "table"}


KEYS: Final[Mapping[str, Key]] = {
    "scenario": Key("choice", choices=("source_probe",)),
    "nodes": Key("list"),
    "duration_s": Key("seconds", 1, MAX_DURATION_S),
    "rounds": Key("whole", 1, MAX_ROUNDS),
    "wait_publish_s": Key("seconds", 0, _DAY_S),
    "wait_search_s": Key("seconds", 0, _DAY_S),
    "wait_between_s": Key("seconds", 0, _DAY_S),
    "read_every_s": Key("seconds", 0, _DAY_S),
    "miss_recheck_attempts": Key("whole", 0, 100),
    "miss_recheck_delay_s": Key("seconds", 0, _DAY_S),
    "ready_timeout_s": Key("seconds", 1, _DAY_S),
    "fresh_identity": Key("flag"),
    "run_tag": Key("text"),
    "run_root": Key("path"),
    "label": Key("text"),
    "keep_config": Key("flag"),
    "latest": Key("flag"),
    "node_env": Key("table"),
    "ports": Key("choice", choices=("fixed", "auto")),
    "stop_grace_s": Key("seconds", 0, 3600),
    "orphan_grace_s": Key("seconds", 1, MAX_DURATION_S),
    "staging_timeout_s": Key("seconds", 1, _DAY_S),
    "gates": Key("list"),
}

NODE_KEYS: Final[Mapping[str, Key]] = {
    "name": Key("text"),
    "source": Key("path"),
    "host": Key("text"),
    "port": Key("whole", MIN_PORT, MAX_PORT),
    "roles": Key("list"),
    "env": Key("table"),
}

_DEFAULTS: Final[Mapping[str, Any]] = {
    field.name: field.default
    for shape in (NodePlan, Plan)
    for field in fields(shape)
    if field.default is not MISSING
}


def default(name: str) -> Any:
    """Return the default of a key that has one."""
    return _DEFAULTS[name]


def canonical(name: str) -> str:
    """Return the full name of a key: `wait_search` means `wait_search_s`."""
    full = name + UNIT_SUFFIX
    return full if name not in KEYS and full in KEYS else name
