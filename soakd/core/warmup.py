"""Warm-up: when the nodes have settled enough for rounds to say something.

A condition is held against the status of every node; all of them must hold in several samples in
a row. Pure: `soakd.warming` takes the samples and asks here what they come to.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from soakd.core.plan_checks import show

_OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
}
_CONDITION: Final = re.compile(r"\s*([a-z][a-z0-9_]{0,63})\s*(>=|<=|==|>|<)\s*(\d{1,12})\s*")


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition on a number of the status object, such as `live_10m >= 3`."""

    field: str
    op: str
    number: int

    @property
    def text(self) -> str:
        """The condition as it is shown and stored."""
        return f"{self.field} {self.op} {self.number}"

    def holds(self, status: Mapping[str, Any]) -> bool:
        """Whether it holds; a node that does not report the field does not satisfy it."""
        value = status.get(self.field)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return _OPERATORS[self.op](value, self.number)


def parse_condition(text: str) -> Condition:
    """Read a condition.

    Raises:
        ValueError: The text is none; the message says what is wrong with it.
    """
    found = _CONDITION.fullmatch(text)
    if found is None:
        what = "cannot read a condition: expected STATUS_FIELD >= NUMBER, as live_10m >= 3"
        raise ValueError(f"{what}, got {show(text)}")
    return Condition(found[1], found[2], int(found[3]))


@dataclass(frozen=True, slots=True)
class Warmup:
    """How far the warm-up is.

    Attributes:
        conditions: All must hold on all nodes.
        wanted: In how many samples in a row.
        stable: In how many they have held by now.
        seen: What the last sample showed, for people; empty before the first.
    """

    conditions: tuple[Condition, ...]
    wanted: int
    stable: int = 0
    seen: str = ""

    @property
    def is_done(self) -> bool:
        """Whether rounds may begin."""
        return not self.conditions or self.stable >= self.wanted


def begin(conditions: Sequence[str], wanted: int) -> Warmup:
    """Return a warm-up without any sample."""
    return Warmup(tuple(parse_condition(text) for text in conditions), wanted)


def advance(warmup: Warmup, sample: Mapping[str, Mapping[str, Any] | None]) -> Warmup:
    """Take a sample: the status of each node by name, None of one that did not answer."""
    holds = all(
        status is not None and condition.holds(status)
        for status in sample.values()
        for condition in warmup.conditions
    )
    fields = tuple(dict.fromkeys(condition.field for condition in warmup.conditions))
    seen = " ".join(f"{name.upper()} {_values(status, fields)}" for name, status in sample.items())
    return replace(warmup, stable=warmup.stable + 1 if holds else 0, seen=seen)


def _values(status: Mapping[str, Any] | None, fields: Sequence[str]) -> str:
    if status is None:
        return "no answer"
    return " ".join(f"{field}={status.get(field, 'none')}" for field in fields)
