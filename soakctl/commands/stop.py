"""`soakctl stop [RUN]`: ask, then show the ladder until no process of the run is left."""

from __future__ import annotations

import argparse

from soakctl.client import Client
from soakctl.displays import Rungs
from soakctl.failures import Detached
from soakctl.session import Session
from soakctl.status_text import headline
from soakctl.watching import Follower


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares `[RUN]` and `--no-wait`."""
    parser.add_argument("run_id", nargs="?", metavar="RUN", help="a run, as r7")
    parser.add_argument(
        "--no-wait", action="store_true", help="return at once, while the nodes still stop"
    )


def run(session: Session, options: argparse.Namespace) -> int:
    """Stops the run; 0 when nothing of it is left, whatever its verdict is."""
    if options.no_wait:
        with session.connect() as client:
            return _report(session, client.call("run.stop", {"run": options.run_id}))

    def ask(client: Client, run_id: str) -> None:
        client.call("run.stop", {"run": run_id})
        if not session.json:
            session.say(f"stopping {run_id}")

    try:
        final = Follower(session, Rungs(session), ask=ask).follow(options.run_id)
    except Detached as parting:
        text = str(parting).replace("the soak goes on", "the run goes on stopping")
        raise Detached(text) from None
    return _report(session, dict(final))


def _report(session: Session, status: dict[str, object]) -> int:
    if session.json:
        session.emit(status)
    else:
        session.say(headline(status, colours=session.colours()))
    return 0
