"""`soakctl status [RUN]`: one question, one answer. The lightest command: mind what it imports."""

from __future__ import annotations

import argparse

from soakctl.session import Session
from soakctl.status_text import status_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares `[RUN]`."""
    parser.add_argument("run_id", nargs="?", metavar="RUN", help="a run, as r7")


def run(session: Session, options: argparse.Namespace) -> int:
    """Prints what soakd knows of the run; 0 whatever its verdict is."""
    with session.connect() as client:
        status = client.call("run.status", {"run": options.run_id})
    if session.json:
        session.emit(status)
    else:
        session.say("\n".join(status_lines(status, colours=session.colours())))
    return 0
