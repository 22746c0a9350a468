"""`soakctl label RUN [TEXT]`: another label, or none."""

from __future__ import annotations

import argparse

from soakctl.render import safe
from soakctl.session import Session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares `RUN` and the label."""
    parser.add_argument("run_id", metavar="RUN", help="a run, as r7")
    parser.add_argument("label", nargs="?", metavar="TEXT", help="absent: the run gets none")


def run(session: Session, options: argparse.Namespace) -> int:
    """Labels the run, in any state of it."""
    params = {"run": options.run_id}
    if options.label is not None:
        params["label"] = options.label
    with session.connect() as client:
        answer = client.call("run.label", params)
    if session.json:
        session.emit(answer)
    elif answer.get("label") is None:
        session.say(f"{safe(answer.get('id'))} has no label now")
    else:
        session.say(f"{safe(answer.get('id'))} is labelled {safe(answer['label'])}")
    return 0
