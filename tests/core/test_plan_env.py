"""Plans from what the user typed: variables, flags, files, and their precedence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from soakd.core.errors import UserError
from soakd.core.plan import (
    ENVIRONMENT_NAMES,
    Plan,
    ignored_node_env,
    parse_url,
    plan_from_environment,
)


def _plan(env: Mapping[str, str], **flags: Any) -> Plan:
    return plan_from_environment(env, cwd="/work", flags=flags, run_tag_default="tag")


def _problems(env: Mapping[str, str], **flags: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        _plan(env, **flags)
    assert caught.value.code == "bad_plan"
    problems = caught.value.details["problems"]
    assert isinstance(problems, list)
    return problems


def test_an_empty_environment_gives_the_scripts_defaults() -> None:
    """Two folders beside the repository, two ports, half an hour."""
    plan = _plan({})
    assert [(node.name, node.source, node.host, node.port, node.roles) for node in plan.nodes] == [
        ("a", "/work/../../mule-a", "127.0.0.1", 17835, ("publisher",)),
        ("b", "/work/../../mule-b", "127.0.0.1", 17836, ("searcher",)),
    ]
    assert (plan.duration_s, plan.rounds, plan.run_tag, plan.run_root) == (
        1800.0,
        None,
        "tag",
        None,
    )


def test_every_variable_of_the_scripts_is_honoured() -> None:
    """Each lands in its field; relative paths start at the current folder."""
    env = {
        "A_SRC": "/dist/mule-a",
        "B_SRC": "mule-b",
        "A_URL": "http://127.0.0.1:18001/",
        "B_URL": "[::1]:18002",
        "RUN_ROOT": "soak",
        "WAIT_PUBLISH": "1",
        "WAIT_SEARCH": "2.5",
        "WAIT_BETWEEN": "0",
        "READ_EVERY": "0",
        "MISS_RECHECK_ATTEMPTS": "0",
        "MISS_RECHECK_DELAY": "1m",
        "READY_TIMEOUT_SECS": "60",
        "SOAK_FRESH_IDENTITY": "0",
        "SOAK_RUN_TAG": "mine",
    }
    plan = _plan(env)
    assert [(node.source, node.host, node.port) for node in plan.nodes] == [
        ("/dist/mule-a", "127.0.0.1", 18001),
        ("/work/mule-b", "::1", 18002),
    ]
    assert plan.run_root == "/work/soak"
    assert (plan.wait_publish_s, plan.wait_search_s, plan.wait_between_s) == (1.0, 2.5, 0.0)
    assert (plan.read_every_s, plan.miss_recheck_attempts, plan.miss_recheck_delay_s) == (0, 0, 60)
    assert (plan.ready_timeout_s, plan.fresh_identity, plan.run_tag) == (60.0, False, "mine")
    assert set(env) | {"ROOT"} == set(ENVIRONMENT_NAMES)


def test_root_moves_the_default_folders() -> None:
    """Relative to the current folder if it is relative."""
    assert _plan({"ROOT": "/src/repo"}).nodes[0].source == "/src/repo/../../mule-a"
    assert _plan({"ROOT": "repo"}).nodes[1].source == "/work/repo/../../mule-b"


def test_an_empty_variable_counts_as_unset() -> None:
    """As `${VAR:-default}` did."""
    assert _plan(dict.fromkeys(ENVIRONMENT_NAMES, "")) == _plan({})


def test_flags_win_over_the_environment_and_single_flags_over_set() -> None:
    """Defaults < environment < --set < flags; None is not given."""
    env = {"WAIT_PUBLISH": "1", "WAIT_SEARCH": "1", "SOAK_RUN_TAG": "env"}
    plan = _plan(
        env,
        set=["wait_publish_s=2", "duration_s=5m", "label=set"],
        label="flag",
        run_tag=None,
        rounds=7,
        latest=True,
        node_env=["A=1=2", "B="],
    )
    assert (plan.wait_publish_s, plan.wait_search_s) == (2.0, 1.0)
    assert (plan.duration_s, plan.rounds, plan.label) == (300.0, 7, "flag")
    assert (plan.run_tag, plan.latest) == ("env", True)
    assert plan.node_env == (("A", "1=2"), ("B", ""))


def test_durations_may_come_as_typed() -> None:
    """Text is read as a duration, a number is seconds, rounds alone have no deadline."""
    assert _plan({}, duration_s="90m").duration_s == 5400.0
    assert _plan({}, duration_s=30).duration_s == 30.0
    assert _plan({}, rounds=3).duration_s is None


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("yes", True), ("OFF", False), ("0", False)]
)
def test_switches_are_read_from_words_too(text: str, value: bool) -> None:  # noqa: FBT001
    """In variables and in --set."""
    assert _plan({"SOAK_FRESH_IDENTITY": text}).fresh_identity is value
    assert _plan({}, set=[f"fresh_identity={text}"]).fresh_identity is value


@pytest.mark.parametrize(
    ("env", "flags", "problem"),
    [
        ({"WAIT_PUBLISH": "soon"}, {}, "WAIT_PUBLISH: cannot read a duration"),
        ({"WAIT_PUBLISH": "9d"}, {}, "WAIT_PUBLISH: cannot be outside 0 to 86400, got 777600.0"),
        ({"MISS_RECHECK_ATTEMPTS": "x"}, {}, "MISS_RECHECK_ATTEMPTS: cannot read a whole number"),
        ({"MISS_RECHECK_ATTEMPTS": "101"}, {}, "MISS_RECHECK_ATTEMPTS: cannot be outside 0 to 100"),
        ({"SOAK_FRESH_IDENTITY": "2"}, {}, "SOAK_FRESH_IDENTITY: cannot read 1 or 0, got '2'"),
        ({"SOAK_RUN_TAG": "a b"}, {}, "SOAK_RUN_TAG: cannot use other than letters"),
        ({"A_URL": "https://127.0.0.1:1"}, {}, "A_URL: cannot read a URL"),
        ({"A_URL": "127.0.0.1"}, {}, "A_URL: cannot read a URL: expected 127.0.0.1:17835"),
        ({"A_URL": "127.0.0.1:80"}, {}, "A_URL: cannot be outside 1024 to 65535, got 80"),
        ({"B_URL": "10.0.0.1:17836"}, {}, "B_URL: cannot be other than a loopback address"),
        ({"B_URL": "localhost:17835"}, {}, "B_URL: cannot be used twice, got 17835"),
        ({"A_SRC": "/a\nb"}, {}, "A_SRC: cannot contain control characters"),
        ({"RUN_ROOT": "/a\nb"}, {}, "RUN_ROOT: cannot contain control characters"),
        (
            {},
            {"set": ["speed=3"]},
            "--set: cannot set 'speed': there is no such field; docs/plan.md has them all",
        ),
        ({}, {"set": ["wait_serch=3"]}, "there is no such field; did you mean wait_search_s?"),
        ({}, {"set": ["label"]}, "--set: cannot set a field, expected FIELD=VALUE, got 'label'"),
        ({}, {"set": ["rounds=many"]}, "--set rounds: cannot read a whole number, got 'many'"),
        ({}, {"node_env": ["A"]}, "--node-env: cannot set a variable, expected K=V, got 'A'"),
        ({}, {"node_env": "A=1"}, "node_env: cannot read a map"),
        ({}, {"duration_s": "long"}, "duration_s: cannot read a duration"),
        ({}, {"speed": 3}, "speed: cannot use an unknown key"),
    ],
)
def test_a_problem_is_named_as_the_user_wrote_it(
    env: dict[str, str], flags: dict[str, Any], problem: str
) -> None:
    """The variable, the option, or the field, once each."""
    found = _problems(env, **flags)
    assert len(found) == 1
    assert problem in found[0]


def test_problems_of_all_layers_come_together() -> None:
    """One try is enough to see everything."""
    found = _problems({"WAIT_SEARCH": "x", "B_URL": "y"}, set=["rounds=z"], label="")
    assert [problem.split(":")[0] for problem in found] == [
        "B_URL",
        "WAIT_SEARCH",
        "--set rounds",
        "label",
    ]


def test_a_default_folder_is_named_as_such() -> None:
    """The user did not set A_SRC; the message says so."""
    assert [problem.split(":")[0] for problem in _problems({"ROOT": "/a\nb"})] == [
        "A_SRC (default)",
        "B_SRC (default)",
    ]


def test_both_urls_may_be_unreadable_without_a_third_problem() -> None:
    """The ports that stand in for them do not collide."""
    assert len(_problems({"A_URL": "x", "B_URL": "y"})) == 2


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("127.0.0.1:17835", ("127.0.0.1", 17835)),
        ("HTTP://localhost:1/", ("localhost", 1)),
        ("http://[::1]:17835", ("::1", 17835)),
    ],
)
def test_urls_are_split_with_or_without_scheme(text: str, wanted: tuple[str, int]) -> None:
    """As the scripts took them."""
    assert parse_url(text) == wanted


@pytest.mark.parametrize("text", ["", ":1", "a:", "a:b", "a:\u0661", "a:123456"])
def test_a_text_that_is_no_url_is_refused(text: str) -> None:
    """The message shows it."""
    with pytest.raises(ValueError, match="cannot read a URL"):
        parse_url(text)


def test_variables_that_would_shape_a_node_are_named_unless_passed() -> None:
    """RUST_*, MALLOC_CONF and LD_PRELOAD reach no node by themselves."""
    env = {
        "RUST_LOG": "x",
        "RUST_BACKTRACE": "1",
        "LD_PRELOAD": "y",
        "MALLOC_CONF": "",
        "HOME": "/",
    }
    assert ignored_node_env(env) == ("LD_PRELOAD", "MALLOC_CONF", "RUST_BACKTRACE", "RUST_LOG")
    assert ignored_node_env(env, ["RUST_LOG", "LD_PRELOAD"]) == ("MALLOC_CONF", "RUST_BACKTRACE")


def test_a_commands_own_flags_name_what_was_typed_by_them() -> None:
    """And only that: what a variable says stays the variable's."""
    names = {"rounds": "--how-often", "wait_publish_s": "--pause", "nodes[0].port": "--place"}
    nodes = {"a": {"host": "127.0.0.1", "port": 80}}
    of_both = _problems({"WAIT_PUBLISH": "x"}, rounds="y", names=names)
    assert [problem.partition(":")[0] for problem in of_both] == ["WAIT_PUBLISH", "--how-often"]
    of_flags = _problems({"A_URL": "x"}, wait_publish_s="z", nodes=nodes, names=names)
    assert [problem.partition(":")[0] for problem in of_flags] == ["--pause", "--place"]
