"""`soakctl watch [RUN]`: follow a run; Ctrl-C detaches and the soak goes on."""

from __future__ import annotations

import argparse

from soakctl.displays import display_for
from soakctl.ending import conclude
from soakctl.session import Session
from soakctl.watching import Follower


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares `[RUN]`."""
    parser.add_argument("run_id", nargs="?", metavar="RUN", help="a run, as r7")


def run(session: Session, options: argparse.Namespace) -> int:
    """Follows the run to its end; 0, since whoever wants the verdict as exit status says `wait`."""
    final = Follower(session, display_for(session)).follow(options.run_id)
    if not session.json:
        conclude(session, final)
    return 0
