"""`soakctl queue`: who has a slot, then who waits, in order."""

from __future__ import annotations

import argparse
from typing import Any

from soakctl.render import MISSING, safe, table, utc
from soakctl.session import Session

_HEADING = ["POS", "RUN", "OWNER", "LABEL", "STATE", "REASON", "START", "END BY", "SOAK-HOURS"]
_EPILOG = """\
START is a promise (`by`) for the head of the queue, else an estimate (`~`) that a fairer newcomer
may move; END BY is the latest end. SOAK-HOURS are the owner's, halved for every day since: the user
with the fewest goes first.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares nothing: the queue is one."""
    parser.epilog = _EPILOG


def run(session: Session, _options: argparse.Namespace) -> int:
    """Prints a table, or with `--json` an array of all entries."""
    with session.connect() as client:
        answer = client.call("queue.list")
    runs = answer.get("runs", [])
    if session.json:
        session.emit(runs)
    elif runs:
        session.say("\n".join(table([_HEADING, *(_row(entry) for entry in runs)])))
    else:
        session.note("nothing runs and nothing waits")
    if answer.get("draining"):
        session.note("draining: no run is started until an admin says `soakctl daemon resume`")
    return 0


def _row(entry: dict[str, Any]) -> list[str]:
    return [
        str(entry.get("position") or MISSING),
        safe(entry.get("id", "?")),
        safe(entry.get("owner") or MISSING),
        safe(entry.get("label") or MISSING),
        safe(entry.get("state", "?")),
        safe(entry.get("reason") or MISSING),
        _start(entry),
        utc(entry["ends_by"]) if entry.get("ends_by") else MISSING,
        f"{entry.get('soak_hours', 0.0):.1f}",
    ]


def _start(entry: dict[str, Any]) -> str:
    if entry.get("started_at"):
        return utc(entry["started_at"])
    if not entry.get("expected_start"):
        return MISSING
    return f"{'by' if entry.get('promised') else '~'} {utc(entry['expected_start'])}"
