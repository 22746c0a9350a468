"""Matrices: a plan file in which single values are given as lists makes a group of runs.

Pure data in, pure data out: `plan_file` calls it between reading the file and parsing the plans.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from soakd.core.plan_checks import Problems, show
from soakd.core.plan_file_lines import Place
from soakd.core.plan_keys import KEYS
from soakd.core.plan_shape import Plan, plan_to_dict

MAX_RUNS: Final = 64
# One label names the group; one tag goes into the session names of all, which have the run's id.
_OF_THE_GROUP: Final = frozenset({"label", "run_tag"})
_NODE_AXES: Final = ("source", "url", "host", "port")


class Axis(NamedTuple):
    """A key with several values.

    Attributes:
        name: As the user writes it, `node.b.source`.
        path: As the parser of plans names it, `nodes[1].source`.
        route: Where it is in the data of a plan.
        values: Two or more, or the one that was given as a list.
    """

    name: str
    path: str
    route: Place
    values: tuple[object, ...]


class Combination(NamedTuple):
    """The data of one run of the group.

    Attributes:
        data: As `plan_data` made it, with single values.
        indices: By path, which value of the list was taken.
        values: By the name of the axis.
    """

    data: Mapping[str, Any]
    indices: Mapping[str, int]
    values: Mapping[str, object]


def find_axes(data: Mapping[str, Any], problems: Problems) -> tuple[Axis, ...]:
    """Return the keys that have a list where one value belongs, in the order of the data."""
    axes = []
    for axis in _lists(data):
        if not axis.values:
            problems.add(axis.path, "cannot be an empty list: give one value or several")
            continue
        for index, value in enumerate(axis.values):
            if any(value == other for other in axis.values[:index]):
                problems.add(axis.path, f"cannot have the same value twice, got {show(value)}")
        axes.append(axis)
    return tuple(axes)


def combinations(
    data: Mapping[str, Any], axes: Sequence[Axis], problems: Problems
) -> Iterator[Combination]:
    """Yield every combination of values, the last axis changing fastest; at least one."""
    count = math.prod(len(axis.values) for axis in axes)
    choices: list[Sequence[int]] = [range(len(axis.values)) for axis in axes]
    if count > MAX_RUNS:
        problems.add(axes[-1].path, f"cannot make more than {MAX_RUNS} runs of a plan, got {count}")
        choices = [(0,) for _ in axes]
    for chosen in itertools.product(*choices):
        changed: Any = data
        for axis, index in zip(axes, chosen, strict=True):
            changed = _with(changed, axis.route, axis.values[index])
        pairs = list(zip(axes, chosen, strict=True))
        yield Combination(
            changed,
            {axis.path: index for axis, index in pairs},
            {axis.name: axis.values[index] for axis, index in pairs},
        )


def labels(group: str, runs: Sequence[Mapping[str, object]], max_chars: int) -> list[str]:
    """Return a label for each run of a group: its values or, where they are too long, its number.

    `in_group` knows them again.
    """
    texts = [
        f"{group}: {', '.join(f'{name}={value_text(value)}' for name, value in values.items())}"
        for values in runs
    ]
    if all(len(text) <= max_chars and text.isprintable() for text in texts):
        return texts
    return [f"{group}: {number} of {len(runs)}" for number in range(1, len(runs) + 1)]


def in_group(label: object, group: str) -> bool:
    """Return whether a run of that label belongs to a group, or bears its label alone."""
    return label == group or str(label).startswith(f"{group}: ")


def value_text(value: object) -> str:
    """Return a value as it is read best: `20`, `0.5`, `true`, `/dist/new`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def differences(plans: Sequence[Plan]) -> list[dict[str, object]]:
    """Return for each plan the values of those keys in which not all plans agree.

    Label and run tag are left out: they differ by design.
    """
    flat = [dict(_flat(plan_to_dict(plan))) for plan in plans]
    names = dict.fromkeys(name for values in flat for name in values)
    differing = [
        name for name in names if any(values.get(name) != flat[0].get(name) for values in flat)
    ]
    return [{name: values.get(name) for name in differing} for values in flat]


def _lists(data: Mapping[str, Any]) -> Iterator[Axis]:
    for field, value in data.items():
        key = KEYS.get(field)
        if isinstance(value, list) and key and key.is_single and field not in _OF_THE_GROUP:
            yield Axis(field, field, (field,), tuple(value))
    yield from _env_lists(data.get("node_env"), "node.env", "node_env", ("node_env",))
    nodes = data.get("nodes")
    for index, node in enumerate(nodes if isinstance(nodes, list) else ()):
        if not isinstance(node, Mapping):
            continue
        name, path, route = f"node.{node.get('name')}", f"nodes[{index}]", ("nodes", index)
        for part in _NODE_AXES:
            if isinstance(node.get(part), list):
                yield Axis(f"{name}.{part}", f"{path}.{part}", (*route, part), tuple(node[part]))
        yield from _env_lists(node.get("env"), f"{name}.env", f"{path}.env", (*route, "env"))


def _env_lists(table: object, name: str, path: str, route: Place) -> Iterator[Axis]:
    for key, value in table.items() if isinstance(table, Mapping) else ():
        if isinstance(value, list):
            yield Axis(f"{name}.{key}", f"{path}.{key}", (*route, key), tuple(value))


def _with(data: Any, route: Place, value: object) -> Any:
    """Return a copy that has another value at the end of the route; the rest is shared."""
    if not route:
        return value
    changed: Any = list(data) if isinstance(data, list) else dict(data)
    changed[route[0]] = _with(data[route[0]], route[1:], value)
    return changed


def _flat(data: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for field, value in data.items():
        if field == "nodes":
            for node in value:
                yield from _flat_node(node)
        elif field == "node_env":
            yield from ((f"node.env.{name}", text) for name, text in value.items())
        elif field not in _OF_THE_GROUP:
            yield field, value


def _flat_node(node: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    name = f"node.{node['name']}"
    for key, value in node.items():
        if key == "env":
            yield from ((f"{name}.env.{variable}", text) for variable, text in value.items())
        elif key != "name":
            yield f"{name}.{key}", value
