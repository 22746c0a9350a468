"""Counters and the rates that follow from them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from soakd.core.model import OUTCOMES, Outcome
from soakd.core.stats import (
    Counters,
    add,
    counters_from_dict,
    counters_to_dict,
    hit_rate,
    public_counts,
    search_hit_rate,
)


def _count(rounds: Sequence[tuple[Outcome, bool]]) -> Counters:
    counters = Counters()
    for outcome, prestored in rounds:
        counters = add(counters, outcome, prestored)
    return counters


def test_every_outcome_counts_once_in_the_total() -> None:
    """The total is the sum of the five outcomes; prestored is no outcome."""
    counters = _count([(outcome, True) for outcome in OUTCOMES])
    assert counters.total == 5
    assert counters.classified == 3
    assert public_counts(counters) == {
        "total": 5,
        "hit": 1,
        "late": 1,
        "miss": 1,
        "error": 1,
        "skipped": 1,
        "prestored": 5,
    }


def test_rates_are_unknown_before_the_first_classified_round() -> None:
    """Errors and skipped rounds say nothing about the network."""
    counters = _count([("error", False), ("skipped", False)])
    assert hit_rate(counters) is None
    assert search_hit_rate(counters) is None


def test_late_hits_are_hits() -> None:
    """(hit + late) / (hit + late + miss)."""
    counters = _count([("hit", False), ("late", False), ("miss", False), ("error", False)])
    assert hit_rate(counters) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("rounds", "rate"),
    [
        ([("hit", True), ("hit", False), ("miss", False)], 0.5),
        ([("hit", True), ("miss", True)], None),
        ([("hit", False), ("miss", True), ("error", True), ("skipped", True)], 1.0),
    ],
)
def test_the_search_hit_rate_leaves_prestored_rounds_out_of_both_sides(
    rounds: list[tuple[Outcome, bool]], rate: float | None
) -> None:
    """A prestored miss, error or skipped round takes nothing from the others."""
    assert search_hit_rate(_count(rounds)) == rate


def test_counters_survive_the_store_and_older_releases() -> None:
    """A field that an older release did not write counts as 0."""
    counters = _count([("hit", True), ("miss", False)])
    assert counters_from_dict(counters_to_dict(counters)) == counters
    assert counters_from_dict({"hit": 3}) == Counters(hit=3)
