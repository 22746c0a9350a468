"""`soakctl top RUN`: put a queued run before all others."""

from __future__ import annotations

import argparse

from soakctl.places import place_text
from soakctl.session import Session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares `RUN`."""
    parser.add_argument("run_id", metavar="RUN", help="a queued run, as r7")


def run(session: Session, options: argparse.Namespace) -> int:
    """Puts it first, whatever was promised to others; for admins."""
    with session.connect() as client:
        place = client.call("queue.top", {"run": options.run_id})
    if session.json:
        session.emit(place)
    else:
        session.say(place_text(place))
    return 0
