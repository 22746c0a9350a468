"""Intervals, effective numbers, first sight: against published values and textbook sums."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soakd.core.estimates import LagOne, Streak, Survival, effective_n, wilson

# Remission times in weeks under 6-MP (Freireich et al., 1963): the example of the textbooks.
RELAPSED = (6, 6, 6, 7, 10, 13, 16, 22, 23)
CENSORED = (6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35)

Bits = st.lists(st.booleans(), max_size=60)
Times = st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=60)


def _lag_one(bits: list[bool]) -> LagOne:
    lag = LagOne()
    for bit in bits:
        lag.add(bit)
    return lag


def _survival(times: list[tuple[int, bool]]) -> Survival:
    survival = Survival()
    for seconds, seen in times:
        survival.add(seconds, seen=seen)
    return survival


def _freireich() -> Survival:
    return _survival([(t, True) for t in RELAPSED] + [(t, False) for t in CENSORED])


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_has_the_published_values(successes: int, n: int, low: float, high: float) -> None:
    """Newcombe 1998, table I, method 3."""
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(n=st.integers(1, 5000), share=st.floats(0.001, 0.999), z=st.floats(0.5, 4))
def test_wilson_is_where_the_score_test_changes_its_mind(n: int, share: float, z: float) -> None:
    """Its ends are the shares that are just z standard errors (their own) away."""
    low, high = wilson(share * n, n, z)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert abs(share - end) == pytest.approx(z * math.sqrt(end * (1 - end) / n), rel=1e-6)


def test_without_observations_everything_is_possible() -> None:
    """No division by nothing."""
    assert wilson(0, 0) == (0, 1)
    assert _lag_one([]).interval() == (0, 1)
    assert _lag_one([]).share is None
    assert Survival().longest_s is None
    assert Survival().quantile_s(0.5) is None


@given(Bits)
def test_the_autocorrelation_is_that_of_the_textbook(bits: list[bool]) -> None:
    """Sum of neighbours' products over sum of squares, both about the mean."""
    lag = _lag_one(bits)
    if len(set(bits)) < 2:
        assert lag.rho == 0
        return
    mean = sum(bits) / len(bits)
    above = [bit - mean for bit in bits]
    rho = sum(x * y for x, y in itertools.pairwise(above)) / sum(x * x for x in above)
    assert lag.rho == pytest.approx(rho, abs=1e-12)
    wanted = min(len(bits), len(bits) * (1 - rho) / (1 + rho))
    assert lag.effective_n == pytest.approx(max(1, wanted), abs=1e-9)
    assert lag.interval() == pytest.approx(
        wilson(mean * lag.effective_n, lag.effective_n), abs=1e-12
    )


def test_streaks_are_worth_few_rounds_and_alternation_no_more_than_there_are() -> None:
    """Fifty hits, then fifty misses, say hardly more than one round."""
    assert _lag_one([True] * 50 + [False] * 50).effective_n < 2
    assert _lag_one([True, False] * 50).effective_n == 100
    assert _lag_one([True] * 100).effective_n == 100
    assert effective_n(100, 0.5) == pytest.approx(100 / 3)
    assert effective_n(100, 0.999) == 1
    assert effective_n(0, 0.5) == 0


@given(Bits, Bits)
def test_joined_accumulators_are_one(early: list[bool], late: list[bool]) -> None:
    """Order, pairs and streaks across the border."""
    lag, streak = _lag_one(early), Streak()
    lag.join(_lag_one(late))
    assert _as_tuple(lag) == _as_tuple(_lag_one(early + late))
    later = Streak()
    for bit in early:
        streak.add(bit)
    for bit in late:
        later.add(bit)
    streak.join(later)
    text = "".join("x" if bit else "." for bit in early + late)
    assert (streak.n, streak.longest) == (len(text), max(map(len, text.split("."))))
    # What is behind a border may itself be a border.
    last = Streak()
    last.add(True)
    streak.join(last)
    assert streak.longest == max(map(len, f"{text}x".split(".")))


