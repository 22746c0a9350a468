"""Plans as data: defaults, every check, and the times that follow."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soakd.core.errors import UserError
from soakd.core.plan import (
    CALL_TIMEOUT_S,
    Plan,
    flows_per_round,
    ladder_s,
    latest_end_s,
    longest_round_s,
    parse_duration,
    parse_plan,
    plan_to_dict,
    running_s,
    warmup_s,
)
from tests.core.helpers import make_plan, plan_data, steady


def _problems(**changes: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        parse_plan(plan_data(**changes))
    assert caught.value.code == "bad_plan"
    problems = caught.value.details["problems"]
    assert isinstance(problems, list)
    return problems


def _with_node(**changes: Any) -> dict[str, Any]:
    nodes = plan_data()["nodes"]
    nodes[0].update(changes)
    return {
        "nodes": [{key: value for key, value in nodes[0].items() if value is not ...}, nodes[1]]
    }


def test_the_smallest_plan_takes_the_defaults() -> None:
    """Those of the scripts: 1800 s, waits 20/20/5, one recheck after 20 s."""
    plan = make_plan()
    assert (plan.scenario, plan.duration_s, plan.rounds) == ("source_probe", 1800.0, None)
    assert (plan.wait_publish_s, plan.wait_search_s, plan.wait_between_s) == (20.0, 20.0, 5.0)
    assert (plan.miss_recheck_attempts, plan.miss_recheck_delay_s) == (1, 20.0)
    assert (plan.ready_timeout_s, plan.fresh_identity, plan.gates) == (1200.0, True, ())
    assert [node.name for node in plan.nodes] == ["a", "b"]
    assert plan.driver == "rust_mule"
    assert plan.nodes[0].roles == ("publisher",)


FULL = {
    "scenario": "source_probe",
    "driver": "other_program",
    "duration_s": 60,
    "rounds": 10,
    "wait_publish_s": 0,
    "wait_search_s": 0.5,
    "wait_between_s": 0.0,
    "read_every_s": 0,
    "miss_recheck_attempts": 0,
    "miss_recheck_delay_s": 1,
    "ready_timeout_s": 30,
    "fresh_identity": False,
    "run_root": "/tmp/soak root",
    "label": "nightly \u00e4",
    "keep_config": True,
    "latest": True,
    "node_env": {"RUST_LOG": "debug", "EMPTY": ""},
    "ports": "fixed",
    "stop_grace_s": 0,
    "orphan_grace_s": 10,
    "staging_timeout_s": 5,
    "gates": ["hit_rate>=0.85", "errors <= 5%"],
    "nodes": [{**node, "env": {"LEVEL": node["name"]}} for node in plan_data()["nodes"]],
}


@pytest.mark.parametrize("plan", [make_plan(), make_plan(**FULL), make_plan(rounds=3)])
def test_a_plan_survives_plain_data(plan: Plan) -> None:
    """Written as JSON and read back it is equal, rounds without a deadline too."""
    assert parse_plan(json.loads(json.dumps(plan_to_dict(plan)))) == plan


def test_rounds_alone_have_no_deadline_and_both_may_be_given() -> None:
    """Whichever comes first ends the run."""
    assert (make_plan(rounds=3).duration_s, make_plan(rounds=3).rounds) == (None, 3)
    assert make_plan(rounds=3, duration_s=9).duration_s == 9.0


def test_gates_are_kept_in_one_spelling() -> None:
    """Blanks do not make two plans different."""
    assert make_plan(gates=["hit_rate>=0.85"]).gates == ("hit_rate >= 0.85",)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_loopback_hosts_are_accepted(host: str) -> None:
    """Literals of both families and the one name."""
    assert make_plan(**_with_node(host=host)).nodes[0].host == host


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"speed": 9}, "speed: cannot use an unknown key"),
        ({"a\nb": 9}, r"'a\nb': cannot use an unknown key"),
        ({"x" * 200: 9}, "xxx...: cannot use an unknown key"),
        ({"scenario": "soak"}, "scenario: cannot be other than source_probe or dht_selftest"),
        ({"no_rounds": True, "rounds": 3}, "rounds: cannot be given with no_rounds"),
        ({"no_rounds": True, "duration_s": 0}, "duration_s: cannot be outside 1"),
        ({"pairs": "all"}, "pairs: cannot be other than fixed or round_robin or all_to_all"),
        ({"warmup": ["live"]}, "warmup[0]: cannot read a condition: expected STATUS_FIELD"),
        ({"warmup": [3]}, "warmup[0]: cannot read a condition"),
        ({"warmup": ["a > 1"] * 9}, "warmup: cannot have more than 8 entries, got 9"),
        ({"file_type": ""}, "file_type: cannot read text, got ''"),
        (_with_node(file_id="12"), "nodes[0].file_id: cannot be other than 32 hex digits"),
        (_with_node(filename="a/b"), "nodes[0].filename: cannot be a path, got 'a/b'"),
        (_with_node(query=3), "nodes[0].query: cannot read text, got 3"),
        ({"scenario": 3}, "got 3"),
        ({"driver": "Mule"}, "driver: cannot be other than a lower-case word, got 'Mule'"),
        ({"driver": ""}, "driver: cannot read text, got ''"),
        ({"ports": "any"}, "ports: cannot be other than fixed or auto, got 'any'"),
        ({"duration_s": 0.5}, "duration_s: cannot be outside 1 to 1209600, got 0.5"),
        ({"duration_s": 14 * 86400 + 1}, "duration_s: cannot be outside"),
        ({"duration_s": float("nan")}, "duration_s: cannot be outside"),
        ({"duration_s": float("inf")}, "duration_s: cannot be outside"),
        ({"duration_s": "60"}, "duration_s: cannot read a number, got '60'"),
        ({"duration_s": True}, "duration_s: cannot read a number, got True"),
        ({"duration_s": None}, "duration_s: cannot do without an end"),
        ({"rounds": 0}, "rounds: cannot be outside 1 to 1000000, got 0"),
        ({"rounds": 1.5}, "rounds: cannot read a whole number, got 1.5"),
        ({"rounds": True}, "rounds: cannot read a whole number, got True"),
        ({"wait_publish_s": -1}, "wait_publish_s: cannot be outside 0 to 86400, got -1"),
        ({"read_every_s": 0.001}, "read_every_s: cannot be below 0.05 unless 0, got 0.001"),
        ({"fresh_identity": 1}, "fresh_identity: cannot read true or false, got 1"),
        ({"run_tag": ""}, "run_tag: cannot read text, got ''"),
        ({"run_tag": None}, "run_tag: cannot be missing"),
        ({"run_tag": "a b"}, "run_tag: cannot use other than letters"),
        ({"run_tag": "x" * 65}, "run_tag: cannot be longer than 64 characters"),
        ({"run_root": "soak"}, "run_root: cannot be a relative path, got 'soak'"),
        ({"run_root": "/a\0b"}, r"run_root: cannot contain control characters, got '/a\x00b'"),
        ({"run_root": "/a\udcff"}, "run_root: cannot contain control characters"),
        ({"label": "x" * 65}, "label: cannot be longer than 64 characters"),
        ({"label": "a\x1b[31m"}, "label: cannot contain control characters"),
        ({"label": "a\u202eb"}, "label: cannot be blank or unprintable"),
        ({"label": "  "}, "label: cannot be blank or unprintable"),
        ({"gates": "rounds >= 1"}, "gates: cannot read a list, got 'rounds >= 1'"),
        ({"gates": ["rounds"]}, "gates[0]: cannot read the gate"),
        ({"gates": [3]}, "got 3"),
        ({"gates": ["rounds >= 1"] * 33}, "gates: cannot have more than 32 entries, got 33"),
        ({"node_env": ["A=1"]}, "node_env: cannot read a map of names to values"),
        ({"node_env": {"A-B": "1"}}, "node_env: cannot use the name 'A-B'"),
        ({"node_env": {3: "1"}}, "node_env: cannot use the name 3"),
        ({"node_env": {"A": 1}}, "node_env.A: cannot read text, got 1"),
        ({"node_env": {"A": "\0"}}, "node_env.A: cannot contain control characters"),
        ({"node_env": {"A": "x" * 5000}}, "node_env.A: cannot be longer than 4096"),
        ({"node_env": {"PATH": "/x"}}, "node_env.PATH: cannot be overridden: soakd sets it"),
        ({"node_env": {"SOAK_NONCE": "x"}}, "node_env.SOAK_NONCE: cannot be overridden"),
        ({"node_env": {f"A{n}": "" for n in range(65)}}, "node_env: cannot have more than 64"),
        ({"nodes": None}, "nodes: cannot be missing"),
        ({"nodes": []}, "nodes: cannot make rounds without a publisher and another searcher"),
        ({"nodes": ["a"]}, "nodes[0]: cannot read a node, got 'a'"),
        (_with_node(name="env"), "nodes[0].name: cannot be env: in a plan file [node.env]"),
        (_with_node(name="Mule"), "nodes[0].name: cannot be other than a short lower-case word"),
        (_with_node(name="b"), "nodes[1].name: cannot be used twice, got 'b'"),
        (_with_node(name=...), "nodes[0].name: cannot be missing"),
        (_with_node(source="mule-a"), "nodes[0].source: cannot be a relative path"),
        (_with_node(source=...), "nodes[0].source: cannot be missing"),
        (_with_node(host="10.0.0.1"), "nodes[0].host: cannot be other than a loopback address"),
        (_with_node(host="::1%lo"), "nodes[0].host: cannot be other than a loopback address"),
        (_with_node(host="::ffff:127.0.0.1"), "nodes[0].host: cannot be other than"),
        (_with_node(host="example.org"), "nodes[0].host: cannot be other than"),
        (_with_node(host=...), "nodes[0].host: cannot be missing"),
        (_with_node(port=1023), "nodes[0].port: cannot be outside 1024 to 65535, got 1023"),
        (_with_node(port=17836), "nodes[1].port: cannot be used twice, got 17836"),
        (_with_node(port=...), "nodes[0].port: cannot be missing"),
        (_with_node(roles=["spy"]), "nodes[0].roles: cannot be other than publisher or searcher"),
        (_with_node(roles=...), "nodes[0].roles: cannot be missing"),
        (_with_node(roles=["searcher"]), "nodes: cannot make rounds without a publisher"),
        (_with_node(env=3), "nodes[0].env: cannot read a map of names to values, got 3"),
        (_with_node(env={"HOME": ""}), "nodes[0].env.HOME: cannot be overridden"),
        (_with_node(colour="red"), "nodes[0].colour: cannot use an unknown key"),
    ],
)
def test_a_bad_field_is_named_with_its_value(changes: dict[str, Any], problem: str) -> None:
    """Path, what is wrong, and what was given."""
    assert any(problem in found for found in _problems(**changes)), _problems(**changes)


def test_one_node_cannot_search_for_itself() -> None:
    """A single node with both roles makes no round."""
    both = _with_node(roles=["publisher", "searcher"])["nodes"][:1]
    assert _problems(nodes=both) == [
        "nodes: cannot make rounds without a publisher and another searcher"
    ]


def test_all_problems_are_reported_at_once() -> None:
    """The message shows the first and counts the rest."""
    with pytest.raises(UserError, match=r"cannot use the plan: speed: .* \(and 2 more\)"):
        parse_plan(plan_data(speed=1, label=3, rounds=-1))
    with pytest.raises(UserError, match=r"unknown key$"):
        parse_plan(plan_data(speed=1))


def test_a_flood_of_problems_is_cut_off() -> None:
    """The answer must fit into a frame whatever was sent."""
    found = _problems(**{f"k{n}": n for n in range(1000)})
    assert len(found) == 51
    assert found[-1] == "and 950 more problems"


def test_a_value_is_shown_no_longer_than_a_line() -> None:
    """A MiB of text is not sent back."""
    (found,) = _problems(label="x" * 100_000)
    assert len(found) < 200


_anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
_fields = st.sampled_from([*plan_to_dict(make_plan()), "other"])


@pytest.mark.slow
@pytest.mark.unmeasured
@steady
@given(changes=st.dictionaries(_fields, _anything, max_size=6))
def test_no_data_whatever_crash_the_parser(changes: dict[str, Any]) -> None:
    """Either a plan that survives plain data, or `bad_plan` with its problems."""
    try:
        plan = parse_plan(plan_data(**changes))
    except UserError as error:
        refused = error
    else:
        assert parse_plan(plan_to_dict(plan)) == plan
        return
    assert refused.code == "bad_plan"
    assert refused.details["problems"]


def test_the_longest_round_is_all_waits_and_all_time_outs() -> None:
    """Eight calls, one recheck and one straggling dating read at 12 s each, plus the waits."""
    assert longest_round_s(make_plan()) == 20 + 20 + 5 + 20 + 12 * 10
    plan = make_plan(
        wait_publish_s=0, wait_search_s=0, wait_between_s=0, read_every_s=0, miss_recheck_attempts=0
    )
    assert longest_round_s(plan) == 12 * 8


def test_the_latest_end_adds_up_every_state() -> None:
    """Staging, readiness, warm-up, duration, one whole round and the ladder."""
    plan = make_plan(duration_s=7200)
    end_s = 600 + 1200 + 5 + 7200 + longest_round_s(plan) + ladder_s(plan)
    assert latest_end_s(plan) == end_s
    warm = make_plan(duration_s=7200, warmup=["live > 0"], warmup_timeout_s=90)
    assert latest_end_s(warm) == end_s - 5 + 90
    plan = make_plan(rounds=10)
    assert latest_end_s(plan) == 600 + 1200 + 5 + 11 * longest_round_s(plan) + ladder_s(plan)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7200", 7200),
        ("30s", 30),
        ("90m", 5400),
        ("4h", 14400),
        ("3d", 259200),
        (" 0.5 ", 0.5),
        ("0", 0),
    ],
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    """Plain seconds or one unit."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-1", "1w", "1h30m", "1e9", "\u0663", "nan", "9" * 400])
def test_a_text_that_is_no_duration_is_refused(text: str) -> None:
    """As a usage error that shows it, cut to a line."""
    with pytest.raises(UserError, match="cannot read a duration") as caught:
        parse_duration(text)
    assert caught.value.code == "usage"
    assert len(str(caught.value)) < 200


