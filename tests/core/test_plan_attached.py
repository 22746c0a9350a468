"""Plans for nodes that somebody else runs: what they may say, and what makes no sense."""

from __future__ import annotations

from typing import Any

import pytest

from soakd.core.errors import UserError
from soakd.core.plan import Plan, parse_plan, plan_to_dict
from soakd.core.plan_file import read_plan_file

NODES = [
    {"name": name, "host": "127.0.0.1", "port": port, "token_file": f"/x/{name}", "roles": [role]}
    for name, port, role in (("a", 20_000, "publisher"), ("b", 20_001, "searcher"))
]
PLAN: dict[str, Any] = {"nodes": NODES, "run_tag": "t"}
FILE = """
[node.a]
token_file = "mule-a/data/api.token"
[node.b]
token_file = "/dist/mule-b/data/api.token"
"""


def _problems(**changes: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        parse_plan(PLAN | changes)
    problems = caught.value.details["problems"]
    assert isinstance(problems, list)
    return problems


def _of_file(text: str) -> Plan:
    file = read_plan_file(text, name="p.toml", folder="/plans", flags={}, run_tag_default="t")
    return file.variants[0].plan


def test_a_node_with_a_token_file_is_attached_to() -> None:
    """It has no folder; the plan travels and is read back the same."""
    plan = parse_plan(PLAN)
    assert plan.is_attached
    assert [(node.source, node.token_file) for node in plan.nodes] == [("", "/x/a"), ("", "/x/b")]
    assert parse_plan(plan_to_dict(plan)) == plan


def test_a_plan_of_ones_own_nodes_is_not_attached() -> None:
    """And it still needs its folders."""
    ours = [{**node, "token_file": None, "source": "/dist/mule"} for node in NODES]
    assert not parse_plan(PLAN | {"nodes": ours}).is_attached
    without = [{**node, "token_file": None} for node in NODES]
    assert _problems(nodes=without) == [f"nodes[{n}].source: cannot be missing" for n in (0, 1)]


def test_token_files_of_a_plan_file_start_at_its_folder() -> None:
    """As sources do."""
    files = [node.token_file for node in _of_file(FILE).nodes]
    assert files == ["/plans/mule-a/data/api.token", "/dist/mule-b/data/api.token"]


def test_a_node_is_started_or_attached_to() -> None:
    """Not both, and its token file is named in full."""
    nodes = [{**NODES[0], "source": "/dist/mule-a"}, {**NODES[1], "token_file": "b.token"}]
    assert _problems(nodes=nodes) == [
        "nodes[0].source: cannot be given beside token_file: a node is started or attached to",
        "nodes[1].token_file: cannot be a relative path, got 'b.token'",
    ]


def test_all_nodes_are_attached_or_none() -> None:
    """Half a pair cannot be staged."""
    ours = {**NODES[1], "token_file": None, "source": "/dist/mule-b"}
    (problem,) = _problems(nodes=[NODES[0], ours])
    assert problem == (
        "nodes: cannot be attached to in part: b without token_file;"
        " soakd runs all nodes of a plan, or none"
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ports", "auto"),
        ("no_rounds", True),
        ("run_root", "/tmp/root"),
        ("latest", True),
        ("keep_config", True),
        ("node_env", {"RUST_LOG": "debug"}),
        ("fresh_identity", False),
    ],
)
def test_what_presumes_nodes_of_ones_own_is_refused(key: str, value: object) -> None:
    """Each under its name, with the reason."""
    (problem,) = _problems(**{key: value})
    assert problem.startswith(f"{key}: cannot be given for nodes that somebody else runs: ")


def test_the_environment_of_a_node_that_runs_already_is_refused() -> None:
    """It would change nothing."""
    (problem,) = _problems(nodes=[NODES[0], {**NODES[1], "env": {"X": "y"}}])
    assert problem == (
        "nodes[1].env: cannot be given for a node that somebody else runs: it runs already"
    )


@pytest.mark.parametrize("gate", ["node_exits == 0", "abort panics == 0", "rss.trend < 5%/day"])
def test_gates_on_processes_nobody_here_knows_are_refused(gate: str) -> None:
    """They would be inconclusive for ever, or pass for nothing."""
    (problem,) = _problems(gates=["hit_rate >= 0.5", gate])
    assert problem.startswith("gates[1]: cannot judge nodes that somebody else runs: nobody here")


def test_problems_of_a_plan_file_have_their_lines() -> None:
    """Those of the plan's own keys, and those of gates."""
    with pytest.raises(UserError) as caught:
        _of_file('latest = true\ngates = ["panics == 0"]' + FILE)
    problems = caught.value.details["problems"]
    assert isinstance(problems, list)
    assert sorted(problem.split(": cannot")[0] for problem in problems) == [
        "p.toml:1: latest",
        "p.toml:2: gates[0]",
    ]
