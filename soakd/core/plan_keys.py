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
    "scenario": Key("choice", choices=("source_probe", "dht_selftest", "keyword_probe")),
    "driver": Key("text"),
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
    "no_rounds": Key("flag"),
    "pairs": Key("choice", choices=("fixed", "round_robin", "all_to_all")),
    "pair_seed": Key("whole", 0, 2**31 - 1),
    "warmup": Key("list"),
    "warmup_samples": Key("whole", 1, 100),
    "warmup_check_s": Key("seconds", 0.05, 3600),
    "warmup_timeout_s": Key("seconds", 0, _DAY_S),
    "warmup_on_timeout": Key("choice", choices=("go_on", "end")),
    "file_size_bytes": Key("whole", 1, 4_000_000_000),
    "file_type": Key("text"),
    "wait_sources_s": Key("seconds", 0, _DAY_S),
    "debug_lookup": Key("flag"),
    "peers_snapshot": Key("choice", choices=("each", "first", "none")),
    "routing_snapshot": Key("choice", choices=("each", "first", "end", "none")),
}

NODE_KEYS: Final[Mapping[str, Key]] = {
    "name": Key("text"),
    "source": Key("path"),
    "host": Key("text"),
    "port": Key("whole", MIN_PORT, MAX_PORT),
    "roles": Key("list"),
    "env": Key("table"),
    "query": Key("text"),
    "file_id": Key("text"),
    "filename": Key("text"),
    "token_file": Key("path"),
}

SCENARIO_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "source_probe": {},
    "keyword_probe": {},
    # Those of the script that it replaces; `read_every_s` is its poll interval.
    "dht_selftest": {
        "rounds": 2,
        "wait_publish_s": 60.0,
        "wait_search_s": 45.0,
        "wait_between_s": 20.0,
        "read_every_s": 10.0,
        "miss_recheck_attempts": 0,
        "warmup": ("live_10m >= 3",),
    },
}
"""What a scenario puts in the place of the defaults below."""

_DEFAULTS: Final[Mapping[str, Any]] = {
    field.name: field.default
    for shape in (NodePlan, Plan)
    for field in fields(shape)
    if field.default is not MISSING
}


def default(name: str) -> Any:
    """Return the default of a key that has one, of most scenarios."""
    return _DEFAULTS[name]


def with_scenario(data: Mapping[str, object]) -> Mapping[str, object]:
    """Return the data of a plan with its scenario's own defaults for what is not given."""
    scenario = data.get("scenario")
    own = SCENARIO_DEFAULTS.get(scenario, {}) if isinstance(scenario, str) else {}
    if data.get("duration_s") is not None or data.get("no_rounds"):
        # Another end is given already.
        own = {key: value for key, value in own.items() if key != "rounds"}
    return {**own, **data}


def canonical(name: str) -> str:
    """Return the full name of a key: `wait_search` means `wait_search_s`."""
    full = name + UNIT_SUFFIX
    return full if name not in KEYS and full in KEYS else name
