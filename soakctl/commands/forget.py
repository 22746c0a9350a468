"""`soakctl forget RUN`: give slot and ports back although processes of the run are left."""

from __future__ import annotations

import argparse

from soakctl.session import Session
from soakctl.status_text import pids_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares `RUN`."""
    parser.add_argument("run_id", metavar="RUN", help="a finished run, as r7")


def run(session: Session, options: argparse.Namespace) -> int:
    """Forgets what no signal could end; 75 if nothing of the run is left."""
    with session.connect() as client:
        answer = client.call("run.forget", {"run": options.run_id})
    if session.json:
        session.emit(answer)
    else:
        left = pids_text(answer.get("pids"))
        session.say(f"forgot {answer['id']}: its slot and ports are free; still there: {left}")
    return 0
