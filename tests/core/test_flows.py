"""Which nodes a round is about, for every rule of pairs and every scenario."""

from __future__ import annotations

from collections import Counter
from typing import Any

from soakd.core.flows import flow_at, pairs_of
from soakd.core.plan import Plan, parse_plan
from soakd.core.section import Section
from tests.core.helpers import make_plan, plan_data

BOTH = ["publisher", "searcher"]


def plan_of(count: int, **changes: Any) -> Plan:
    """A plan of so many nodes `n0`, `n1`, …, all of which do everything."""
    node = plan_data()["nodes"][0]
    nodes = [
        {**node, "name": f"n{place}", "port": 20000 + place, "roles": BOTH}
        for place in range(count)
    ]
    return parse_plan(plan_data(nodes=nodes, **changes))


def test_by_default_the_first_publisher_and_the_first_searcher_are_asked() -> None:
    """In every round."""
    flows = {flow_at(make_plan(), index) for index in range(5)}
    assert [flow.name for flow in flows] == ["source:a>b"]


def test_round_robin_gives_every_pair_its_turn_and_every_node_a_part_early() -> None:
    """Neighbours first: after as many rounds as nodes each has published once."""
    plan = plan_of(4, pairs="round_robin")
    pairs = [flow_at(plan, index)[1:3] for index in range(24)]
    assert pairs[:4] == [("n0", "n1"), ("n1", "n2"), ("n2", "n3"), ("n3", "n0")]
    assert Counter(pairs) == dict.fromkeys(pairs_of(plan), 2)
    assert len(pairs_of(plan)) == 12


def test_all_to_all_visits_every_pair_once_per_turn_in_a_seeded_order() -> None:
    """Another seed and another turn have another order, the same seed has the same."""

    def turn(seed: int, number: int) -> list[str]:
        plan = plan_of(5, pairs="all_to_all", pair_seed=seed)
        return [flow_at(plan, 20 * number + index).name for index in range(20)]

    assert len(set(turn(1, 0))) == 20
    assert turn(1, 0) == turn(1, 0)
    assert turn(1, 0) != turn(1, 1)
    assert turn(1, 1) != turn(2, 0)


def test_roles_bound_the_pairs() -> None:
    """Who only publishes is never searched on."""
    data = plan_data(pairs="round_robin")
    data["nodes"].append({**data["nodes"][1], "name": "c", "port": 20009, "roles": BOTH})
    plan = parse_plan(data)
    assert set(pairs_of(plan)) == {("a", "b"), ("a", "c"), ("c", "b")}


def test_a_self_test_goes_there_and_back() -> None:
    """Keyword to oneself and to the other, which shares the publish; source; then the reverse."""
    plan = make_plan(scenario="dht_selftest")
    flows = [flow_at(plan, index) for index in range(12)]
    there = ["keyword:a>a", "keyword:a>b", "source:a>b"]
    back = ["keyword:b>b", "keyword:b>a", "source:b>a"]
    assert [flow.name for flow in flows] == (there + back) * 2
    assert [flow.publishes for flow in flows[:3]] == [True, False, True]
    assert [flow.rests for flow in flows[:3]] == [False, True, True]


def test_a_keyword_probe_is_of_keywords() -> None:
    """One flow a round."""
    assert flow_at(make_plan(scenario="keyword_probe"), 3).name == "keyword:a>b"


def test_a_measurement_counts_from_the_round_before_it() -> None:
    """Its flows begin anew, its rounds are as many as it was asked for, times the flows."""
    section = Section(2, make_plan(scenario="dht_selftest", rounds=1), base=10)
    assert section.columns(11, cold=True) == ("2", "a", "a", "keyword:a>a", True)
    assert section.flow(16).name == "source:b>a"
    assert [section.has_all(last) for last in (10, 15, 16)] == [False, False, True]
    assert not Section(1, make_plan(duration_s=5)).has_all(10**6)