def _as_tuple(lag: LagOne) -> tuple[int, int, int, bool, bool]:
    return (lag.n, lag.yes, lag.pairs, lag.first, lag.last)


@pytest.mark.parametrize(
    ("week", "surviving", "error"),
    [(6, 0.857, 0.0764), (7, 0.807, 0.0869), (10, 0.753, 0.0963), (13, 0.690, 0.1068),
     (16, 0.627, 0.1141), (22, 0.538, 0.1282), (23, 0.448, 0.1346)],
)  # fmt: skip
def test_the_curve_is_that_of_the_textbooks(week: int, surviving: float, error: float) -> None:
    """Estimate and Greenwood's standard error, the latter as the number that gives it."""
    seen = _freireich().within(week)
    assert 1 - seen.share == pytest.approx(surviving, abs=5e-4)
    assert seen.is_watched
    assert math.sqrt(seen.share * (1 - seen.share) / seen.n) == pytest.approx(error, abs=5e-5)


def test_percentiles_that_misses_hide_are_unknown() -> None:
    """The textbook's median is 23 weeks; 95 % had not relapsed when watching ended."""
    survival = _freireich()
    assert survival.quantile_s(0.5) == 23
    assert survival.quantile_s(0.95) is None
    assert survival.longest_s == pytest.approx(35)
    assert not survival.within(36).is_watched
    assert survival.within(6, inclusive=False) == (0, 21, True)


@given(Times, st.integers(0, 60))
def test_the_curve_is_the_product_over_everyone_still_watched(
    times: list[tuple[int, bool]], limit: int
) -> None:
    """Kaplan and Meier by the definition, for any data."""
    unseen, greenwood = 1.0, 0.0
    for moment in sorted({t for t, seen in times if seen and t <= limit}):
        watched = sum(t >= moment for t, _ in times)
        died = sum(t == moment and seen for t, seen in times)
        unseen *= 1 - died / watched
        greenwood += died / (watched * (watched - died)) if died < watched else 0
    survival = _survival(times)
    share, n, _ = survival.within(limit)
    assert share == pytest.approx(1 - unseen, abs=1e-9)
    if unseen * unseen * greenwood > 1e-9:
        assert share * unseen / n == pytest.approx(unseen * unseen * greenwood)
    elif share == 0:
        assert n == sum(t >= limit for t, _ in times)
    half = survival.quantile_s(0.5)
    if half is not None:
        assert survival.within(half).share >= 0.5 - 1e-9
        assert survival.within(half, inclusive=False).share < 0.5


@given(Times, Times)
def test_joined_curves_are_one(early: list[tuple[int, bool]], late: list[tuple[int, bool]]) -> None:
    """The order of rounds does not matter to it."""
    joined, whole = _survival(early), _survival(early + late)
    joined.join(_survival(late))
    assert [joined.within(t) for t in range(0, 60, 7)] == [whole.within(t) for t in range(0, 60, 7)]


def test_times_are_rounded_up_to_a_tenth() -> None:
    """Never to an earlier time than the sight's own; 10.3 is no 10.4."""
    survival = Survival()
    for seconds in (10.3, 10.301, -1.0):
        survival.add(seconds, seen=True)
    assert survival.quantile_s(1 / 3) == 0
    assert survival.quantile_s(2 / 3) == 10.3
    assert survival.quantile_s(1) == 10.4


def test_memory_is_bounded_by_coarser_steps() -> None:
    """Ten thousand different times in 64 steps: still right to one step, never too early."""
    survival = Survival(max_times=64)
    for tenths in range(10_000):
        survival.add(tenths / 10, seen=True)
    assert len(survival._seen) <= 64
    assert survival.step == 256
    for share in (0.1, 0.5, 0.95):
        quantile_s = survival.quantile_s(share)
        assert quantile_s is not None
        assert 1000 * share - 0.1 <= quantile_s <= 1000 * share + 25.6
    fine = Survival()
    fine.add(1.0, seen=True)
    fine.join(survival)
    assert fine.step == 256
    assert fine.n == 10_001
