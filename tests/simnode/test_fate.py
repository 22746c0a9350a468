from __future__ import annotations

from collections import Counter

from soakd.simnode.fate import (
    PUBLISH,
    Dice,
    KeywordOdds,
    Odds,
    draw,
    keyword_outcome_of,
    outcome_of,
)

ODDS = Odds(prestored=0.05, hit=0.80, late=0.05)


def test_outcomes_depend_on_seed_and_ordinal_only() -> None:
    """Two nodes with equal seeds deal the same fates."""
    one, other = Dice(7), Dice(7)
    assert [one.outcome(ODDS) for _ in range(50)] == [other.outcome(ODDS) for _ in range(50)]
    assert [outcome_of(ODDS, 7, k) for k in range(50)] != [
        outcome_of(ODDS, 8, k) for k in range(50)
    ]


def test_outcomes_follow_the_configured_rates() -> None:
    """Over many publishes the shares are the configured ones."""
    counts = Counter(outcome_of(ODDS, 1, k) for k in range(20_000))
    shares = {name: round(count / 20_000, 2) for name, count in counts.items()}
    assert shares == {"prestored": 0.05, "hit": 0.80, "late": 0.05, "miss": 0.10}


def test_a_script_replaces_the_rates_and_repeats() -> None:
    """Tests that need exact sums name the outcomes."""
    odds = Odds(0.0, 1.0, 0.0, ("miss", "late"))
    assert [outcome_of(odds, 1, k) for k in range(4)] == ["miss", "late", "miss", "late"]


def test_rates_of_one_and_zero_are_certain() -> None:
    """A rate of 1 leaves nothing to chance."""
    assert {outcome_of(Odds(0.0, 1.0, 0.0), 3, k) for k in range(500)} == {"hit"}
    assert {outcome_of(Odds(0.0, 0.0, 0.0), 3, k) for k in range(500)} == {"miss"}


def test_streams_do_not_disturb_each_other() -> None:
    """Drawing latencies leaves the sequence of outcomes alone."""
    plain, busy = Dice(1), Dice(1)
    for _ in range(20):
        busy.between(PUBLISH + 1, 0.0, 1.0)
    assert plain.outcome(ODDS) == busy.outcome(ODDS)


def test_draws_lie_in_the_unit_interval() -> None:
    """Negative seeds are seeds too."""
    assert all(0.0 <= draw(-5, 1, k) < 1.0 for k in range(1000))


def test_a_drawn_latency_lies_between_its_bounds() -> None:
    """Bounds in the wrong order mean the lower one."""
    dice = Dice(1)
    assert all(2.0 <= dice.between(1, 2.0, 3.0) < 3.0 for _ in range(100))
    assert dice.between(1, 2.0, 1.0) == 2.0


def test_keyword_outcomes_follow_their_own_rates() -> None:
    """What is left to 1 stays on the publisher."""
    odds = KeywordOdds(hit=0.70, late=0.10, miss=0.15)
    counts = Counter(keyword_outcome_of(odds, 1, k) for k in range(20_000))
    shares = {name: round(count / 20_000, 2) for name, count in counts.items()}
    assert shares == {"hit": 0.70, "late": 0.10, "miss": 0.15, "local": 0.05}


def test_keyword_outcomes_have_a_script_and_a_stream_of_their_own() -> None:
    """Publishing sources in between leaves them alone, and the other way round."""
    odds = KeywordOdds(1.0, 0.0, 0.0, ("local", "miss", "late"))
    dice = Dice(1)
    drawn = []
    for _ in range(4):
        dice.outcome(ODDS)
        drawn.append(dice.keyword_outcome(odds))
    assert drawn == ["local", "miss", "late", "local"]
