"""Warm-up: conditions, and samples in a row."""

from __future__ import annotations

import pytest

from soakd.core import warmup
from soakd.core.warmup import Condition, parse_condition


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("live_10m >= 3", 3, True),
        ("live_10m >= 3", 2, False),
        ("routing>10", 11, True),
        ("pending < 5", 5, False),
        ("pending <= 5", 5, True),
        ("live == 0", 0, True),
        ("live == 0", None, False),
        ("live == 1", True, False),
        ("live >= 1", "7", False),
    ],
)
def test_a_condition_holds_a_number_of_the_status(text: str, value: object, *, holds: bool) -> None:
    """What is no number satisfies nothing."""
    condition = parse_condition(text)
    assert condition.holds({condition.field: value}) is holds


def test_a_field_that_is_not_reported_satisfies_nothing() -> None:
    """An older node may not have it."""
    assert not Condition("live", ">=", 0).holds({})


@pytest.mark.parametrize("text", ["", "live", "live >= x", "live = 3", "Live >= 3", "a >= 3 b"])
def test_what_is_no_condition_is_refused_with_an_example(text: str) -> None:
    """The message shows one that is."""
    with pytest.raises(ValueError, match="as live_10m >= 3"):
        parse_condition(text)


def test_conditions_must_hold_on_all_nodes_in_samples_in_a_row() -> None:
    """One node that falls back begins the count anew."""
    state = warmup.begin(["live >= 1", "routing >= 2"], 2)
    assert not state.is_done
    warm = {"live": 1, "routing": 2}
    state = warmup.advance(state, {"a": warm, "b": warm})
    assert (state.stable, state.is_done) == (1, False)
    state = warmup.advance(state, {"a": warm, "b": {"live": 0, "routing": 9}})
    assert (state.stable, state.seen) == (0, "A live=1 routing=2 B live=0 routing=9")
    state = warmup.advance(state, {"a": warm, "b": None})
    assert (state.stable, state.seen) == (0, "A live=1 routing=2 B no answer")
    state = warmup.advance(warmup.advance(state, {"a": warm}), {"a": warm})
    assert state.is_done


def test_without_conditions_nothing_is_waited_for() -> None:
    """Not even one sample."""
    assert warmup.begin([], 3).is_done
