"""Plan files: every spelling, every problem with its line, flags over them, groups."""

from __future__ import annotations

from typing import Any

import pytest

from soakd.core.plan_file import MAX_CHARS, PlanFile, PlanFileError, read_plan_file

NODES = '[node.a]\nsource = "/a"\n[node.b]\nsource = "/b"\n'


def read(text: str, *, sets: list[str] | None = None, **flags: Any) -> PlanFile:
    """The file as `plans/night.toml` of a user in /home/ann."""
    return read_plan_file(
        text,
        name="plans/night.toml",
        folder="/home/ann/plans",
        flags={"set": sets, **flags},
        run_tag_default="made",
    )


def problems(text: str, *, sets: list[str] | None = None, **flags: Any) -> list[str]:
    """What is wrong, without the name of the file."""
    with pytest.raises(PlanFileError) as caught:
        read(text, sets=sets, **flags)
    assert caught.value.code == "bad_plan"
    found = caught.value.details["problems"]
    assert isinstance(found, list)
    assert found[0] in str(caught.value)
    return [problem.removeprefix("plans/night.toml:") for problem in found]


def test_the_smallest_file_names_two_folders() -> None:
    """Everything else has a default; relative paths start where the file is."""
    (variant,) = read('[node.a]\nsource = "mule"\n[node.b]\nsource = "/dist/mule"\n').variants
    plan = variant.plan
    assert [(n.name, n.source, n.host, n.port, n.roles) for n in plan.nodes] == [
        ("a", "/home/ann/plans/mule", "127.0.0.1", 17835, ("publisher",)),
        ("b", "/dist/mule", "127.0.0.1", 17836, ("searcher",)),
    ]
    assert (plan.duration_s, plan.rounds, plan.run_tag, plan.label) == (1800.0, None, "made", None)
    assert variant.values == {}


FULL = """
scenario = "source_probe"
duration = "90m"
rounds = 7
wait_publish_s = "30s"
wait_search = 2.5
fresh_identity = false
run_tag = "mine"
run_root = "soak"
label = "full"
gates = ["rounds >= 3", "panics == 0"]

[node.first]
source = "/a"
url = "http://[::1]:18001/"
roles = ["publisher", "searcher"]

[node.second]
source = "/b"
host = "localhost"
port = 18002
[node.second.env]
LEVEL = "2"

[node.env]
LEVEL = "1"
"""


def test_every_spelling_of_a_value_is_read() -> None:
    """Units left out, durations as text, URLs, a node's own variables."""
    file = read(FULL)
    (plan,) = [variant.plan for variant in file.variants]
    assert (plan.duration_s, plan.rounds, plan.wait_publish_s) == (5400.0, 7, 30.0)
    assert (plan.wait_search_s, plan.fresh_identity, plan.run_tag) == (2.5, False, "mine")
    assert (plan.run_root, plan.label) == ("/home/ann/plans/soak", "full")
    assert plan.gates == ("rounds >= 3", "panics == 0")
    first, second = plan.nodes
    assert (first.name, first.host, first.port, first.env) == ("first", "::1", 18001, ())
    assert first.roles == ("publisher", "searcher")
    assert (second.host, second.port, second.roles) == ("localhost", 18002, ("searcher",))
    assert (plan.node_env, second.env) == ((("LEVEL", "1"),), (("LEVEL", "2"),))
    assert file.sources == {
        "first": "plans/night.toml:14: node.first.source",
        "second": "plans/night.toml:19: node.second.source",
    }


def test_what_was_given_is_told_from_what_is_a_default() -> None:
    """By the names of the keys; a URL gives host and port; flags count too."""
    given = read(FULL, sets=["keep_config=1"], label="x").given
    assert {"duration_s", "wait_search_s", "label", "keep_config", "gates"} <= given
    assert {"node.first.host", "node.first.port", "node.second.env"} <= given
    assert not {"latest", "wait_between_s", "node.second.roles", "node.first.env"} & given


def test_the_spelling_of_the_wire_is_read_too() -> None:
    """`[[nodes]]` with names, and `node_env`: what the first release took."""
    file = read(
        '[[nodes]]\nname = "a"\nsource = "x"\nport = 20001\nroles = ["publisher"]\n'
        '[[nodes]]\nname = "b"\nsource = "/y"\nhost = "::1"\nport = 20002\n'
        '[node_env]\nK = "v"\n'
    )
    (plan,) = [variant.plan for variant in file.variants]
    assert [(n.source, n.host, n.port) for n in plan.nodes] == [
        ("/home/ann/plans/x", "127.0.0.1", 20001),
        ("/y", "::1", 20002),
    ]
    assert plan.node_env == (("K", "v"),)


