"""The line through samples: against the plain sums over a list of them."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soakd.core.trend import DAY_S, Trend

ORIGIN_S = 1_790_000_000.0
MIB = 1 << 20


def _trend(samples: list[tuple[float, float]]) -> Trend:
    trend = Trend(ORIGIN_S, 200 * MIB)
    for at_s, value in samples:
        trend.add(ORIGIN_S + at_s, value)
    return trend


def _noisy(n: int, per_day: float, noise: float, keep: float = 0.0) -> list[tuple[float, float]]:
    """Samples of a process every ten seconds; `keep` of each deviation is in the next."""
    chance = random.Random(7)
    away, samples = 0.0, []
    for index in range(n):
        away = keep * away + chance.gauss(0, noise)
        samples.append((10.0 * index, 200 * MIB * (1 + per_day * index * 10 / DAY_S + away)))
    return samples


@pytest.mark.parametrize("keep", [0.0, 0.9, -0.5])
def test_slope_and_interval_are_those_of_the_textbook(keep: float) -> None:
    """Least squares by `statistics`; residuals and their autocorrelation from the list itself."""
    samples = _noisy(4000, 0.3, 0.01, keep)
    times, values = [at / DAY_S for at, _ in samples], [value for _, value in samples]
    slope, start = statistics.linear_regression(times, values)
    mean = statistics.fmean(values)
    line = _trend(samples).line(z=2.0)
    assert line is not None
    assert line.percent_per_day == pytest.approx(100 * slope / mean)
    rest = [value - start - slope * at for at, value in zip(times, values, strict=True)]
    squares = sum(x * x for x in rest)
    rho = sum(x * y for x, y in itertools.pairwise(rest)) / squares
    worth = len(rest) * (1 - rho) / (1 + rho) if rho > 0 else len(rest)
    assert line.effective_n == pytest.approx(worth, rel=1e-6)
    middle = statistics.fmean(times)
    error = math.sqrt(squares / (len(rest) - 2) / sum((t - middle) ** 2 for t in times))
    half = 2.0 * error * math.sqrt(len(rest) / worth) * 100 / mean
    assert line.interval is not None
    # Student's quantile differs from the normal one by less than that for so many samples.
    assert line.interval.high - line.percent_per_day == pytest.approx(half, rel=0.02)
    assert line.percent_per_day - line.interval.low == pytest.approx(half, rel=0.02)


@pytest.mark.parametrize(("samples", "student"), [(7, 2.5706), (12, 2.2281), (32, 2.0423)])
def test_few_samples_have_the_wider_interval_of_student(samples: int, student: float) -> None:
    """Published quantiles for 5, 10 and 30 degrees of freedom."""
    data = [(at, value) for at, value in _noisy(samples, 0.0, 0.01, -0.9)]
    line = _trend(data).line()
    assert line is not None
    assert line.interval is not None
    assert line.effective_n == samples
    times = [at / DAY_S for at, _ in data]
    slope, start = statistics.linear_regression(times, [value for _, value in data])
    squares = sum((value - start - slope * at / DAY_S) ** 2 for at, value in data)
    middle = statistics.fmean(times)
    error = math.sqrt(squares / (samples - 2) / sum((t - middle) ** 2 for t in times))
    percent = 100 / statistics.fmean(value for _, value in data)
    half = line.interval.high - line.percent_per_day
    assert half / (error * percent) == pytest.approx(student, rel=0.01)


def test_the_true_slope_is_in_the_interval_although_samples_resemble_each_other() -> None:
    """Of forty processes with a memory of their own, nearly all; without the correction, few."""
    inside = 0
    for seed in range(40):
        chance, away, samples = random.Random(seed), 0.0, []
        for index in range(2000):
            away = 0.9 * away + chance.gauss(0, 0.01)
            samples.append((10.0 * index, 200 * MIB * (1 + away)))
        line = _trend(samples).line()
        assert line is not None
        assert line.interval is not None
        inside += line.interval.low <= 0 <= line.interval.high
    assert inside >= 35


@given(
    st.lists(st.floats(1 * MIB, 900 * MIB), min_size=3, max_size=30),
    st.integers(0, 30),
)
def test_joined_trends_are_one(values: list[float], cut: int) -> None:
    """The neighbours across the border too."""
    samples = [(10.0 * index, value) for index, value in enumerate(values)]
    joined = _trend(samples[:cut])
    joined.join(_trend(samples[cut:]))
    one, other = joined.line(), _trend(samples).line()
    assert one is not None
    assert other is not None
    assert joined.n == len(values)
    assert one.percent_per_day == pytest.approx(other.percent_per_day, abs=1e-6)
    assert one.effective_n == pytest.approx(other.effective_n, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    "samples",
    [[], [(0.0, 1.0)], [(5.0, 1.0)] * 4, [(float(i), 0.0) for i in range(5)]],
    ids=["none", "one", "one time", "all zero"],
)
def test_what_has_no_slope_has_none(samples: list[tuple[float, float]]) -> None:
    """Neither a division by nothing nor a percentage of nothing."""
    assert _trend(samples).line() is None
    assert _trend([]).span_s == 0


def test_a_perfect_line_has_no_error() -> None:
    """What is left over is noise of the arithmetic and no autocorrelation."""
    trend = Trend(0.0, 0.0)
    for index in range(100):
        trend.add(index * 864.0, 100.0 + index)
    line = trend.line()
    assert line is not None
    assert line.percent_per_day == pytest.approx(100 * 100 / 149.5)
    assert line.interval == pytest.approx((line.percent_per_day, line.percent_per_day), rel=1e-6)
    assert line.span_s == pytest.approx(99 * 864)
    assert line.effective_n == 100


def test_samples_worth_too_little_have_no_interval() -> None:
    """A slope that is known to nobody is better than one that is wrong."""
    trend = Trend(0.0, 100.0)
    for index in range(300):
        trend.add(index * 10.0, 100.0 + (index - 150) ** 2)
    line = trend.line()
    assert line is not None
    assert line.effective_n < 3
    assert line.interval is None
