"""`soakctl wait [RUN] [--timeout T]`: for scripts; the exit status is the verdict."""

from __future__ import annotations

import argparse

from soakctl.arguments import seconds
from soakctl.ending import conclude
from soakctl.session import Session
from soakctl.watching import Follower, Silent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares `[RUN]` and `--timeout`."""
    parser.add_argument("run_id", nargs="?", metavar="RUN", help="a run, as r7")
    parser.add_argument(
        "--timeout", type=seconds, metavar="T", help="give up after so long, as 90, 30s, 10m or 4h"
    )


def run(session: Session, options: argparse.Namespace) -> int:
    """Waits silently, then prints the final status."""
    final = Follower(session, Silent(), timeout_s=options.timeout).follow(options.run_id)
    return conclude(session, final)