def test_all_problems_come_at_once_in_the_order_of_lines() -> None:
    """Unknown keys, bad values, missing ones at their table's heading, and flags last."""
    text = """\
speed = 3
rounds = 0
wait_search_s = "soon"
fresh_identity = "yes"
gates = [
  "rounds >= 3",
  "nonsense",
]
"a b" = 1
"a\\nb" = 1
[node.a]
port = 80
[node.b]
source = 3
colour = "red"
url = "x"
[node.env]
PATH = "/x"
"""
    found = problems(text, sets=["rounds", "wait_between=x", "node.b=1", "node.a.b.c=1"])
    wanted = [
        "1: speed: cannot use an unknown key",
        "2: rounds: cannot be outside 1 to 1000000, got 0",
        "3: wait_search_s: cannot read a duration: expected 7200, 30s, 90m, 4h or 3d, got 'soon'",
        "4: fresh_identity: cannot read true or false, got 'yes'",
        "7: gates[1]: cannot read the gate",
        "9: 'a b': cannot use an unknown key",
        r"10: 'a\nb': cannot use an unknown key",
        "11: node.a.source: cannot be missing",
        "12: node.a.port: cannot be outside 1024 to 65535, got 80",
        "14: node.b.source: cannot read text, got 3",
        "15: node.b.colour: cannot use an unknown key",
        "16: node.b.url: cannot read a URL: expected 127.0.0.1:17835, got 'x'",
        "18: node.env.PATH: cannot be overridden: soakd sets it",
        "--set wait_between: cannot read a duration",
        "--set: cannot set a field, expected FIELD=VALUE, got 'rounds'",
        "--set: cannot set a key of a node, expected node.NAME.KEY=VALUE, got 'node.b=1'",
        "--set node.a.b: cannot use an unknown key",
    ]
    for problem, start in zip(found[:13], wanted[:13], strict=True):
        assert problem.startswith(start)
    for start in wanted[13:]:
        assert sum(problem.startswith(start) for problem in found[13:]) == 1


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", " node: cannot be missing"),
        ("node = 3", "1: node: cannot read a list, got 3"),
        ("[node]\na = 3\n", "2: node.a: cannot read a node, got 3"),
        (f"nodes = []\n{NODES}", "1: nodes: cannot be given beside [node.NAME]: choose one"),
        ("nodes = [3]", "1: nodes[0]: cannot read a node, got 3"),
        (f"node_env = {{}}\n{NODES}[node.env]", "1: node_env: cannot be given beside [node.env]"),
        (f"wait_search = 1\nwait_search_s = 2\n{NODES}", "1: wait_search: cannot be given twice"),
        (f'{NODES}name = "c"', "5: node.b.name: cannot be given in a table [node.NAME]"),
        (f"{NODES}port = 20000\nurl = 'x'", "6: node.b.url: cannot be given beside host or port"),
        (f"{NODES}[node.E]\nsource = '/e'", "5: node.E: cannot be other than a short lower-case"),
        (f"{NODES}port = 17835", "5: node.b.port: cannot be used twice, got 17835"),
        (f"{NODES}url = '10.0.0.1:17836'", "5: node.b.url: cannot be other than a loopback"),
        (f"wait_search = 1979-05-27\n{NODES}", "1: wait_search: cannot read a number, got dat"),
        (f"label = ['x', 'y']\n{NODES}", "1: label: cannot read text, got ['x', 'y']"),
        (f"rounds = []\n{NODES}", "1: rounds: cannot be an empty list: give one value or several"),
        (f"rounds = [1, 2, 1]\n{NODES}", "1: rounds: cannot have the same value twice, got 1"),
        (f"wait_search = ['10', 10]\n{NODES}", "1: wait_search: cannot have the same value twice"),
        (f"rounds = [1,\n -2,\n 'x']\n{NODES}", "2: rounds: cannot be outside 1 to 1000000, got"),
        (f"wait_search = [1,\n\n 'x']\n{NODES}", "3: wait_search[1]: cannot read a duration"),
        ("a =", "1: cannot read TOML: invalid value"),
        ("a = 1\na = 2\nb = ", "2: cannot read TOML: cannot overwrite a value"),
        ("a = 1\nb = [1,\n\n", "2: cannot read TOML: invalid value"),
        ("a = " + "[" * 10_000, " cannot read TOML that is nested so deeply"),
        ("#" * (MAX_CHARS + 1), f" cannot be longer than {MAX_CHARS} characters"),
    ],
)
def test_a_problem_names_its_line_and_its_key(text: str, wanted: str) -> None:
    """As the user spelled the key."""
    assert any(problem.startswith(wanted) for problem in problems(text)), problems(text)


