"""Gates and verdicts."""

from __future__ import annotations

import pytest

from soakd.core.gates import (
    DEFAULT_GATES,
    Facts,
    GateResult,
    Status,
    evaluate,
    gates_of,
    parse_gate,
    verdict,
)
from soakd.core.model import Cause, Result, Verdict
from soakd.core.stats import Counters

GOOD = Facts(Counters(hit=95, error=5), node_exits=0, panics=0, measured=0.9)
NODE_CAUSE = Cause("node_exited", "node b ended with exit status 1", "b")
HOST_CAUSE = Cause("disk_full", "cannot write: no space left")


def _one(text: str, facts: Facts) -> GateResult:
    return evaluate((parse_gate(text),), facts)[0]


def _results(*statuses: Status) -> tuple[GateResult, ...]:
    gate = DEFAULT_GATES[0]
    return tuple(GateResult(gate, status, 0.0, f"gate {status}") for status in statuses)


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


def test_the_default_gates_hold_exactly_at_their_thresholds() -> None:
    """5 % errors and 90 % measured are still good."""
    assert {item.status for item in evaluate(DEFAULT_GATES, GOOD)} == {"passed"}


@pytest.mark.parametrize(
    ("text", "facts", "status", "shown"),
    [
        ("errors <= 5%", Facts(Counters(hit=9, error=1), 0, 0, 1.0), "failed", "10.0%"),
        ("errors <= 5%", Facts(Counters(skipped=1), 0, 0, 1.0), "inconclusive", "unknown"),
        ("node_exits == 0", Facts(Counters(), 1, 0, 1.0), "failed", "node_exits is 1"),
        ("panics == 0", Facts(Counters(), 0, 2, 1.0), "failed", "panics is 2"),
        ("rounds >= 1", Facts(Counters(skipped=1), 0, 0, 1.0), "inconclusive", "rounds is 0"),
        ("measured >= 90%", Facts(Counters(), 0, 0, 0.5), "inconclusive", "50.0%"),
        ("measured >= 90%", Facts(Counters(), 0, 0, None), "inconclusive", "unknown"),
        ("hit_rate >= 0.85", Facts(Counters(hit=8, miss=2), 0, 0, 1.0), "failed", "80.0%"),
        ("hit_rate >= 0.8", Facts(Counters(hit=8, miss=2), 0, 0, 1.0), "passed", "80.0%"),
        ("hit_rate >= 0.8", Facts(Counters(error=8), 0, 0, 1.0), "inconclusive", "unknown"),
        (
            "search_hit_rate > 0.5",
            Facts(Counters(hit=8, miss=2, prestored=8, prestored_hit=8), 0, 0, 1.0),
            "failed",
            "0.0%",
        ),
    ],
)
def test_a_gate_says_its_value_and_what_was_wanted(
    text: str, facts: Facts, status: Status, shown: str
) -> None:
    """Too little measured is inconclusive, everything else that does not hold failed."""
    item = _one(text, facts)
    assert item.status == status
    assert shown in item.text
    assert text in item.text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hit rate", "cannot read the gate"),
        ("hit_rate ~ 3", "cannot read the gate"),
        ("hits >= 3", "the metrics are rounds"),
        ("rounds >= 3%", "it is a count"),
    ],
)
def test_a_text_that_is_no_gate_is_refused(text: str, why: str) -> None:
    """The message says what is wrong with it."""
    with pytest.raises(ValueError, match=why):
        parse_gate(text)


@pytest.mark.parametrize(
    ("result", "cause", "statuses", "wanted", "why"),
    [
        ("completed", None, ("passed", "passed"), "passed", "all 2 gates hold"),
        ("completed", None, ("passed", "inconclusive"), "inconclusive", "gate inconclusive"),
        ("completed", None, ("inconclusive", "failed"), "failed", "gate failed"),
        ("stopped", Cause("stop_asked", "stopped by al"), ("passed",), "aborted", "stopped by al"),
        ("stopped", Cause("stop_asked", "x"), ("inconclusive",), "aborted", "x"),
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
    assert verdict(result, cause, _results(*statuses)) == (wanted, why)


def test_all_gates_that_do_not_hold_are_named() -> None:
    """One sentence, with every reason of the same weight."""
    assert verdict("completed", None, _results("failed", "passed", "failed")) == (
        "failed",
        "gate failed; gate failed",
    )
