"""Plans as TOML: whatever plan it is, it is read back the same."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soakd.core.plan import Plan, parse_plan
from soakd.core.plan_file import PlanFile, read_plan_file
from soakd.core.plan_file_write import plan_to_toml
from soakd.core.plan_keys import KEYS, Key
from tests.core.helpers import make_plan, plan_data, steady


def read(text: str, run_tag_default: str = "other") -> PlanFile:
    """The text as a plan file."""
    return read_plan_file(
        text, name="p.toml", folder="/", flags={}, run_tag_default=run_tag_default
    )


FULL = {
    "duration_s": 60,
    "rounds": 10,
    "read_every_s": 0.25,
    "fresh_identity": False,
    "run_root": '/tmp/a "quoted" \\ root',
    "label": "nightly ä = [1]",
    "node_env": {"RUST_LOG": "a=\"b\",c='d'", "EMPTY": ""},
    "gates": ["hit_rate >= 0.85", "errors <= 5%"],
    "ports": "auto",
    "warmup": ["live_10m >= 3", "routing > 0"],
    "pairs": "all_to_all",
    "file_type": "Doc",
}
KEPT = make_plan(no_rounds=True)
SELFTEST = make_plan(scenario="dht_selftest", warmup=[])
ATTACHED = make_plan(
    nodes=[
        {"name": name, "token_file": f"/x/{name}.token", "host": "::1", "port": port}
        | {"roles": ["publisher", "searcher"]}
        for name, port in (("a", 2000), ("b", 2001))
    ]
)


@pytest.mark.parametrize(
    "plan", [make_plan(), make_plan(**FULL), make_plan(rounds=3), KEPT, SELFTEST, ATTACHED]
)
def test_a_plan_is_read_back_the_same(plan: Plan) -> None:
    """Quotes, backslashes and fractions, rounds without a deadline."""
    (variant,) = read(plan_to_toml(plan)).variants
    assert variant.plan == plan


def _values(key: Key) -> st.SearchStrategy[Any]:
    text = st.text(
        st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=30
    ).filter(lambda value: value.isprintable() and value.strip())
    return {
        "seconds": st.floats(max(1.0, key.low), max(1.0, key.high)),
        "whole": st.integers(int(key.low), int(key.high)),
        "flag": st.booleans(),
        "choice": st.sampled_from(key.choices or ("x",)),
        "path": text.map(lambda value: f"/{value}"),
        "text": text,
        "list": st.just(["rounds >= 3", "panics == 0"]),
        "table": st.dictionaries(st.from_regex(r"X[A-Z_0-9]{0,9}", fullmatch=True), text),
    }[key.kind]


_NAMES = {
    "nodes": st.just(plan_data()["nodes"]),
    "run_tag": st.just("tag"),
    "driver": st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True),
}
_plans = st.fixed_dictionaries(
    _NAMES,
    optional={
        name: _values(key) for name, key in KEYS.items() if name not in {*_NAMES, "no_rounds"}
    },
)


@pytest.mark.unmeasured
@given(_plans)
@steady
def test_any_plan_is_read_back_the_same(data: dict[str, Any]) -> None:
    """Every key with every value that a plan may have."""
    plan = parse_plan(data)
    (variant,) = read(plan_to_toml(plan)).variants
    assert variant.plan == plan


def test_without_its_tag_a_plan_gets_another() -> None:
    """What ran is shown, what will run has a tag of its own."""
    text = plan_to_toml(make_plan(), with_tag=False)
    assert '# run_tag = "tag": each run gets one of its own\n' in text
    assert read(text, "new").variants[0].plan == make_plan(run_tag="new")


def test_defaults_are_marked() -> None:
    """A reader sees what somebody has chosen."""
    plan = make_plan(wait_search_s=7, node_env={"K": "v"})
    text = plan_to_toml(plan, given={"wait_search_s", "node.a.port"})
    lines = text.splitlines()
    assert "wait_search_s = 7" in lines
    assert "wait_publish_s = 20  # default" in lines
    assert 'K = "v"' in lines
    assert lines.count("port = 17835") == 1
    assert lines.count("port = 17836  # default") == 1
    assert tomllib.loads(text)["wait_search_s"] == 7


def test_a_group_is_written_as_the_lists_it_was_made_of() -> None:
    """Also URLs, which a plan has as host and port: read back it is the same group."""
    text = (
        'label = "g"\nwait_search = [1, 2.5]\n[node.a]\nsource = ["/a", "/x"]\n'
        'url = ["127.0.0.1:20001", "[::1]:20003"]\n[node.b]\nsource = "/b"\n'
        '[node.b.env]\nX = ["1", "2"]\n'
    )
    file = read(text)
    lists = {axis.name: axis.values for axis in file.axes}
    plan = replace(file.variants[0].plan, label=file.group)
    written = plan_to_toml(plan, lists=lists, given=file.given)
    assert 'url = ["127.0.0.1:20001", "[::1]:20003"]' in written
    assert [v.plan for v in read(written).variants] == [v.plan for v in file.variants]
