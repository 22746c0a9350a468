"""The grammar of gates."""

from __future__ import annotations

import pytest

from soakd.core.gates import Gate, parse_gate


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("hit_rate >= 0.85", Gate("hit_rate", ">=", 0.85, "hit_rate >= 0.85")),
        ("visible.p95 < 45s", Gate("visible.p95", "<", 45, "visible.p95 < 45s")),
        ("visible.median<1.5m", Gate("visible.median", "<", 90, "visible.median < 1.5m")),
        ("visible.p5 <= 250ms", Gate("visible.p5", "<=", 0.25, "visible.p5 <= 250ms")),
        ("max_miss_streak <= 10", Gate("max_miss_streak", "<=", 10, "max_miss_streak <= 10")),
        (" panics==0 ", Gate("panics", "==", 0, "panics == 0")),
        ("node_exits == 0", Gate("node_exits", "==", 0, "node_exits == 0")),
        (
            "rss.trend < 5%/day on node b",
            Gate("rss.trend", "<", 5, "rss.trend < 5%/day on node b", node="b"),
        ),
        ("rss.trend > -2.5 % / day", Gate("rss.trend", ">", -2.5, "rss.trend > -2.5%/day")),
        ("measured >= 95%", Gate("measured", ">=", 0.95, "measured >= 95%")),
        ("errors <= 2%", Gate("errors", "<=", 0.02, "errors <= 2%")),
        (
            "abort  hit_rate >= 20% over  last 6h",
            Gate(
                "hit_rate", ">=", 0.2, "abort hit_rate >= 20% over last 6h",
                abort=True, window_s=21600,
            ),
        ),
        (
            "rss.trend < 5%/day over last 90m on node a",
            Gate(
                "rss.trend", "<", 5, "rss.trend < 5%/day on node a over last 90m",
                node="a", window_s=5400,
            ),
        ),
    ],
)  # fmt: skip
def test_every_form_is_read_and_shown_alike(text: str, gate: Gate) -> None:
    """What is stored reads back to the same gate."""
    assert parse_gate(text) == gate
    assert parse_gate(gate.text) == gate


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "cannot read the gate"),
        ("hit rate", "cannot read the gate"),
        ("hit_rate ~ 3", "cannot read the gate"),
        ("hit_rate >= 0.85 or so", "cannot read the gate"),
        ("hit_rate >= 1e3", "cannot read the gate"),
        ("hits >= 3", "the metrics are rounds"),
        ("visible.p0 < 3s", "the metrics are"),
        ("visible.p100 < 3s", "the metrics are"),
        ("rounds >= 3%", "it is a count"),
        ("rounds >= 3s", "it is a count"),
        ("hit_rate >= 85", "it is a share, such as 0.85 or 85%"),
        ("hit_rate >= 85s", "it is a share"),
        ("visible.p95 < 45%", "it is a time, such as 45s"),
        ("rss.trend < 5%", "it is a trend, such as 5%/day"),
        ("rss.trend < 5", "in bare numbers: it is a trend"),
        ("hit_rate == 0.85", "by ==: use >= or <="),
        ("rounds >= -1", "it is never negative"),
        ("hit_rate >= 0.5 on node a", "only rss.trend is a node's own"),
        ("panics == 0 over last 6h", "it is of the whole run"),
        ("rounds >= 1 over last 5s", "expected 1m to 14d"),
        ("rounds >= 1 over last 15d", "expected 1m to 14d"),
        ("rounds >= 1 over last week", "cannot read a duration"),
        ("rounds >= 1 over last 1h over last 2h", "cannot use 'over last' twice"),
        ("abort rounds >= 1", "it never fails"),
    ],
)
def test_a_text_that_is_no_gate_is_refused(text: str, why: str) -> None:
    """The message says what is wrong with it, and what would be right."""
    with pytest.raises(ValueError, match="cannot ") as raised:
        parse_gate(text)
    assert why in str(raised.value)


def test_everything_that_is_wrong_with_a_gate_is_said_at_once() -> None:
    """Unit, window and node."""
    with pytest.raises(ValueError, match="cannot ") as raised:
        parse_gate("abort measured >= 5s on node a over last 3s")
    assert str(raised.value).count("cannot ") == 4


@pytest.mark.parametrize(
    ("metric", "kind", "quantile"),
    [("rounds", "count", None), ("visible.median", "time", 0.5), ("visible.p95", "time", 0.95)],
)
def test_a_gate_knows_what_it_is_about(metric: str, kind: str, quantile: float | None) -> None:
    """Its kind, and its percentile if it has one."""
    gate = Gate(metric, "<", 1, "")
    assert (gate.kind, gate.quantile) == (kind, quantile)
