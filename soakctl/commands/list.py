"""`soakctl list [--all]`: runs, newest first."""

from __future__ import annotations

import argparse

from soakctl.render import table
from soakctl.session import Session
from soakctl.status_text import list_rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares `--all`."""
    parser.add_argument("--all", action="store_true", help="also the runs of other users")


def run(session: Session, options: argparse.Namespace) -> int:
    """Prints a table; an empty list says how to begin."""
    with session.connect() as client:
        answer = client.call("run.list", {"all": options.all})
    runs = answer.get("runs", [])
    if session.json:
        session.emit(runs)
    elif runs:
        session.say("\n".join(table(list_rows(runs))))
    else:
        session.note(
            "no runs yet; begin with: A_SRC=/dist/mule-a B_SRC=/dist/mule-b soakctl start 7200"
        )
    if answer.get("truncated"):
        session.note(f"only the newest {len(runs)} are shown")
    return 0