def test_flags_win_over_the_file() -> None:
    """Single ones, `--set` with and without the unit, variables, gates behind the file's."""
    file = read(
        FULL,
        sets=["wait_search=9", "wait_publish_s=1m", "node.second.source=/new"],
        label="flag",
        rounds=3,
        node_env=["LEVEL=3", "X=1"],
        gates=["errors <= 5%"],
    )
    (plan,) = [variant.plan for variant in file.variants]
    assert (plan.wait_search_s, plan.wait_publish_s, plan.label, plan.rounds) == (9, 60, "flag", 3)
    assert plan.nodes[1].source == "/new"
    assert plan.node_env == (("LEVEL", "3"), ("X", "1"))
    assert plan.gates == ("rounds >= 3", "panics == 0", "errors <= 5%")


def test_keys_of_nodes_may_be_set_that_the_file_has_not() -> None:
    """A port, a variable, a whole node; each problem names the flag."""
    sets = ["node.b.port=20009", "node.c.source=/c", "node.env.K=v", "node.b.env.L=w"]
    (variant,) = read(NODES, sets=sets).variants
    assert [node.port for node in variant.plan.nodes] == [17835, 20009, 17837]
    assert variant.plan.node_env == (("K", "v"),)
    assert variant.plan.nodes[1].env == (("L", "w"),)
    assert problems(NODES, sets=["node.b.port=x", "node.b.source=rel", "node.env.PATH=x"]) == [
        "--set node.b.port: cannot read a whole number, got 'x'",
        "--set node.b.source: cannot be a relative path, got 'rel'",
        "--set node.env.PATH: cannot be overridden: soakd sets it",
    ]
    assert problems("node = 3", sets=["node.b.port=1"])[-1].startswith("--set: cannot set a key")


def test_rounds_alone_have_no_deadline() -> None:
    """As on the command line."""
    assert read(f"rounds = 3\n{NODES}").variants[0].plan.duration_s is None
    assert read(NODES, rounds=3).variants[0].plan.duration_s is None
    assert read(f"duration = 60\n{NODES}", rounds=3).variants[0].plan.duration_s == 60.0


MATRIX = """
wait_search = [10, "20s", 40]
[node.a]
source = "/a"
[node.b]
source = ["/old", "new"]
[node.b.env]
LEVEL = "1"
"""


def test_lists_make_a_group_of_all_combinations() -> None:
    """The last key changes fastest; the group has the file's name."""
    file = read(MATRIX)
    assert file.group == "night"
    assert [axis.name for axis in file.axes] == ["wait_search_s", "node.b.source"]
    assert [(v.plan.wait_search_s, v.plan.nodes[1].source) for v in file.variants] == [
        (seconds, source)
        for seconds in (10.0, 20.0, 40.0)
        for source in ("/old", "/home/ann/plans/new")
    ]
    assert file.variants[2].plan.label == "night: wait_search_s=20, node.b.source=/old"
    assert file.variants[2].values == {"wait_search_s": 20.0, "node.b.source": "/old"}
    assert {v.plan.run_tag for v in file.variants} == {"made"}


def test_a_label_names_the_group_and_a_set_value_ends_the_list() -> None:
    """So that one run of a group can be had again."""
    file = read(f'label = "weekly"\n{MATRIX}', sets=["wait_search=20"])
    assert (file.group, len(file.variants)) == ("weekly", 2)
    single = read(MATRIX, sets=["wait_search=20", "node.b.source=/old"], label="one")
    assert (single.group, single.variants[0].plan.label) == (None, "one")
    assert read(f"rounds = [3]\n{NODES}").group == "night"


