"""The outcomes of a run by flow, as a table: who published, who searched, what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from soakctl.failures import Failure, exit_of_verdict
from soakctl.render import rate, safe, table
from soakctl.session import Session
from soakctl.shapes import Status
from soakctl.status_text import status_lines

MAX_SHOWN = 40
_HEADING = ["FLOW", "ROUNDS", "HIT", "LATE", "MISS", "ERROR", "SKIPPED", "PRESTORED", "HIT RATE"]
_COUNTS = ("total", "hit", "late", "miss", "error", "skipped", "prestored")


def show(session: Session, run: str | None, *, with_all: bool = False) -> None:
    """Prints the table of a run, or its rows as JSON.

    Args:
        session: how to reach soakd and what to print.
        run: its id; None: my active or latest one.
        with_all: every flow, however many there are.
    """
    found = _flows(session, run)
    if session.json:
        session.emit(found)
        return
    session.say("\n".join(flow_lines(found["flows"], with_all=with_all)))


def show_behind(session: Session, run: str) -> None:
    """Prints the whole table behind a verdict, which must not be lost for want of it."""
    try:
        found = _flows(session, run)
    except Failure as failure:
        _note_later(session, run, failure)
        return
    session.say("\n".join(["", *flow_lines(found["flows"], with_all=True)]))


def conclude(session: Session, final: Status) -> int:
    """Prints the final status with the table behind it; the exit status is the verdict's."""
    run = str(final.get("id"))
    flows: Sequence[Mapping[str, Any]] | None = None
    try:
        flows = _flows(session, run)["flows"]
    except Failure as failure:
        # soakd went away behind the run's end: the verdict is here already.
        _note_later(session, run, failure)
    if session.json:
        session.emit({**final, "flows": flows})
    else:
        lines = status_lines(final, colours=session.colours(), with_edits=False)
        table_lines = [] if flows is None else ["", *flow_lines(flows)]
        session.say("\n".join([*lines, *table_lines]))
        session.note(f"its records: soakctl collect {run}")
    return exit_of_verdict(final.get("verdict"))


def _note_later(session: Session, run: str, failure: Failure) -> None:
    session.note(f"no table of its flows: {failure.message}\n  later: soakctl table {run}")


def flow_lines(flows: Sequence[Mapping[str, Any]], *, with_all: bool = False) -> list[str]:
    """Gives the table; of very many flows those with the most misses and errors."""
    if not flows:
        return ["no round has ended yet"]
    shown = list(flows)
    if len(flows) > MAX_SHOWN and not with_all:
        shown = sorted(flows, key=_badness, reverse=True)[:MAX_SHOWN]
    rows = [_HEADING, *(_row(flow) for flow in shown)]
    lines = table(rows)
    if len(shown) < len(flows):
        lines.append(f"and {len(flows) - len(shown)} more flows with fewer misses: --all")
    return lines


def _row(flow: Mapping[str, Any]) -> list[str]:
    rounds = flow.get("rounds") or {}
    counts = (str(rounds.get(key, 0)) for key in _COUNTS)
    return [safe(flow.get("flow", "?")), *counts, rate(flow.get("hit_rate"))]


def _badness(flow: Mapping[str, Any]) -> tuple[int, int]:
    rounds = flow.get("rounds") or {}
    return rounds.get("miss", 0), rounds.get("error", 0)


def _flows(session: Session, run: str | None) -> Mapping[str, Any]:
    with session.connect() as client:
        return client.call("run.flows", {"run": run})
