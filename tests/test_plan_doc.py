"""docs/plan.md says what the code says of every key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from soakd.core.gates import ATTACHED_GATES, NEED_PROCESSES
from soakd.core.plan import DEFAULT_DURATION_S
from soakd.core.plan_attached import REFUSED
from soakd.core.plan_file import PlanFile, read_plan_file
from soakd.core.plan_file_matrix import value_text
from soakd.core.plan_keys import KEYS, NODE_KEYS, SCENARIO_DEFAULTS, Key
from soakd.core.plan_nodes import MAX_ENV, MAX_NODES
from soakd.core.plan_parse import MAX_GATES
from soakd.core.plan_shape import NodePlan, Plan
from soakd.edge.config import Config

DOC = (Path(__file__).resolve().parents[1] / "docs" / "plan.md").read_text()
ROW = re.compile(r"^\| `(\w+)`" + r" \| ([^|]+)" * 5 + r" \|$", re.MULTILINE)
TWO_NODES = '[node.a]\nsource = "/a"\n[node.b]\nsource = "/b"\n'


def rows(heading: str) -> dict[str, tuple[str, ...]]:
    """The cells behind the key of each row below a heading."""
    text = DOC.split(f"## {heading}\n")[1].split("\n## ")[0]
    return {key: tuple(cells) for key, *cells in ROW.findall(text)}


def read(text: str) -> PlanFile:
    """A plan file as the user's would be read."""
    return read_plan_file(text, name="p.toml", folder="/", flags={}, run_tag_default="tag")


def limits(key: Key) -> str | None:
    """How the document writes what a key takes; None: in words."""
    if key.kind == "choice":
        return ", ".join(key.choices)
    return f"{key.low:.10g} to {key.high:.10g}" if key.kind in {"seconds", "whole"} else None


def test_every_key_has_its_row_and_no_row_is_too_many() -> None:
    """The plan's keys and the node's; the table behind both is that of the parser."""
    assert set(rows("Keys of the plan")) == set(KEYS) == set(Plan.__slots__)
    assert set(rows("Keys of a node")) == {*NODE_KEYS, "url", "count"}
    assert set(NODE_KEYS) == set(NodePlan.__slots__)


@pytest.mark.parametrize("name", KEYS)
def test_a_key_of_the_plan_is_as_the_row_says(name: str) -> None:
    """Type, unit, default and limits; the default is what the smallest file gets."""
    kind, unit, default, bounds, meaning = rows("Keys of the plan")[name]
    key = KEYS[name]
    assert kind == key.kind
    assert unit == ("s" if key.kind == "seconds" else "–")
    if limits(key) is not None:
        assert bounds == limits(key)
    if default not in {"required", "made"}:
        given = getattr(read(TWO_NODES).variants[0].plan, name)
        assert default == ("none" if given in {None, ()} else value_text(given))
    assert meaning


@pytest.mark.parametrize("name", NODE_KEYS)
def test_a_key_of_a_node_is_as_the_row_says(name: str) -> None:
    """Type and limits."""
    kind, unit, _default, bounds, meaning = rows("Keys of a node")[name]
    assert (kind, unit) == (NODE_KEYS[name].kind, "–")
    if limits(NODE_KEYS[name]) is not None:
        assert bounds == limits(NODE_KEYS[name])
    assert meaning


def test_defaults_of_nodes_are_as_the_rows_say() -> None:
    """By the order of the tables."""
    table = rows("Keys of a node")
    nodes = read(TWO_NODES).variants[0].plan.nodes
    assert table["port"][2] == ", ".join([*(str(node.port) for node in nodes), "…"])
    assert table["roles"][2] == f"{nodes[0].roles[0]}, then {nodes[1].roles[0]}"
    assert {table["host"][2]} == {node.host for node in nodes}
    assert [node.env for node in nodes] == [(), ()]


def test_numbers_in_words_are_the_parsers() -> None:
    """Limits that are counts of entries, and the duration's default."""
    table = rows("Keys of the plan")
    assert table["gates"][3] == str(MAX_GATES)
    assert table["nodes"][3] == f"2 to {MAX_NODES}"
    assert table["node_env"][3] == f"{MAX_ENV} variables"
    assert table["duration_s"][2] == value_text(DEFAULT_DURATION_S)


def test_the_example_is_a_plan_file() -> None:
    """A group of three, as the text beside it says."""
    example = re.findall(r"```toml\n(.*?)```", DOC, re.DOTALL)[0]
    file = read(example)
    assert file.group == "nightly"
    assert [v.plan.label for v in file.variants] == [
        f"nightly: wait_search_s={seconds}" for seconds in (10, 20, 40)
    ]
    assert "nightly: wait_search_s=10" in DOC


def test_the_defaults_of_a_scenario_are_as_its_rows_say() -> None:
    """What a plan file that only names the scenario gets."""
    text = DOC.split("## Scenarios\n")[1].split("\n## ")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|$", text, re.MULTILINE))
    plan = read('scenario = "dht_selftest"\n' + TWO_NODES).variants[0].plan
    assert set(told) == set(SCENARIO_DEFAULTS["dht_selftest"])
    for name, words in told.items():
        value = getattr(plan, name)
        shown = value[0] if isinstance(value, tuple) else value_text(value)
        assert words.split(" (")[0] == shown


def test_the_example_with_several_nodes_is_a_plan_file() -> None:
    """Twenty nodes with names and ports counted up, all of which do everything."""
    example = re.findall(r"```toml\n(.*?)```", DOC, re.DOTALL)[1]
    nodes = read(example).variants[0].plan.nodes
    assert [node.name for node in nodes] == [*(f"old{n}" for n in range(1, 20)), "new"]
    assert [node.port for node in nodes] == list(range(17835, 17855))
    assert {node.roles for node in nodes} == {("publisher", "searcher")}


def test_the_example_with_attached_nodes_is_a_plan_file() -> None:
    """Two nodes without folders; what the text says is refused is refused by the parser."""
    example = re.findall(r"```toml\n(.*?)```", DOC, re.DOTALL)[2]
    plan = read(example).variants[0].plan
    assert plan.is_attached
    text = DOC.split("## Nodes that somebody else runs\n")[1].split("\n## ")[0]
    refused = text.split("What presumes")[1]
    for key in REFUSED:
        assert f"`{key}" in refused or key == "node_env", key
    for metric in NEED_PROCESSES:
        assert f"`{metric}`" in refused
    for gate in ATTACHED_GATES:
        assert f"`{gate.text}`" in text
    assert f"`attached_per_user` ({Config().attached_per_user})" in text
