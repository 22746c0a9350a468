"""`soakctl extend RUN DURATION`: more time, with a look at whom that delays."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from soakctl.arguments import seconds
from soakctl.failures import Failure
from soakctl.render import duration, safe
from soakctl.session import Session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the run, by how much, and `--yes`."""
    parser.add_argument("run_id", metavar="RUN", help="a run that is not over, as r7")
    parser.add_argument(
        "by_s", type=seconds, metavar="DURATION", help="how much longer, as 3600, 90m, 4h or 1d"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask, whoever is delayed")


def run(session: Session, options: argparse.Namespace) -> int:
    """Extends the run; 75 with the longest possible extension if a promise would be broken."""
    params: dict[str, object] = {"run": options.run_id, "by_s": int(options.by_s)}
    with session.connect() as client:
        if not options.yes:
            meant = client.call("run.extend", params | {"dry_run": True})
            _ask(session, meant)
        answer = client.call("run.extend", params)
    if session.json:
        session.emit(answer)
        return 0
    session.say(
        f"{safe(answer.get('id'))} goes on for {duration(answer['by_s'])} longer,"
        f" {duration(answer['duration_s'])} in all"
    )
    if options.yes:
        _show(session, answer)
    return 0


def _show(session: Session, answer: dict[str, Any]) -> None:
    for delay in answer.get("effect", []):
        delay_s = float(delay["delay_s"])
        word = "later" if delay_s > 0 else "earlier"
        session.note(f"{safe(delay['id'])} is expected to start {duration(abs(delay_s))} {word}")


def _ask(session: Session, meant: dict[str, Any]) -> None:
    """Goes on where nobody is delayed, or where the user agrees.

    Raises:
        Failure: `refused`, the user did not, or cannot be asked.
    """
    _show(session, meant)
    if not any(delay["delay_s"] > 0 for delay in meant.get("effect", [])):
        return
    if not sys.stdin.isatty():
        raise Failure(
            "refused",
            f"cannot extend {safe(meant.get('id'))}: it delays others, and nobody is there to ask",
            advice=["say so beforehand: --yes"],
        )
    sys.stderr.write(f"extend {safe(meant.get('id'))} all the same? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Failure("refused", f"{safe(meant.get('id'))} stays as it is")
