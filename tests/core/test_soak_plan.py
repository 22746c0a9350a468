"""The plan of a soak on kept nodes."""

from __future__ import annotations

from typing import Any

import pytest

from soakd.core.errors import UserError
from soakd.core.plan import longest_round_s
from soakd.core.soak_plan import room_for, soak_plan
from tests.core.helpers import make_plan

KEPT = make_plan(no_rounds=True, wait_publish_s=3, gates=["rounds >= 1"])


def test_a_soak_has_the_waits_and_gates_of_its_run_and_five_hundred_rounds() -> None:
    """As `rust_mule_soak.sh soak` without a number."""
    plan = soak_plan(KEPT, {})
    assert (plan.rounds, plan.duration_s, plan.no_rounds) == (500, None, False)
    assert (plan.wait_publish_s, plan.gates) == (3, ("rounds >= 1",))
    timed = soak_plan(KEPT, {"duration_s": 60, "wait_search_s": 1, "gates": ["panics == 0"]})
    assert (timed.rounds, timed.duration_s, timed.wait_search_s) == (None, 60, 1)
    assert timed.gates == ("panics == 0",)


def test_another_scenario_has_its_own_defaults() -> None:
    """A self-test on nodes that were started for probes waits as a self-test does."""
    plan = soak_plan(KEPT, {"scenario": "dht_selftest"})
    assert (plan.rounds, plan.wait_publish_s, plan.warmup) == (2, 60, ("live_10m >= 3",))
    assert soak_plan(KEPT, {"scenario": "keyword_probe"}).rounds == 500


def test_what_nodes_publish_may_be_chosen_for_each_soak() -> None:
    """By name."""
    plan = soak_plan(KEPT, {"nodes": {"a": {"query": "word"}}})
    assert [node.query for node in plan.nodes] == ["word", None]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"run_root": "/x"}, "run_root: cannot be asked of nodes that are kept already"),
        ({"rounds": 0}, "rounds: cannot be outside 1"),
        ({"nodes": 3}, "nodes: cannot read what nodes publish, got 3"),
        ({"nodes": {"z": {}}}, "nodes.z: cannot change other than query, file_id, filename"),
        ({"nodes": {"a": {"port": 1}}}, "nodes.a: cannot change other than"),
        ({"gates": ["abort panics == 0"]}, "gates: cannot abort a soak on kept nodes"),
        ({"gates": ["panics"]}, "gates[0]: cannot read the gate"),
    ],
)
def test_what_cannot_be_asked_for_is_named(keys: dict[str, Any], problem: str) -> None:
    """All of it at once, as of any plan."""
    with pytest.raises(UserError) as caught:
        soak_plan(KEPT, keys)
    problems = caught.value.details["problems"]
    assert isinstance(problems, list)
    assert any(found.startswith(problem) for found in problems), problems


def test_a_kept_run_leaves_room_for_rounds_that_nobody_knows_yet() -> None:
    """Longer ones are refused with both numbers."""
    assert longest_round_s(KEPT) == 900
    assert room_for(900, 900, "r7") is None
    refusal = room_for(901, 900, "r7")
    assert refusal is not None
    assert "a round may take 901 s, r7 leaves room for 900 s" in refusal.message
