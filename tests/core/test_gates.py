"""Gates and verdicts."""

from __future__ import annotations

import random

import pytest

from soakd.core import gate_rules
from soakd.core.estimates import LagOne, wilson
from soakd.core.gates import (
    ATTACHED_GATES,
    DEFAULT_GATES,
    Facts,
    Gate,
    GateResult,
    Needs,
    Status,
    broken,
    evaluate,
    gates_of,
    judge,
    parse_gate,
    readable,
    verdict,
    windows_of,
)
from soakd.core.model import Cause, Result, Verdict
from tests.core.record_kit import ROUND_S, facts, rounds, samples, series

NODE_CAUSE = Cause("node_exited", "node b ended with exit status 1", "b")
HOST_CAUSE = Cause("disk_full", "cannot write: no space left")
HOUR_S = 3600.0


def _one(text: str, about: Facts) -> GateResult:
    return evaluate((parse_gate(text),), about)[0]


def _results(*statuses: Status) -> tuple[GateResult, ...]:
    gate = DEFAULT_GATES[0]
    return tuple(GateResult(gate, status, 0.0, f"gate {status}") for status in statuses)


def _memory(values: list[float], every_s: float = 10.0, node: str = "b") -> Facts:
    return Facts(series(resources=samples(node, values, every_s)), 0, 0, 1.0)


def _wave(n: int, per_day: float, every_s: float = 10.0) -> list[float]:
    """Memory that grows, with noise."""
    chance = random.Random(3)
    return [1e8 * (1 + per_day * i * every_s / 86400 + chance.gauss(0, 0.001)) for i in range(n)]


def test_the_default_gates_are_those_of_the_design() -> None:
    """Five conditions; hit rates are shown, not judged."""
    assert [gate.text for gate in DEFAULT_GATES] == [
        "rounds >= 1",
        "node_exits == 0",
        "panics == 0",
        "errors <= 5%",
        "measured >= 90%",
    ]
    assert gates_of(()) == DEFAULT_GATES
    assert gates_of(("hit_rate > 0.5",)) == (parse_gate("hit_rate > 0.5"),)


def test_gates_that_only_abort_leave_the_default_ones() -> None:
    """Who stops a hopeless run early still wants a verdict of the others."""
    abort = "abort hit_rate >= 10% over last 2h"
    assert gates_of((abort,)) == (*DEFAULT_GATES, parse_gate(abort))
    both = (abort, "panics == 0", "errors <= 5% over last 6h")
    assert [gate.text for gate in gates_of(both)] == list(both)
    assert windows_of(both) == (2 * HOUR_S, 6 * HOUR_S)
    assert windows_of(("no gate",)) == ()


def test_the_default_gates_hold_exactly_at_their_thresholds() -> None:
    """5 % errors and 90 % measured are still good."""
    good = facts("h" * 95 + "e" * 5, measured=0.9)
    assert {item.status for item in evaluate(DEFAULT_GATES, good)} == {"passed"}


