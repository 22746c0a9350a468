"""When failing calls to a node become news."""

from __future__ import annotations

from soakd.core.trouble import DEAD_AFTER_CALLS, DEAD_AFTER_S, Streak, answered, failed


def test_only_the_first_failure_of_a_streak_is_news() -> None:
    """A second failure at once says nothing new."""
    streak, news = failed(Streak(), 100.0)
    assert news == "api_trouble"
    streak, news = failed(streak, 100.5)
    assert news is None
    assert streak.calls == 2


def test_enough_failures_over_enough_time_make_the_api_dead_once() -> None:
    """Dead is declared when both the count and the seconds are reached, and not again."""
    streak = Streak()
    for at_s in range(DEAD_AFTER_CALLS + 3):
        streak, news = failed(streak, float(at_s))
        assert news != "api_dead"
    streak, news = failed(streak, DEAD_AFTER_S)
    assert news == "api_dead"
    assert failed(streak, DEAD_AFTER_S + 50)[1] is None


def test_few_failures_are_not_death_however_long_they_take() -> None:
    """Two calls a minute apart may both have met a restart."""
    streak, _ = failed(Streak(), 0.0)
    assert failed(streak, 60.0)[1] is None


def test_a_good_answer_ends_the_streak_and_is_news_only_then() -> None:
    """Recovery is told; a good answer after good answers is not."""
    streak, _ = failed(Streak(), 0.0)
    assert answered(streak) == (Streak(), "api_back")
    assert answered(Streak()) == (Streak(), None)
