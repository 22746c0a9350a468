"""What records come to, over the run and over windows: against plain sums over the same lists."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soakd.core.series import MAX_FLOWS, OTHER_FLOWS, Series, epoch_of, sight_of
from tests.core.record_kit import BEGIN_AT, ROUND_S, at, rounds, samples, series

Letters = st.text("hlmesHLME", max_size=80)


@given(Letters)
def test_a_run_is_counted_as_by_hand(letters: str) -> None:
    """Outcomes, rates without the prestored, the longest row of misses among the classified."""
    sums = series(rounds(letters)).rounds
    lower = letters.lower()
    assert sums.counters.total == len(letters)
    assert (sums.hits.n, sums.hits.yes) == (
        sum(map(lower.count, "hlm")),
        sum(map(lower.count, "hl")),
    )
    plain = [letter for letter in letters if letter in "hlm"]
    assert (sums.searched.n, sums.searched.yes) == (len(plain), len(plain) - plain.count("m"))
    classified = "".join(letter for letter in lower if letter in "hlm")
    row = max(map(len, classified.replace("h", "l").split("l")))
    assert sums.misses.longest == row
    assert sums.seen.n == len(classified)


def test_first_sight_is_the_records_and_misses_are_watched_to_the_end() -> None:
    """A miss without its times says nothing; nor does a hit whose sight was not dated."""
    [hit, miss] = rounds("hm", seen_s=12.5, watched_s=41.25)
    assert sight_of(hit) == 12.5
    assert sight_of(miss) == pytest.approx(41.25)
    assert sight_of(miss | {"publish_at": None}) is None
    assert sight_of(miss | {"ended_at": at(BEGIN_AT - 1e6)}) == 0
    assert sight_of(hit | {"first_seen_s": None}) is None
    undated = Series()
    undated.round(hit | {"first_seen_s": None})
    assert undated.rounds.seen.n == 0


@given(Letters, st.sampled_from([60.0, 600.0, 3600.0]))
def test_a_window_holds_the_latest_rounds(letters: str, window_s: float) -> None:
    """To a sixtieth of its length: compared with the rounds of the same slices."""
    records = rounds(letters)
    over = series(records, windows_s=[window_s]).rounds_over(window_s)
    ends = [BEGIN_AT + place * ROUND_S for place in range(1, len(letters) + 1)]
    slices = [int(end // (window_s / 60)) for end in ends]
    kept = [
        letter for letter, number in zip(letters, slices, strict=True) if number > slices[-1] - 60
    ]
    wanted = series(rounds("".join(kept))).rounds
    assert over.counters == wanted.counters
    assert over.hits.effective_n == pytest.approx(wanted.hits.effective_n)
    assert over.misses.longest == wanted.misses.longest
    assert over.seen.quantile_s(0.5) == wanted.seen.quantile_s(0.5)
    missing_s = window_s - (len(kept) * ROUND_S)
    assert len(kept) == len(letters) or missing_s <= window_s / 60 + ROUND_S


def test_windows_end_at_the_latest_record_of_any_kind() -> None:
    """Rounds that stopped an hour ago are out of the last half hour."""
    made = series(rounds("hhhh"), windows_s=[1800.0])
    assert made.rounds_over(1800.0).counters.total == 4
    made.resources({"at": at(BEGIN_AT + 3600), "node": "a", "rss_bytes": 5})
    assert made.rounds_over(1800.0).counters.total == 0
    assert made.rounds_over(None).counters.total == 4


def test_memory_is_kept_by_node_and_window() -> None:
    """The last hour of one node, which grew before."""
    grows = [100.0 + place for place in range(720)]
    made = series(resources=samples("a", grows + [900.0] * 720), windows_s=[3600.0])
    whole, last = made.memory_over("a", None), made.memory_over("a", 3600.0)
    assert whole is not None
    assert last is not None
    assert (whole.n, made.nodes) == (1440, ("a",))
    assert 350 <= last.n <= 360
    line = last.line()
    assert line is not None
    assert line.percent_per_day == pytest.approx(0, abs=1e-6)
    assert made.memory_over("b", None) is None
    assert made.memory_over("b", 3600.0) is None


@pytest.mark.parametrize(
    "record",
    [{}, {"at": "x", "node": "a", "rss_bytes": 1}, {"at": at(5), "node": "a"},
     {"at": at(5), "node": 3, "rss_bytes": 1}],
)  # fmt: skip
def test_samples_that_are_none_are_passed_over(record: dict[str, Any]) -> None:
    """Torn lines and those of other releases."""
    made = Series()
    made.resources(record)
    assert made.nodes == ()


def test_a_clock_that_is_set_back_loses_no_round() -> None:
    """They are counted in the slice of the latest time; so are rounds without one."""
    records = rounds("hmh")
    records[1]["ended_at"] = at(BEGIN_AT - 86400)
    records[2]["ended_at"] = None
    made = series(records, windows_s=[600.0])
    assert made.rounds_over(600.0).counters.total == 3


def test_how_long_a_round_takes() -> None:
    """From end to end; unknown before there are two."""
    assert series(rounds("hmh")).rounds.period_s == ROUND_S
    assert series(rounds("h")).rounds.period_s is None
    assert Series().rounds.period_s is None


@pytest.mark.parametrize(
    ("text", "epoch"),
    [("2026-11-22T00:00:00Z", BEGIN_AT), ("2026-11-22T00:00:00.250Z", BEGIN_AT + 0.25),
     ("2026-11-22T01:00:00+0100", BEGIN_AT), ("2026-11-21T22:30:00-01:30", BEGIN_AT),
     ("2026-13-22T00:00:00Z", None), ("soon", None), (None, None)],
)  # fmt: skip
def test_times_of_records(text: str | None, epoch: float | None) -> None:
    """As soakd writes them, and as the scripts did."""
    assert epoch_of(text) == epoch


@pytest.mark.unmeasured
def test_memory_does_not_grow_with_rounds() -> None:
    """Twenty thousand rounds of as many different times are sixty slices of bounded size."""
    made = Series([3600.0])
    for place in range(20_000):
        made.round(
            {"outcome": "hit", "first_seen_s": place / 7, "ended_at": at(BEGIN_AT + place / 4)}
        )
    window = made._windows[3600.0]
    assert len(window._slices) <= 60
    assert max(len(sums.seen._seen) for _, sums in window._slices) <= 256
    assert len(made.rounds.seen._seen) <= 4096
    assert json.loads(json.dumps(made.rounds.counters.hit)) == 20_000


def test_cold_rounds_are_counted_and_say_nothing_of_the_network() -> None:
    """Nodes that were not warm yet: no rate, no row of misses, no time to the first sight."""
    sums = Series()
    for record in rounds("hmlme"):
        sums.round(record | {"cold": True})
    assert sums.rounds.counters.total == 5
    assert (sums.rounds.hits.n, sums.rounds.misses.longest, sums.rounds.seen.n) == (0, 0, 0)


def test_flows_are_counted_up_to_a_bound() -> None:
    """What a hostile bundle has beyond that counts as one."""
    sums = Series()
    (hit,) = rounds("h")
    for number in range(MAX_FLOWS + 7):
        sums.round(hit | {"flow": f"source:a>n{number}"})
    assert len(sums.flows) == MAX_FLOWS + 1
    assert sums.flows[OTHER_FLOWS].hit == 7
    assert sums.flows["source:a>n0"].hit == 1