@pytest.mark.parametrize(
    ("text", "about", "status", "shown"),
    [
        ("errors <= 5%", facts("hhhhhhhhhe"), "failed", "10.0%"),
        ("errors <= 5%", facts("s"), "inconclusive", "unknown"),
        ("node_exits == 0", facts(node_exits=1), "failed", "node_exits is 1"),
        ("panics == 0", facts(panics=2), "failed", "panics is 2"),
        ("panics == 0", facts(), "passed", "panics is 0"),
        ("rounds >= 1", facts("s"), "inconclusive", "rounds is 0"),
        ("rounds >= 3", facts("hms"), "inconclusive", "1 more round (50 s) would tell"),
        ("rounds <= 1", facts("hms"), "inconclusive", "rounds is 2"),
        ("measured >= 90%", facts(measured=0.5), "inconclusive", "50.0%"),
        ("measured >= 90%", facts(measured=None), "inconclusive", "unknown"),
        ("hit_rate >= 0.8", facts("eeee"), "inconclusive", "unknown"),
        ("hit_rate >= 1", facts("hhl"), "passed", "100.0%"),
        ("hit_rate >= 100%", facts("hhm"), "failed", "66.7%"),
        ("search_hit_rate > 0.8", facts("H" * 80 + "m" * 20), "failed", "0.0%"),
        ("max_miss_streak <= 3", facts("hmmemhhhh"), "passed", "max_miss_streak is 3"),
        ("max_miss_streak < 3", facts("hmmemhhhh"), "failed", "max_miss_streak is 3"),
        ("max_miss_streak <= 3", facts("hmm"), "inconclusive", "2 in 3 rounds"),
        ("max_miss_streak <= 3", facts("mmmm"), "failed", "max_miss_streak is 4"),
        ("max_miss_streak < 3", facts("hhh"), "passed", "max_miss_streak is 0"),
        ("max_miss_streak >= 0", facts("h"), "passed", "max_miss_streak is 0"),
        ("max_miss_streak <= 3", facts("es"), "inconclusive", "unknown"),
        ("visible.p95 < 45s", facts("es"), "inconclusive", "unknown"),
        ("rss.trend < 5%/day", facts("hhh"), "inconclusive", "about 60.0 min more"),
    ],
)  # fmt: skip
def test_a_gate_says_its_value_and_what_was_wanted(
    text: str, about: Facts, status: Status, shown: str
) -> None:
    """Too little measured is inconclusive; what was plainly counted is compared as it is."""
    item = _one(text, about)
    assert item.status == status
    assert shown in item.text
    assert text in item.text


def test_a_rate_is_decided_by_its_interval() -> None:
    """90 of 100 are surely above 80 %, surely below 97 %, and neither for 85 %."""
    about = facts(("h" * 9 + "m") * 10)
    low, high = wilson(90, 100)
    assert 0.8 < low < 0.85 < high < 0.97
    assert _one("hit_rate >= 80%", about).status == "passed"
    assert _one("hit_rate >= 97%", about).status == "failed"
    assert _one("hit_rate <= 80%", about).status == "failed"
    assert _one("hit_rate < 97%", about).status == "passed"
    item = _one("hit_rate >= 85%", about)
    assert item.status == "inconclusive"
    assert item.value == pytest.approx(0.9)
    assert f"interval {low:.1%} to {high:.1%}, 100 rounds worth 100" in item.text


def test_an_undecided_rate_says_how_much_longer_it_needs() -> None:
    """With so many rounds of the same kind the gate is decided, and with a few less it is not."""
    about = facts(("h" * 9 + "m") * 10)
    needs = _one("hit_rate >= 85%", about).needs
    assert needs is not None
    assert needs.rounds is not None
    assert needs.seconds == pytest.approx(needs.rounds * ROUND_S)
    enough = 100 + needs.rounds
    assert wilson(0.9 * enough, enough).low >= 0.85
    assert wilson(0.9 * (enough - 2), enough - 2).low < 0.85
    assert f"about {needs.rounds} more rounds (" in _one("hit_rate >= 85%", about).text


def test_streaks_make_a_rate_less_certain() -> None:
    """The same ninety of a hundred, the misses in one row."""
    streaky, even = facts("h" * 90 + "m" * 10), facts(("h" * 9 + "m") * 10)
    assert _one("hit_rate >= 80%", even).status == "passed"
    item = _one("hit_rate >= 80%", streaky)
    assert item.status == "inconclusive"
    lag = LagOne()
    for letter in "h" * 90 + "m" * 10:
        lag.add(letter == "h")
    assert f"100 rounds worth {lag.effective_n:.0f}" in item.text
    assert lag.effective_n < 15


def test_a_rate_at_its_threshold_needs_for_ever() -> None:
    """No number of rounds decides it: none is named."""
    item = _one("hit_rate >= 90%", facts(("h" * 9 + "m") * 10))
    assert (item.status, item.needs) == ("inconclusive", None)


def test_one_round_has_no_time_to_say() -> None:
    """How long a round takes is known from the second on."""
    item = _one("hit_rate >= 50%", facts("h"))
    assert item.needs == Needs(3, None)
    assert item.text.endswith("about 3 more rounds would tell")


