"""`soakctl wait [RUN] [--for ready] [--timeout T]`: for scripts; the exit status is the verdict.

With `--for ready` it is 0 as soon as all nodes are ready (and warm, if the plan wants that).
"""

from __future__ import annotations

import argparse

from soakctl.arguments import seconds
from soakctl.ending import conclude
from soakctl.session import Session
from soakctl.shapes import Status
from soakctl.status_text import headline
from soakctl.watching import Follower, Silent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares `[RUN]` and `--timeout`."""
    parser.add_argument("run_id", nargs="?", metavar="RUN", help="a run, as r7")
    parser.add_argument(
        "--for",
        dest="awaited",
        choices=("ready", "finished"),
        default="finished",
        help="ready: until rounds may begin (default: until the run is finished)",
    )
    parser.add_argument(
        "--timeout", type=seconds, metavar="T", help="give up after so long, as 90, 30s, 10m or 4h"
    )


def run(session: Session, options: argparse.Namespace) -> int:
    """Waits silently, then prints the final status."""
    until = is_ready if options.awaited == "ready" else None
    follower = Follower(session, Silent(), timeout_s=options.timeout, until=until)
    final = follower.follow(options.run_id)
    if final.get("state") == "finished":
        return conclude(session, final)
    if session.json:
        session.emit(final)
    else:
        session.say(headline(final, colours=session.colours()))
    return 0


def is_ready(status: Status) -> bool:
    """Whether rounds may begin.

    Of a run that is stopping nobody knows whether they ever could: its verdict will say.
    """
    return status.get("state") == "running"
