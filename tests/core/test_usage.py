"""Recent soak-hours: a full hour counts as one, half as much a day later."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soakd.core.usage import HALF_LIFE_S, Spell, later, recent_hours
from tests.core.helpers import steady

HOUR_S = 3600.0


def test_an_hour_just_soaked_counts_almost_in_full() -> None:
    """What decays within the hour is about one part in seventy."""
    assert recent_hours([Spell(7, 0.0, HOUR_S)], HOUR_S)[7] == pytest.approx(0.986, abs=0.001)


def test_a_day_later_it_counts_half() -> None:
    """The half-life is one day."""
    fresh = recent_hours([Spell(7, 0.0, HOUR_S)], HOUR_S)[7]
    assert recent_hours([Spell(7, 0.0, HOUR_S)], HOUR_S + HALF_LIFE_S)[7] == pytest.approx(
        fresh / 2
    )


def test_a_run_that_goes_on_counts_up_to_now() -> None:
    """So does one whose end lies ahead; one that has not begun counts nothing."""
    ended = recent_hours([Spell(7, 0.0, HOUR_S)], HOUR_S)
    assert recent_hours([Spell(7, 0.0)], HOUR_S) == ended
    assert recent_hours([Spell(7, 0.0, 9 * HOUR_S)], HOUR_S) == ended
    assert recent_hours([Spell(7, 2 * HOUR_S)], HOUR_S) == {}


def test_runs_of_one_user_add_up() -> None:
    """Users are kept apart."""
    hours = recent_hours([Spell(1, 0.0, 60.0), Spell(2, 0.0, 60.0), Spell(1, 0.0, 60.0)], 60.0)
    assert hours[1] == pytest.approx(2 * hours[2])


@steady
@given(
    first_s=st.floats(1.0, 1e6),
    second_s=st.floats(0.0, 1e6),
    ended_s=st.none() | st.floats(0.5, 1e6),
)
def test_hours_can_be_carried_on_from_those_known(
    first_s: float, second_s: float, ended_s: float | None
) -> None:
    """Counting anew and carrying on agree, for what ended before and what goes on."""
    over = None if ended_s is None else min(ended_s, first_s)
    spells = [Spell(1, 0.0, over), Spell(2, 0.5, None)]
    soaking = [2] if over is not None else [1, 2]
    carried = later(recent_hours(spells, first_s), soaking, second_s)
    anew = recent_hours(spells, first_s + second_s)
    assert carried == pytest.approx(anew, rel=1e-6, abs=1e-9)