def _sights(times: list[float], misses: int, watched_s: float = 60.0) -> Facts:
    chance = random.Random(5)
    order = [*times, *[None] * misses]
    chance.shuffle(order)
    records = []
    for letter, time in zip(rounds("h" * len(order), watched_s=watched_s), order, strict=True):
        outcome = "miss" if time is None else "hit"
        records.append(letter | {"outcome": outcome, "first_seen_s": time})
    return Facts(series(records), 0, 0, 1.0)


def test_a_percentile_is_decided_by_the_share_that_is_seen_in_time() -> None:
    """All but one of 300 within 30 s: the 95th percentile is below that, and not below 5 s."""
    about = _sights([10.0 + index / 15 for index in range(299)], misses=1)
    assert _one("visible.p95 < 45s", about).status == "passed"
    assert _one("visible.p95 <= 30s", about).status == "passed"
    assert _one("visible.p95 > 45s", about).status == "failed"
    item = _one("visible.p95 < 20s", about)
    assert item.status == "failed"
    assert item.value == pytest.approx(29, abs=0.2)
    assert "seen within 20 s" in item.text
    assert _one("visible.p95 >= 20s", about).status == "passed"
    assert _one("visible.median < 24s", about).status == "passed"


def test_a_percentile_that_misses_hide_fails_where_it_was_watched_for() -> None:
    """A fifth never seen within a minute: the 95th percentile is beyond that."""
    about = _sights([20.0] * 80, misses=20)
    item = _one("visible.p95 < 45s", about)
    assert (item.status, item.value) == ("failed", None)
    assert "beyond 60.0 s (80.0% seen within 45 s)" in item.text
    later = _one("visible.p95 < 90s", about)
    assert later.status == "inconclusive"
    assert "no round was watched for longer" in later.text
    assert later.needs is None


def test_a_percentile_of_few_rounds_is_inconclusive() -> None:
    """Thirty in time do not prove that nineteen of twenty are; the number that does is named."""
    item = _one("visible.p95 < 45s", _sights([20.0] * 30, misses=0))
    assert item.status == "inconclusive"
    assert item.needs is not None
    assert item.needs.rounds is not None
    enough = 30 + item.needs.rounds
    assert wilson(enough, enough).low >= 0.95
    assert wilson(enough - 2, enough - 2).low < 0.95
    exact = _one("visible.p95 < 20s", _sights([20.0] * 300, misses=0))
    assert exact.status == "failed"


def test_memory_that_grows_fails_and_steady_memory_passes() -> None:
    """Ten per cent a day against five; of several nodes the worst counts."""
    grows, steady = _wave(4000, 0.10), _wave(4000, 0.0)
    about = Facts(series(resources=samples("a", steady) + samples("b", grows)), 0, 0, 1.0)
    assert _one("rss.trend < 5%/day on node a", about).status == "passed"
    item = _one("rss.trend < 5%/day", about)
    assert item.status == "failed"
    assert "on node b (interval +" in item.text
    assert item.value == pytest.approx(10, abs=1)
    both = _one("rss.trend < 50%/day", about)
    assert (both.status, both.value) == ("passed", item.value)
    rising = _one("rss.trend > 5%/day", about)
    assert rising.status == "failed"
    assert "on node a" in rising.text


def test_a_trend_that_is_not_clear_says_how_much_longer_it_needs() -> None:
    """Its error falls with time to the power of one and a half."""
    item = _one("rss.trend < 5%/day on node b", _memory(_wave(400, 0.049)))
    assert item.status == "inconclusive"
    assert item.needs is not None
    assert item.needs.rounds is None
    assert item.needs.seconds is not None
    assert 600 < item.needs.seconds < 86400
    assert "more would tell" in item.text


def test_a_short_trend_is_inconclusive() -> None:
    """Half an hour, whatever it shows; unless a window of that length was asked for."""
    values = _wave(180, 5.0)
    item = _one("rss.trend < 5%/day", _memory(values))
    assert item.status == "inconclusive"
    assert item.needs == Needs(None, 3600.0 - 1790.0)
    window_s = 1800.0
    made = series(resources=samples("b", values), windows_s=[window_s])
    assert _one("rss.trend < 5%/day over last 30m", Facts(made, 0, 0, 1)).status == "failed"
    assert _one("rss.trend < 5%/day on node x", _memory(values)).status == "inconclusive"


