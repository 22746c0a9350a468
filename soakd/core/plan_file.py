"""Plan files: TOML to plans, with every problem at once and the line in which each stands.

A key that takes one value may be given a list of them: the file then is a *matrix* and makes a
group of runs, one for each combination. What a key means and which values it takes is decided by
`plan_parse`, for files as for everything else.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from soakd.core.errors import UserError
from soakd.core.plan_checks import show
from soakd.core.plan_env import with_flags
from soakd.core.plan_file_lines import Place, find_lines
from soakd.core.plan_file_matrix import Axis, combinations, find_axes, labels
from soakd.core.plan_file_names import Origins
from soakd.core.plan_file_shape import finished, given_keys, lay_over, plan_data
from soakd.core.plan_parse import MAX_LABEL_CHARS, read_plan
from soakd.core.plan_shape import Plan

MAX_CHARS: Final = 256 * 1024
_SYNTAX_AT: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_NODES: Final = "node."


class Variant(NamedTuple):
    """One run that a file asks for; `values` tell it from the others of its group."""

    plan: Plan
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class PlanFile:
    """What a file asks for.

    Attributes:
        variants: One plan, or those of a group.
        group: The common label of a group; None: the file is no matrix.
        axes: The keys that have lists.
        given: Names of the keys that the file or the flags give; all others have their defaults.
        sources: By node name, where its folder is named: `FILE:LINE: node.a.source`, or the token
            file of a node that somebody else runs.
    """

    variants: tuple[Variant, ...]
    group: str | None
    axes: tuple[Axis, ...]
    given: frozenset[str]
    sources: Mapping[str, str]


class PlanFileError(UserError):
    """A file that cannot be used.

    Attributes:
        plans: What could be read, so that the folders may be looked at nevertheless; a folder that
            could not be read is `/`.
        sources: As in `PlanFile`.
    """

    def __init__(
        self,
        problems: list[str],
        plans: tuple[Plan, ...] = (),
        sources: Mapping[str, str] | None = None,
    ) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(
            "bad_plan", f"cannot use the plan: {problems[0]}{more}", {"problems": problems}
        )
        self.plans = plans
        self.sources = sources or {}


def read_plan_file(
    text: str, *, name: str, folder: str, flags: Mapping[str, object], run_tag_default: str
) -> PlanFile:
    """Read a plan file and the flags that go with it, which win.

    Args:
        text: The TOML.
        name: What problems call the file; its stem is the label of a group without any.
        folder: Where relative paths of the file start, absolute.
        flags: As `plan_from_environment` takes them; `set` may name keys of nodes as well, as
            `node.b.source=/dist/new`.
        run_tag_default: The run tag if neither names one.

    Raises:
        PlanFileError: With code `bad_plan` and all problems in `details["problems"]`, in the
            order of lines.
    """
    content, lines = _read_toml(text, name)
    flags, for_nodes, unreadable = _split_sets(flags)
    content, refused = lay_over(content, for_nodes)
    origins = Origins(name, lines, for_nodes)
    problems = origins.problems
    for pair in [*unreadable, *(".".join(map(str, place)) for place in refused)]:
        what = "cannot set a key of a node, expected node.NAME.KEY=VALUE"
        problems.add("--set", f"{what}, got {show(pair)}")
    data = plan_data(content, origins, folder)
    data = with_flags(data, flags, origins.names, problems)
    given = frozenset(given_keys(data))
    data.setdefault("run_tag", run_tag_default)
    axes = find_axes(data, problems)
    variants = []
    for combination in combinations(data, axes, problems):
        for path, index in combination.indices.items():
            origins.note_element(path, index)
        plan = read_plan(finished(combination.data, origins), problems)
        variants.append(Variant(plan, combination.values))
    group = None
    if axes:
        group = variants[0].plan.label or _stem(name)
        variants = _labelled(group, variants, origins)
    sources = {
        node.name: origins.names[f"nodes[{index}].{'token_file' if node.is_attached else 'source'}"]
        for index, node in enumerate(variants[0].plan.nodes)
    }
    if problems.found:
        plans = tuple(variant.plan for variant in variants)
        raise PlanFileError(problems.listed(), plans, sources)
    return PlanFile(tuple(variants), group, axes, given, sources)


def _read_toml(text: str, name: str) -> tuple[dict[str, Any], Mapping[Place, int]]:
    """Read the text, or say where it cannot be read; nothing behind that place is looked at."""
    if len(text) > MAX_CHARS:
        raise PlanFileError([f"{name}: cannot be longer than {MAX_CHARS} characters"])
    try:
        return tomllib.loads(text), find_lines(text)
    except tomllib.TOMLDecodeError as error:
        found = _SYNTAX_AT.search(str(error))
        line = found[1] if found and found[1] else text.rstrip().count("\n") + 1
        why = _SYNTAX_AT.sub("", str(error))
        problem = f"{name}:{line}: cannot read TOML: {why[:1].lower()}{why[1:]}"
        raise PlanFileError([problem]) from error
    except RecursionError as error:
        raise PlanFileError([f"{name}: cannot read TOML that is nested so deeply"]) from error


def _split_sets(
    flags: Mapping[str, object],
) -> tuple[dict[str, object], dict[Place, str], list[str]]:
    """Divide `set` into what is for the plan, what is for nodes, and what cannot be read."""
    pairs = flags.get("set") or ()
    rest: list[str] = []
    for_nodes: dict[Place, str] = {}
    unreadable: list[str] = []
    for pair in map(str, pairs) if isinstance(pairs, list | tuple) else ():
        path, equals, text = pair.partition("=")
        place = tuple(path.split("."))
        if not path.startswith(_NODES):
            rest.append(pair)
        elif equals and len(place) > 2 and all(place):
            for_nodes[place] = text
        else:
            unreadable.append(pair)
    return {**flags, "set": rest}, for_nodes, unreadable


def _labelled(group: str, variants: list[Variant], origins: Origins) -> list[Variant]:
    """Give each run of a group its label: the group's, and what tells it from the others."""
    texts = labels(group, [variant.values for variant in variants], MAX_LABEL_CHARS)
    longest = max(map(len, texts))
    if longest > MAX_LABEL_CHARS:
        room = MAX_LABEL_CHARS - (longest - len(group))
        what = f"cannot be longer than {room} characters for a group of {len(texts)} runs"
        origins.problems.add("label", f"{what}, got {show(group)}")
    return [
        Variant(replace(variant.plan, label=text), variant.values)
        for variant, text in zip(variants, texts, strict=True)
    ]


def _stem(name: str) -> str:
    base = name.rpartition("/")[2]
    stem = base.rpartition(".")[0] or base
    return stem if stem.isprintable() and stem.strip("-. ") else "plan"
