"""The method table, parameter checks, run ids."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from soakd.wire.errors import WireError
from soakd.wire.messages import (
    METHODS,
    PUBLIC_RUN_KEYS,
    Access,
    check_params,
    format_run_id,
    parse_run_id,
)
from soakd.wire.results import PublicRun


def test_every_method_names_a_known_access() -> None:
    """A typing slip in the table would leave a method unguarded."""
    assert {method.access for method in METHODS.values()} <= set(get_args(Access))


def test_public_keys_are_those_of_the_public_type() -> None:
    """The allow-list and its type say the same."""
    assert set(PUBLIC_RUN_KEYS) == set(PublicRun.__annotations__)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("hello", {"client": "t", "protocol": 1}),
        ("run.start", {"plan": {}}),
        ("run.list", {}),
        ("run.list", {"all": True}),
        ("run.status", {"run": None}),
        ("run.watch", {"run": "r1", "after": 0}),
        ("run.logs", {"run": "r1", "node": "a", "follow": False, "tail": 1_000_000}),
        ("daemon.info", {}),
    ],
)
def test_right_parameters_pass(method: str, params: dict[str, Any]) -> None:
    """What the table allows raises nothing; None counts as absent."""
    check_params(method, params)


@pytest.mark.parametrize(
    ("method", "params", "problems"),
    [
        ("hello", {}, ["client: missing", "protocol: missing"]),
        ("run.list", {"al": True}, ["al: unknown parameter"]),
        ("run.list", {"all": 1}, ["all: must be a boolean, got an integer"]),
        ("run.watch", {"after": True}, ["after: must be an integer, got a boolean"]),
        ("run.watch", {"after": -1}, ["after: must be in [0, 9223372036854775807], got -1"]),
        ("run.logs", {"tail": 1_000_001}, ["tail: must be in [0, 1000000], got 1000001"]),
        (
            "run.status",
            {"run": 7, "x": 1},
            ["x: unknown parameter", "run: must be a text, got an integer"],
        ),
        ("run.start", {"plan": [1]}, ["plan: must be a map, got an array"]),
    ],
)
def test_wrong_parameters_are_reported_together(
    method: str, params: dict[str, Any], problems: list[str]
) -> None:
    """Every problem of a call is named at once, in wire terms."""
    with pytest.raises(WireError) as caught:
        check_params(method, params)
    assert caught.value.code == "bad_params"
    assert caught.value.details == {"problems": problems}


def test_unknown_method_is_named() -> None:
    """A newer client learns what this soakd does not know."""
    with pytest.raises(WireError, match=r"'run\.fly'") as caught:
        check_params("run.fly", {})
    assert caught.value.code == "unknown_method"


def test_run_ids_go_there_and_back() -> None:
    """The name of a run on the wire holds its number."""
    assert format_run_id(7) == "r7"
    assert parse_run_id("r7") == 7
    assert parse_run_id(format_run_id(10**17)) == 10**17


@pytest.mark.parametrize(
    "text", ["", "r", "7", "r07", "r0", "r-1", "R7", "r7 ", "r٧", "r" + "9" * 19]
)
def test_what_is_no_run_id_gives_none(text: str) -> None:
    """Neither blanks nor other digits nor numbers beyond SQLite pass."""
    assert parse_run_id(text) is None
