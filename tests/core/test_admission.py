"""Who may queue what: every refusal says what to do."""

from __future__ import annotations

import pytest

from soakd.core.admission import (
    UserLimits,
    check_counts,
    check_disk,
    check_duration,
    disk_bytes,
    node_bytes_per_hour,
)
from soakd.core.errors import UserError
from soakd.core.plan import latest_end_s
from tests.core.helpers import make_plan

LIMITS = UserLimits(queued_per_user=2, max_duration_s=7200.0, submissions_per_minute=3)


def test_a_duration_up_to_the_limit_is_accepted() -> None:
    """To the second."""
    check_duration(make_plan(duration_s=7200.0), LIMITS)
    with pytest.raises(UserError, match="duration_s: the rounds may take 7201 s") as caught:
        check_duration(make_plan(duration_s=7201.0), LIMITS)
    assert caught.value.code == "bad_plan"
    assert caught.value.details["problems"]


def test_a_number_of_rounds_counts_as_long_as_it_may_take() -> None:
    """Each with all its time-outs."""
    check_duration(make_plan(duration_s=None, rounds=1), LIMITS)
    with pytest.raises(UserError, match="rounds: the rounds may take"):
        check_duration(make_plan(duration_s=None, rounds=1000), LIMITS)


def test_a_full_queue_of_ones_own_is_refused() -> None:
    """Naming the number and two ways out."""
    check_counts(LIMITS, 1, (), 0.0)
    with pytest.raises(UserError, match="2 of yours wait, queued_per_user is 2; wait until one"):
        check_counts(LIMITS, 2, (), 0.0)


def test_too_many_submissions_within_a_minute_are_refused() -> None:
    """Until the oldest of them is a minute old."""
    check_counts(LIMITS, 0, (0.0, 10.0, 20.0), 60.0)
    with pytest.raises(UserError, match=r"you submitted 3 within a minute.*try again in 5 s"):
        check_counts(LIMITS, 0, (0.0, 10.0, 20.0), 55.0)
    with pytest.raises(UserError, match=r"you submitted 4 within a minute.*try again in 15 s"):
        check_counts(LIMITS, 0, (0.0, 10.0, 20.0, 30.0), 55.0)


def test_what_cannot_fit_even_alone_is_refused() -> None:
    """With both sizes."""
    check_disk(1000, 1000)
    with pytest.raises(UserError, match="it may write 2 MB, and 1 MB are free"):
        check_disk(2_000_000, 1_000_000)


def test_the_forecast_counts_nodes_and_hours_up_to_the_budget() -> None:
    """A run is ended when it has written that much."""
    plan = make_plan(duration_s=3600.0)
    assert disk_bytes(plan, 1000.0, 1 << 40) == int(2 * latest_end_s(plan) / 3600 * 1000)
    assert disk_bytes(plan, 1000.0, 10) == 10


def test_only_an_hour_or_more_tells_what_a_node_writes() -> None:
    """The beginning of a short one weighs too much."""
    assert node_bytes_per_hour(4000, 2, 7200.0) == 1000.0
    assert node_bytes_per_hour(4000, 2, 3599.0) is None
