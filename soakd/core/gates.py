"""Gates and the verdict of a run: the one place to import everything about them from.

A gate is one condition; `judge` holds the gates of a plan against the facts of a run, `verdict`
makes one word and one sentence of the result, its cause and the gates. `broken` is asked while a
run is live, for the gates that stop it. Grammar: `gate_parse`; rules: `gate_rules`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from soakd.core.gate_parse import NEED_PROCESSES, Gate, parse_gate
from soakd.core.gate_rules import AT_END, LIVE, Facts, Look, Needs, Status, find, needs_text
from soakd.core.model import WARMUP_TIMEOUT, Cause, Result, Verdict

__all__ = [
    "ATTACHED_GATES",
    "DEFAULT_GATES",
    "NEED_PROCESSES",
    "Facts",
    "Gate",
    "GateResult",
    "Needs",
    "Status",
    "broken",
    "evaluate",
    "gates_of",
    "judge",
    "parse_gate",
    "readable",
    "verdict",
    "windows_of",
]


@dataclass(frozen=True, slots=True)
class GateResult:
    """What came of one gate.

    Attributes:
        text: One sentence with the value, the condition, and what is still needed.
        needs: How much longer an inconclusive one would need, if anybody can say.
    """

    gate: Gate
    status: Status
    value: float | None
    text: str
    needs: Needs | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the result as it stands in `run.json` and on the wire."""
        needs = self.needs
        return {
            "gate": self.gate.text,
            "status": self.status,
            "value": self.value,
            "text": self.text,
            "needs": None if needs is None else {"rounds": needs.rounds, "s": needs.seconds},
        }


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


ATTACHED_GATES: Final[tuple[Gate, ...]] = tuple(
    gate for gate in DEFAULT_GATES if gate.metric not in NEED_PROCESSES
)
"""In place of the default ones for nodes that somebody else runs: what can be known of these."""


def gates_of(texts: Sequence[str]) -> tuple[Gate, ...]:
    """Return the gates of a plan: its own, or the default ones if it has none.

    A plan whose gates only stop it early keeps the default ones beside them.

    Raises:
        ValueError: A text is no gate.
    """
    return _with_defaults(tuple(parse_gate(text) for text in texts), DEFAULT_GATES)


def windows_of(texts: Sequence[str]) -> tuple[float, ...]:
    """Return the windows that the gates of a plan look at; texts that are no gates have none."""
    found = (gate.window_s for gate in readable(texts))
    return tuple(dict.fromkeys(window_s for window_s in found if window_s is not None))


def readable(texts: Sequence[str]) -> tuple[Gate, ...]:
    """Return those gates of a plan that this release can read, without the default ones."""
    return tuple(gate for gate in map(_read, texts) if isinstance(gate, Gate))


def judge(texts: Sequence[str], facts: Facts, *, attached: bool = False) -> tuple[GateResult, ...]:
    """Hold the gates of a plan against the facts, in order; never raises.

    A gate that this release cannot read, as of a plan that another one took in, and one whose
    check breaks, are a `harness_error` and never passed over.

    Args:
        texts: The plan's.
        facts: What is known of the run.
        attached: Somebody else ran the nodes.
    """
    unread = tuple(item for item in map(_read, texts) if isinstance(item, GateResult))
    defaults = ATTACHED_GATES if attached else DEFAULT_GATES
    return evaluate(_with_defaults(readable(texts), defaults), facts) + unread


def evaluate(gates: Sequence[Gate], facts: Facts) -> tuple[GateResult, ...]:
    """Hold every gate against the facts, in order; never raises."""
    return tuple(_evaluate(gate, facts, AT_END) for gate in gates)


def broken(gates: Sequence[Gate], facts: Facts) -> GateResult | None:
    """Return the first gate that stops a live run now; None if it may go on.

    It is asked again and again, and every look is one more chance to be wrong: so a rate or a
    trend must be beyond its threshold with 99.9 % instead of 95 %.
    """
    for gate in gates:
        if gate.abort:
            result = _evaluate(gate, facts, LIVE)
            if result.status == "failed":
                return result
    return None


def verdict(
    result: Result, cause: Cause | None, gate_results: Sequence[GateResult]
) -> tuple[Verdict, str]:
    """Return the verdict of a run and one sentence why.

    Of several reasons the worst counts: harness_error, failed, aborted, inconclusive.
    """
    broke, failed, unmet = (
        "; ".join(item.text for item in gate_results if item.status == status)
        for status in ("harness_error", "failed", "inconclusive")
    )
    why = "no cause was recorded" if cause is None else cause.text
    if result == "aborted":
        return "aborted", why
    if result == "failed":
        return "failed" if cause is not None and cause.is_nodes else "harness_error", why
    if broke:
        return "harness_error", broke
    if failed:
        return "failed", failed
    if result == "stopped":
        return "aborted", why
    if cause is not None and cause.code == WARMUP_TIMEOUT:
        return "inconclusive", why
    if unmet:
        return "inconclusive", unmet
    return "passed", f"all {len(gate_results)} gates hold"


def _with_defaults(gates: tuple[Gate, ...], defaults: tuple[Gate, ...]) -> tuple[Gate, ...]:
    if all(gate.abort for gate in gates):
        return defaults + gates
    return gates


def _read(text: str) -> Gate | GateResult:
    try:
        return parse_gate(text)
    except ValueError as error:
        return GateResult(Gate("", "", 0.0, text), "harness_error", None, f"{error}, got {text!r}")


def _evaluate(gate: Gate, facts: Facts, look: Look) -> GateResult:
    try:
        found = find(gate, facts, look)
    except Exception as error:  # noqa: BLE001 - a bug in one rule must not cost the verdict
        text = f"cannot judge {gate.text}: {error!r}"
        return GateResult(gate, "harness_error", None, text)
    text = f"{gate.metric} is {found.text}, wanted {gate.text}"
    if found.needs is not None:
        text += f"; {needs_text(found.needs)}"
    return GateResult(gate, found.status, found.value, text, found.needs)
