"""A month of five users: nobody is forgotten, nobody takes all, every promise is kept."""

from __future__ import annotations

from statistics import median

import pytest

from tests.core.queue_month import GREEDY, MIXED, Month, percentile, play, report

pytestmark = pytest.mark.unmeasured

TINKERER, BURSTS = 2, 4


def _median(month: Month, uid: int) -> float:
    return median(month.waits_h[uid])


@pytest.mark.slow
def test_a_mixed_month_serves_small_users_soon() -> None:
    """They wait half as long as first come first served would make them, most of the time."""
    fair, plain = play(MIXED, 1), play(MIXED, 1, is_fair=False)
    assert fair.broken == plain.broken == 0
    assert fair.promises > 100
    for uid in (TINKERER, BURSTS):
        assert _median(fair, uid) < 0.6 * _median(plain, uid)
    assert set(fair.waits_h) == set(range(5))
    assert max(max(waits) for waits in fair.waits_h.values()) < 4 * 24


@pytest.mark.slow
def test_users_who_want_all_get_alike() -> None:
    """Though one soaks minutes and another nights; first come first served does much worse."""
    fair, plain = play(GREEDY[:4], 1), play(GREEDY[:4], 1, is_fair=False)
    assert fair.broken == 0
    assert fair.jain > 0.85
    assert plain.jain < 0.70
    assert fair.busy > 0.95


@pytest.mark.slow
def test_a_second_slot_lets_those_pass_who_disturb_nobody() -> None:
    """Short soaks on ports of their own hardly wait at all."""
    month = play(MIXED, 2)
    assert month.broken == 0
    assert percentile(month.waits_h[TINKERER], 0.95) < 2.0


@pytest.mark.slow
def test_the_report_has_a_line_for_each_user() -> None:
    """It is what the docs show."""
    text = report()
    for user in {*MIXED, *GREEDY}:
        assert f"| {user.name} |" in text


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(2, 60))
def test_other_months_are_no_different(seed: int) -> None:
    """The bounds, wider, over many months."""
    fair, plain = play(MIXED, 1, seed=seed), play(MIXED, 1, seed=seed, is_fair=False)
    assert fair.broken == 0
    assert _median(fair, TINKERER) <= _median(plain, TINKERER)
    greedy = play(GREEDY[:4], 1, seed=seed)
    assert greedy.broken == 0
    assert greedy.jain > 0.8
