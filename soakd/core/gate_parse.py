"""The grammar of gates: `[abort] METRIC OP NUMBER [on node N] [over last T]`.

Import from `soakd.core.gates`. docs/gates.md is the description for people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from soakd.core.duration import parse_duration
from soakd.core.errors import UserError

Kind: TypeAlias = Literal["count", "share", "time", "trend"]


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition, such as `hit_rate >= 0.85`.

    Attributes:
        threshold: A count, a share of 0 to 1, seconds, or percent per day.
        text: The gate as it is shown and stored; `parse_gate` reads it to an equal gate.
        abort: It stops a live run as soon as it fails.
        node: Whose samples count; None: every node must satisfy it.
        window_s: Only the last so many seconds count; None: the whole run.
    """

    metric: str
    op: str
    threshold: float
    text: str
    abort: bool = False
    node: str | None = None
    window_s: float | None = None

    @property
    def kind(self) -> Kind:
        """What its threshold is."""
        return METRICS.get(self.metric, "time")

    @property
    def quantile(self) -> float | None:
        """The share of a metric like `visible.p95`; None of other metrics."""
        found = _QUANTILE.fullmatch(self.metric)
        if found is None:
            return None
        return 0.5 if found[1] == "median" else int(found[1][1:]) / 100


METRICS: Final[Mapping[str, Kind]] = {
    "rounds": "count",
    "node_exits": "count",
    "panics": "count",
    "max_miss_streak": "count",
    "errors": "share",
    "measured": "share",
    "hit_rate": "share",
    "search_hit_rate": "share",
    "rss.trend": "trend",
}
"""By name; `visible.median` and `visible.pNN` are times."""
NEVER_FAIL: Final = frozenset({"rounds", "measured"})
"""Too little was measured: that says nothing bad about the nodes."""
NEED_PROCESSES: Final[Mapping[str, str]] = {
    "node_exits": "nobody here sees how their processes end",
    "panics": "nobody here reads what they print",
    "rss.trend": "nobody here samples their processes",
}
"""By metric why it cannot be judged of nodes that somebody else runs."""
MIN_WINDOW_S: Final = 60.0
MAX_WINDOW_S: Final = 14 * 86400.0

_WHOLE_RUN: Final = frozenset({"node_exits", "panics", "measured"})
_NAMES: Final = ", ".join([*METRICS, "visible.median", "visible.pNN"])
_QUANTILE = re.compile(r"visible\.(median|p[1-9][0-9]?)")
_UNITS: Final[Mapping[Kind, Mapping[str, float]]] = {
    "count": {"": 1},
    "share": {"": 1, "%": 0.01},
    "time": {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600},
    "trend": {"%/day": 1},
}
_WRONG_UNIT: Final[Mapping[Kind, str]] = {
    "count": "it is a count",
    "share": "it is a share, such as 0.85 or 85%",
    "time": "it is a time, such as 45s",
    "trend": "it is a trend, such as 5%/day",
}
_GATE = re.compile(
    r"(?P<abort>abort\s+)?(?P<metric>[a-z_]+(?:\.[a-z0-9_]+)?)\s*(?P<op>>=|<=|==|>|<)\s*"
    r"(?P<number>-?[0-9]{1,15}(?:\.[0-9]{1,15})?)\s*(?P<unit>%\s*/\s*day|%|[a-z]{1,4})?"
    r"(?P<rest>(?:\s+(?:on\s+node|over\s+last)\s+\S+)*)"
)
_CLAUSE = re.compile(r"(on\s+node|over\s+last)\s+(\S+)")


def parse_gate(text: str) -> Gate:
    """Read a gate such as `hit_rate >= 0.85` or `abort errors <= 5% over last 6h`.

    Raises:
        ValueError: The text is no gate; the message says everything that is wrong with it.
    """
    found = _GATE.fullmatch(text.strip())
    if found is None:
        why = (
            "cannot read the gate: expected [abort] METRIC OP NUMBER [on node N] [over last T]"
            " such as 'hit_rate >= 0.85' or 'abort errors <= 20% over last 2h'"
        )
        raise ValueError(why)
    metric, op, unit = found["metric"], found["op"], re.sub(r"\s", "", found["unit"] or "")
    if metric not in METRICS and _QUANTILE.fullmatch(metric) is None:
        why = f"cannot judge {metric!r}: the metrics are {_NAMES}"
        raise ValueError(why)
    kind = METRICS.get(metric, "time")
    problems: list[str] = []
    clauses = _clauses(found["rest"], problems)
    node, window = clauses.get("on"), clauses.get("over")
    if unit not in _UNITS[kind]:
        problems.append(f"cannot judge {metric!r} in {unit or 'bare numbers'}: {_WRONG_UNIT[kind]}")
    # In a wrong unit the number itself says nothing.
    threshold = round(float(found["number"]) * _UNITS[kind].get(unit, 0), 12)
    window_s = None if window is None else _window_s(window, problems)
    gate = Gate(metric, op, threshold, "", found["abort"] is not None, node, window_s)
    problems += _problems(gate)
    if problems:
        raise ValueError("; ".join(problems))
    shown = f"{metric} {op} {found['number']}{unit}"
    shown += "" if node is None else f" on node {node}"
    shown += "" if window is None else f" over last {window}"
    shown = f"abort {shown}" if gate.abort else shown
    return Gate(metric, op, threshold, shown, gate.abort, node, window_s)


def _clauses(rest: str, problems: list[str]) -> dict[str, str]:
    """Return what follows the condition, by its first word."""
    clauses: dict[str, str] = {}
    for words, value in _CLAUSE.findall(rest):
        word = words.split()[0]
        if word in clauses:
            problems.append(f"cannot use '{' '.join(words.split())}' twice")
        clauses[word] = value
    return clauses


def _window_s(text: str, problems: list[str]) -> float | None:
    try:
        window_s = parse_duration(text)
    except UserError as error:
        problems.append(error.message)
        return None
    if not MIN_WINDOW_S <= window_s <= MAX_WINDOW_S:
        problems.append(f"cannot look at the last {text}: expected 1m to 14d")
        return None
    return window_s


def _problems(gate: Gate) -> list[str]:
    """Say what a gate asks for that it cannot have."""
    metric, problems = gate.metric, []
    if gate.op == "==" and gate.kind != "count":
        problems.append(f"cannot compare {metric!r} by ==: use >= or <=")
    if gate.kind == "share" and gate.threshold > 1:
        problems.append(f"cannot judge {metric!r} by {gate.threshold:g}: {_WRONG_UNIT['share']}")
    if gate.kind != "trend" and gate.threshold < 0:
        problems.append(f"cannot judge {metric!r} by {gate.threshold:g}: it is never negative")
    if gate.node is not None and gate.kind != "trend":
        problems.append(f"cannot judge {metric!r} on one node: only rss.trend is a node's own")
    if gate.window_s is not None and metric in _WHOLE_RUN:
        problems.append(f"cannot judge {metric!r} over a window: it is of the whole run")
    if gate.abort and metric in NEVER_FAIL:
        problems.append(f"cannot abort a run by {metric!r}: it never fails")
    return problems