def test_nodes_without_rounds_are_kept_for_half_a_day() -> None:
    """Or for as long as the plan says; rounds come later."""
    kept = make_plan(no_rounds=True)
    assert (kept.duration_s, kept.rounds) == (12 * 3600.0, None)
    assert make_plan(no_rounds=True, duration_s=60).duration_s == 60.0


def test_a_self_test_has_two_rounds_of_six_flows_unless_told_otherwise() -> None:
    """Its rounds have room for its own waits, its looks, and what comes before the first."""
    plan = make_plan(scenario="dht_selftest")
    assert (plan.rounds, plan.duration_s, plan.wait_publish_s) == (2, None, 60.0)
    assert running_s(plan) == 2 * flows_per_round(plan) * longest_round_s(plan)
    assert flows_per_round(plan) == 6
    calls = 8 + 1 + 2
    assert longest_round_s(plan) == 60 + 45 + 20 + calls * CALL_TIMEOUT_S
    assert warmup_s(plan) == 900 + 8 * CALL_TIMEOUT_S
    timed = make_plan(scenario="dht_selftest", duration_s=60)
    assert (timed.rounds, timed.duration_s) == (None, 60.0)
    kept = make_plan(scenario="dht_selftest", no_rounds=True)
    assert kept.rounds is None


def test_what_a_node_publishes_is_its_own() -> None:
    """Word, file and name stand in the plan only where they are given."""
    data = plan_data()
    data["nodes"][0] |= {"query": "word", "file_id": "AB" * 16, "filename": "x.bin"}
    plan = parse_plan(data)
    assert plan.nodes[0].file_id == "ab" * 16
    assert parse_plan(plan_to_dict(plan)) == plan
    assert "query" not in plan_to_dict(plan)["nodes"][1]
