"""Plans as TOML that `start --plan` takes: what `plan show` and `plan check` print."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from soakd.core.plan_keys import KEYS, NODE_KEYS
from soakd.core.plan_shape import NodePlan, Plan

_DEFAULT_NOTE: Final = "  # default"


def plan_to_toml(
    plan: Plan,
    *,
    lists: Mapping[str, Sequence[object]] | None = None,
    given: Collection[str] | None = None,
    with_tag: bool = True,
) -> str:
    """Write a plan so that it can be read back to an equal one.

    Args:
        plan: With all defaults filled in.
        lists: By name of a key (`node.b.source`), the values of a matrix in place of the plan's.
        given: Names of the keys that somebody has chosen; others are marked as defaults. None:
            nothing is marked.
        with_tag: Without it the run tag is a comment, and a run of the text gets one of its own.
    """
    writer = _Writer(lists or {}, given)
    lines = list(writer.plan(plan, with_tag=with_tag))
    for node in plan.nodes:
        lines += writer.node(node)
    return "\n".join(lines) + "\n"


class _Writer:
    """One text; knows what replaces values and what is marked."""

    def __init__(
        self, lists: Mapping[str, Sequence[object]], given: Collection[str] | None
    ) -> None:
        self._lists = lists
        self._given = given

    def plan(self, plan: Plan, *, with_tag: bool) -> Iterator[str]:
        """Yield what stands before the nodes."""
        for name in KEYS:
            if name in {"nodes", "node_env"}:
                continue
            value = getattr(plan, name)
            if name == "run_tag" and not with_tag:
                yield f"# run_tag = {_toml(value)}: each run gets one of its own"
            # TOML has no null: a key that is absent says it.
            elif value is not None:
                yield self._pair(name, name, value)
        yield from self._env("node.env", plan.node_env)

    def node(self, node: NodePlan) -> Iterator[str]:
        """Yield the table of a node."""
        table = f"node.{node.name}"
        yield ""
        yield f"[{table}]"
        for key in NODE_KEYS:
            if key in {"name", "env"} or (
                f"{table}.url" in self._lists and key in {"host", "port"}
            ):
                continue
            value = getattr(node, key)
            if value is not None and not (key == "source" and node.is_attached):
                yield self._pair(f"{table}.{key}", key, value)
        if f"{table}.url" in self._lists:
            yield self._pair(f"{table}.url", "url", "")
        yield from self._env(f"{table}.env", node.env)

    def _env(self, table: str, variables: Sequence[tuple[str, str]]) -> Iterator[str]:
        if variables:
            yield ""
            yield f"[{table}]"
            for name, text in variables:
                yield self._pair(f"{table}.{name}", name, text, is_choice=True)

    def _pair(self, name: str, key: str, value: object, *, is_choice: bool = False) -> str:
        chosen = is_choice or self._given is None or name in self._given
        return f"{key} = {_toml(self._lists.get(name, value))}{'' if chosen else _DEFAULT_NOTE}"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str):
        # JSON's escapes are TOML's; plans have no control characters, which alone would differ.
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)