def test_variables_urls_and_switches_may_be_lists() -> None:
    """Whatever takes one value."""
    file = read(
        'fresh_identity = [true, false]\n[node.a]\nsource = "/a"\n'
        'url = ["127.0.0.1:20001", "[::1]:20003"]\n[node.a.env]\nX = ["1", "2"]\n'
        '[node.b]\nsource = "/b"\n[node.env]\nLEVEL = ["info", "debug"]\n'
    )
    assert len(file.variants) == 16
    last = file.variants[-1].plan
    assert (last.fresh_identity, last.nodes[0].host, last.nodes[0].port) == (False, "::1", 20003)
    assert (last.nodes[0].env, last.node_env) == ((("X", "2"),), (("LEVEL", "debug"),))
    assert file.variants[-1].values["node.env.LEVEL"] == "debug"


def test_a_group_is_bounded() -> None:
    """In its runs, and in the length of its label."""
    many = f"rounds = {list(range(1, 9))}\nwait_search = {list(range(9))}\n{NODES}"
    assert problems(many) == ["2: wait_search: cannot make more than 64 runs of a plan, got 72"]
    long = f'label = "{"x" * 60}"\nrounds = [1, 2]\n{NODES}'
    assert problems(long)[0].startswith(
        "1: label: cannot be longer than 56 characters for a group of 2 runs, got 'xxx"
    )
    (first, _) = read(f'label = "{"x" * 56}"\nrounds = [1, 2]\n{NODES}').variants
    assert first.plan.label == f"{'x' * 56}: 1 of 2"


def test_a_problem_of_all_runs_of_a_group_is_told_once() -> None:
    """And those of single values each in its line."""
    found = problems(f"rounds = [\n 1,\n 0,\n 2,\n]\nread_every = -1\n{NODES}")
    assert found == [
        "3: rounds: cannot be outside 1 to 1000000, got 0",
        "6: read_every: cannot be outside 0 to 86400, got -1",
    ]


def test_what_could_be_read_is_there_although_there_are_problems() -> None:
    """For the folders: a missing one is to be told in the same breath."""
    with pytest.raises(PlanFileError) as caught:
        read('speed = 1\n[node.a]\nsource = "/gone"\n[node.b]\n')
    assert [node.source for node in caught.value.plans[0].nodes] == ["/gone", "/"]
    assert caught.value.sources["a"] == "plans/night.toml:3: node.a.source"


@pytest.mark.parametrize(
    ("name", "group"),
    [("x/my plan.toml", "my plan"), ("noext", "noext"), ("a\nb.toml", "plan"), (".toml", ".toml")],
)
def test_a_group_is_called_like_its_file(name: str, group: str) -> None:
    """Unless a label could not be that."""
    text = f"rounds = [1, 2]\n{NODES}"
    file = read_plan_file(text, name=name, folder="/", flags={}, run_tag_default="t")
    assert file.group == group


# -- several nodes of one table ----------------------------------------------------------------

MANY = '[node.n]\nsource = "/n"\ncount = 3\n'


def test_a_count_makes_nodes_with_names_and_ports_counted_up() -> None:
    """From the default port, from a port, and from a URL."""
    for where, first in (("", 17835), ("port = 20000\n", 20000), ('url = "[::1]:20100"\n', 20100)):
        file = read_plan_file(
            'pairs = "all_to_all"\n' + MANY + where,
            name="p.toml", folder="/", flags={}, run_tag_default="t",
        )  # fmt: skip
        nodes = file.variants[0].plan.nodes
        assert [node.name for node in nodes] == ["n1", "n2", "n3"]
        assert [node.port for node in nodes] == [first, first + 1, first + 2]
        assert {node.roles for node in nodes} == {("publisher", "searcher")}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (MANY.replace("3", "0"), "cannot be other than a whole number from 1 to 50, got 0"),
        (MANY.replace("3", '"3"'), "cannot be other than a whole number from 1 to 50, got '3'"),
        (MANY + 'url = "nowhere"\n', "cannot read a URL: expected 127.0.0.1:17835, got 'nowhere'"),
    ],
)
def test_a_count_that_is_none_and_a_url_that_is_none_are_told_once(text: str, problem: str) -> None:
    """With the line."""
    with pytest.raises(PlanFileError) as caught:
        read_plan_file(
            'pairs = "all_to_all"\n' + text,
            name="p.toml", folder="/", flags={}, run_tag_default="t",
        )  # fmt: skip
    problems = caught.value.details["problems"]
    assert isinstance(problems, list)
    assert sum(problem in found for found in problems) == 1, problems