def test_a_trend_exactly_at_its_threshold_needs_for_ever() -> None:
    """Nothing to divide by."""
    about = _memory([1e8 + (-1) ** index * 1e6 for index in range(1000)])
    found = _one("rss.trend < 5%/day", about)
    assert found.value is not None
    gate = Gate("rss.trend", "<", found.value, "x")
    item = evaluate([gate], about)[0]
    assert (item.status, item.needs) == ("inconclusive", None)


def test_a_window_forgets_what_was_before() -> None:
    """A bad night counts in the whole, not in the last hour."""
    about = facts("m" * 100 + "h" * 100, windows_s=[HOUR_S])
    assert _one("hit_rate >= 60% over last 1h", about).status == "passed"
    assert _one("max_miss_streak <= 10 over last 1h", about).status == "passed"
    assert _one("max_miss_streak <= 10", about).status == "failed"
    assert _one("errors <= 2% over last 1h", about).status == "passed"
    assert _one("visible.median <= 30s over last 1h", about).status == "passed"
    assert _one("rounds >= 80 over last 1h", about).status == "inconclusive"


def test_a_gate_that_cannot_be_read_is_a_harness_error() -> None:
    """As of a plan that another release took in; the other gates are judged all the same."""
    items = judge(("panics == 0", "warp >= 9"), facts("h"))
    assert [item.status for item in items] == ["passed", "harness_error"]
    assert "cannot judge 'warp'" in items[1].text
    assert items[1].gate.text == "warp >= 9"
    assert readable(("warp >= 9", "panics == 0")) == (parse_gate("panics == 0"),)


def test_a_check_that_breaks_is_a_harness_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in one rule costs neither the others nor the run's end."""
    gates = (parse_gate("panics == 0"), parse_gate("hit_rate >= 0.5 over last 2h"))
    # No window of this length was kept: a fault of ours.
    items = evaluate(gates, facts("h" * 50))
    assert [item.status for item in items] == ["passed", "harness_error"]
    assert "cannot judge hit_rate >= 0.5 over last 2h: KeyError" in items[1].text
    assert verdict("completed", None, items) == ("harness_error", items[1].text)
    assert broken([parse_gate(f"abort {gates[1].text}")], facts("m" * 50)) is None


@pytest.mark.parametrize(
    ("text", "letters", "breaks"),
    [
        ("abort hit_rate >= 50%", "m" * 9, False),
        ("abort hit_rate >= 50%", "m" * 12, True),
        ("abort hit_rate >= 90%", "hhhhhhhhhm" * 8 + "m", False),
        ("hit_rate >= 50%", "m" * 100, False),
        ("abort errors <= 50%", "e" * 9, False),
        ("abort errors <= 50%", "e" * 12, True),
        ("abort errors <= 5%", "h" * 90 + "e" * 6, False),
        ("abort errors <= 50%", "h" * 90 + "e" * 6, False),
        ("abort max_miss_streak <= 5", "hmmmmm", False),
        ("abort max_miss_streak <= 5", "hmmmmmm", True),
        ("abort visible.median < 10s", "h" * 9, False),
        ("abort visible.median < 10s", "h" * 12, True),
    ],
)
def test_only_an_abort_gate_that_is_surely_broken_stops_a_run(
    text: str, letters: str, *, breaks: bool
) -> None:
    """With 99.9 % and from the tenth round on, since it is looked at again and again."""
    result = broken([parse_gate(text)], facts(letters))
    assert (result is not None) is breaks


@pytest.mark.unmeasured
def test_looking_after_every_round_hardly_ever_stops_a_good_run() -> None:
    """Of 200 runs of 100 rounds just above the threshold, no more than a few."""
    gate, stopped = parse_gate("abort hit_rate >= 80%"), 0
    for seed in range(200):
        chance, made = random.Random(seed), facts().series
        about = Facts(made, 0, 0, 1.0)
        for letter in rounds("".join("m" if chance.random() < 0.18 else "h" for _ in range(100))):
            made.round(letter)
            if broken([gate], about) is not None:
                stopped += 1
                break
    assert stopped <= 10


