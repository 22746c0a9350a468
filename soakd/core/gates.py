"""Gates and the verdict of a run.

A gate is one condition; `evaluate` holds gates against the facts of a run, `verdict` makes
one word and one sentence of the result, its cause and the gates. Called once, when the
ladder is done.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from soakd.core.model import Cause, Result, Verdict
from soakd.core.stats import Counters, hit_rate, search_hit_rate

Status = Literal["passed", "failed", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What gates are held against.

    Attributes:
        measured: Share of the intended time in which rounds were made, 0 to 1; None if
            there was nothing to measure.
    """

    counters: Counters
    node_exits: int
    panics: int
    measured: float | None


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition, such as `hit_rate >= 0.85`; shares are kept as 0 to 1."""

    metric: str
    op: str
    threshold: float
    text: str


@dataclass(frozen=True, slots=True)
class GateResult:
    """What came of one gate; `text` names the value and the condition."""

    gate: Gate
    status: Status
    value: float | None
    text: str


_OPS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}


def _rounds(facts: Facts) -> float:
    """Rounds that came to an end; a skipped one measured nothing."""
    return facts.counters.total - facts.counters.skipped


def _errors(facts: Facts) -> float | None:
    rounds = _rounds(facts)
    return None if rounds == 0 else facts.counters.error / rounds


_METRICS: Final[Mapping[str, Callable[[Facts], float | None]]] = {
    "rounds": _rounds,
    "node_exits": lambda facts: facts.node_exits,
    "panics": lambda facts: facts.panics,
    "errors": _errors,
    "measured": lambda facts: facts.measured,
    "hit_rate": lambda facts: hit_rate(facts.counters),
    "search_hit_rate": lambda facts: search_hit_rate(facts.counters),
}
_SHARES: Final = frozenset({"errors", "measured", "hit_rate", "search_hit_rate"})
# Too little was measured: that says nothing bad about the nodes.
_NEVER_FAIL: Final = frozenset({"rounds", "measured"})
_GATE = re.compile(r"\s*([a-z_]+)\s*(>=|<=|==|>|<)\s*([0-9]+(?:\.[0-9]+)?)\s*(%?)\s*")


def parse_gate(text: str) -> Gate:
    """Read a gate such as `hit_rate >= 0.85` or `errors <= 5%`.

    Raises:
        ValueError: The text is no gate; the message says why.
    """
    found = _GATE.fullmatch(text)
    if found is None:
        why = "cannot read the gate: expected METRIC OP NUMBER such as 'hit_rate >= 0.85'"
        raise ValueError(why)
    metric, op, number, percent = found.groups()
    if metric not in _METRICS:
        why = f"cannot judge {metric!r}: the metrics are {', '.join(_METRICS)}"
        raise ValueError(why)
    if percent and metric not in _SHARES:
        why = f"cannot judge {metric!r} in percent: it is a count"
        raise ValueError(why)
    threshold = float(number) / (100 if percent else 1)
    return Gate(metric, op, threshold, f"{metric} {op} {number}{percent}")


DEFAULT_GATES: Final[tuple[Gate, ...]] = tuple(
    parse_gate(text)
    for text in (
        "rounds >= 1",
        "node_exits == 0",
        "panics == 0",
        "errors <= 5%",
        "measured >= 90%",
    )
)


def gates_of(texts: Sequence[str]) -> tuple[Gate, ...]:
    """Return the gates of a plan: its own, or the default ones if it has none.

    Raises:
        ValueError: A text is no gate.
    """
    return tuple(parse_gate(text) for text in texts) or DEFAULT_GATES


def evaluate(gates: Sequence[Gate], facts: Facts) -> tuple[GateResult, ...]:
    """Hold every gate against the facts, in order."""
    return tuple(_evaluate(gate, facts) for gate in gates)


def verdict(
    result: Result, cause: Cause | None, gate_results: Sequence[GateResult]
) -> tuple[Verdict, str]:
    """Return the verdict of a run and one sentence why.

    Of several reasons the worst counts: harness_error, failed, aborted, inconclusive.
    """
    failed = [item.text for item in gate_results if item.status == "failed"]
    unmet = [item.text for item in gate_results if item.status == "inconclusive"]
    why = "no cause was recorded" if cause is None else cause.text
    if result == "aborted":
        return "aborted", why
    if result == "failed":
        return "failed" if cause is not None and cause.is_nodes else "harness_error", why
    if failed:
        return "failed", _joined(failed)
    if result == "stopped":
        return "aborted", why
    if unmet:
        return "inconclusive", _joined(unmet)
    return "passed", f"all {len(gate_results)} gates hold"


def _evaluate(gate: Gate, facts: Facts) -> GateResult:
    value = _METRICS[gate.metric](facts)
    if value is None:
        text = f"{gate.metric} is unknown, wanted {gate.text}"
        return GateResult(gate, "inconclusive", None, text)
    shown = f"{value:.1%}" if gate.metric in _SHARES else f"{value:g}"
    text = f"{gate.metric} is {shown}, wanted {gate.text}"
    if _OPS[gate.op](value, gate.threshold):
        return GateResult(gate, "passed", value, text)
    status: Status = "inconclusive" if gate.metric in _NEVER_FAIL else "failed"
    return GateResult(gate, status, value, text)


def _joined(texts: Sequence[str]) -> str:
    return "; ".join(texts)
