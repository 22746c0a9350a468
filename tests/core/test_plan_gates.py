"""Gates of a plan, of a plan file and of the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from soakd.core.errors import UserError
from soakd.core.plan import Plan, parse_plan, plan_from_environment
from soakd.core.plan_file import read_plan_file

NODES = [
    {"name": "a", "source": "/a", "host": "127.0.0.1", "port": 20000, "roles": ["publisher"]},
    {"name": "b", "source": "/b", "host": "127.0.0.1", "port": 20001, "roles": ["searcher"]},
]
PLAN = {"nodes": NODES, "run_tag": "t"}


def _of_file(flags: list[str], **content: Any) -> Plan:
    keys = [f"{key} = {json.dumps(value)}\n" for key, value in content.items()]
    text = "".join(keys) + '[node.a]\nsource = "/a"\n[node.b]\nsource = "/b"\n'
    file = read_plan_file(
        text, name="p.toml", folder="/", flags={"gates": flags}, run_tag_default="t"
    )
    return file.variants[0].plan


def _problems(raised: pytest.ExceptionInfo[UserError]) -> list[str]:
    problems = raised.value.details["problems"]
    assert isinstance(problems, list)
    return problems


def test_gates_of_the_command_line_come_behind_those_of_the_plan_file() -> None:
    """Both hold; without a plan file they are the plan's own."""
    plan = _of_file(["abort panics==0"], gates=["hit_rate >= 85%"])
    assert plan.gates == ("hit_rate >= 85%", "abort panics == 0")
    assert _of_file(["rounds >= 3"]).gates == ("rounds >= 3",)
    flags = {"gates": ["rounds >= 3"]}
    assert plan_from_environment({}, cwd="/x", flags=flags, run_tag_default="t").gates == (
        "rounds >= 3",
    )


def test_all_problems_of_all_gates_are_said_at_once() -> None:
    """Each under the name that the user wrote it as, each with everything that is wrong with it."""
    with pytest.raises(UserError) as raised:
        _of_file(
            ["hits >= 3", "abort measured >= 5s over last 3s"],
            gates=["rounds >= 1", "errors <= 200%"],
        )
    of_file, first, second = _problems(raised)
    assert of_file.startswith("p.toml:1: gates[1]: cannot judge 'errors' by 2")
    assert first.startswith("--gate: cannot judge 'hits'")
    assert second.count("cannot ") == 3


def test_a_gate_on_a_node_that_the_plan_has_not_is_a_problem() -> None:
    """It would be inconclusive for ever."""
    with pytest.raises(UserError) as raised:
        parse_plan(PLAN | {"gates": ["rss.trend < 5%/day on node z"]})
    assert _problems(raised) == ["gates[0]: cannot judge node z: the nodes are a, b"]
    assert parse_plan(PLAN | {"gates": ["rss.trend < 5%/day on node b"]}).gates


def test_a_plan_file_whose_gates_are_no_list_says_so() -> None:
    """Also where the command line adds some."""
    with pytest.raises(UserError) as raised:
        _of_file(["rounds >= 1"], gates="rounds >= 1")
    assert _problems(raised) == ["p.toml:1: gates: cannot read a list, got 'rounds >= 1'"]