def test_a_result_is_plain_data() -> None:
    """As `run.json` has it."""
    item = _one("rounds >= 3", facts("hm"))
    assert item.to_dict() == {
        "gate": "rounds >= 3",
        "status": "inconclusive",
        "value": 2,
        "text": "rounds is 2, wanted rounds >= 3; 1 more round (50 s) would tell",
        "needs": {"rounds": 1, "s": 50.0},
    }
    assert _one("panics == 0", facts()).to_dict()["needs"] is None


@pytest.mark.parametrize(
    ("needs", "text"),
    [
        (Needs(40, 9000.0), "about 40 more rounds (2.5 h) would tell"),
        (Needs(1, None), "1 more round would tell"),
        (Needs(None, 3 * 86400.0), "about 3.0 d more would tell"),
        (Needs(None, 100.0), "about 100 s more would tell"),
    ],
)
def test_how_much_longer_in_words(needs: Needs, text: str) -> None:
    """Rounds, and the time they take where it is known."""
    assert gate_rules.needs_text(needs) == text


@pytest.mark.parametrize(
    ("result", "cause", "statuses", "wanted", "why"),
    [
        ("completed", None, ("passed", "passed"), "passed", "all 2 gates hold"),
        ("completed", None, ("passed", "inconclusive"), "inconclusive", "gate inconclusive"),
        ("completed", None, ("inconclusive", "failed"), "failed", "gate failed"),
        ("completed", None, ("failed", "harness_error"), "harness_error", "gate harness_error"),
        ("stopped", Cause("stop_asked", "x"), ("harness_error",), "harness_error", "gate harn"),
        ("stopped", Cause("stop_asked", "stopped by al"), ("passed",), "aborted", "stopped by al"),
        ("stopped", Cause("stop_asked", "x"), ("inconclusive",), "aborted", "x"),
        ("completed", Cause("warmup_timeout", "not warm"), ("passed",), "inconclusive", "not warm"),
        ("stopped", Cause("stop_asked", "x"), ("failed",), "failed", "gate failed"),
        ("aborted", Cause("rebooted", "the host rebooted"), (), "aborted", "the host rebooted"),
        ("aborted", Cause("rebooted", "rebooted"), ("failed",), "aborted", "rebooted"),
        ("failed", NODE_CAUSE, (), "failed", NODE_CAUSE.text),
        ("failed", NODE_CAUSE, ("inconclusive",), "failed", NODE_CAUSE.text),
        ("failed", HOST_CAUSE, (), "harness_error", HOST_CAUSE.text),
        ("failed", HOST_CAUSE, ("failed",), "harness_error", HOST_CAUSE.text),
        ("failed", None, (), "harness_error", "no cause was recorded"),
    ],
)
def test_the_worst_of_several_reasons_is_the_verdict(
    result: Result,
    cause: Cause | None,
    statuses: tuple[Status, ...],
    wanted: Verdict,
    why: str,
) -> None:
    """harness_error over failed over aborted over inconclusive over passed."""
    word, sentence = verdict(result, cause, _results(*statuses))
    assert (word, sentence.startswith(why)) == (wanted, True)


def test_all_gates_that_do_not_hold_are_named() -> None:
    """One sentence, with every reason of the same weight."""
    assert verdict("completed", None, _results("failed", "passed", "failed")) == (
        "failed",
        "gate failed; gate failed",
    )


def test_facts_have_the_rounds_by_outcome() -> None:
    """For whoever shows them beside the gates."""
    assert facts("hme").counters.total == 3


def test_nodes_of_somebody_else_are_judged_by_what_can_be_known_of_them() -> None:
    """Not by how their processes end, print or grow; a plan's own gates stand for themselves."""
    known = ["rounds >= 1", "errors <= 5%", "measured >= 90%"]
    assert [gate.text for gate in ATTACHED_GATES] == known
    assert [item.gate.text for item in judge((), facts("h"), attached=True)] == known
    assert len(judge((), facts("h"))) == len(DEFAULT_GATES)
    (own,) = judge(("hit_rate >= 0.1",), facts("h"), attached=True)
    assert own.gate.text == "hit_rate >= 0.1"
