"""`soakctl daemon info|drain|resume|shutdown`: the daemon itself."""

from __future__ import annotations

import argparse

from soakctl.render import duration, safe, utc
from soakctl.session import Session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what to do with the daemon."""
    parser.add_argument(
        "what",
        choices=("info", "drain", "resume", "shutdown"),
        metavar="info|drain|resume|shutdown",
        help="info: who and where it is; drain: start no run any more; resume: start runs again;"
        " shutdown: stop all runs first, then the daemon (admins)",
    )


def run(session: Session, options: argparse.Namespace) -> int:
    """Asks the daemon; `shutdown` returns when it has been told, not when it is gone."""
    with session.connect() as client:
        answer = client.call(f"daemon.{options.what}")
    if session.json:
        session.emit(answer)
    elif options.what == "shutdown":
        session.say("soakd stops all runs, then ends")
    elif options.what in ("drain", "resume"):
        word = "no run is started" if answer.get("draining") else "runs are started again"
        session.say(f"{word}; {answer.get('running')} running, {answer.get('queued')} queued")
    else:
        session.say("\n".join(_lines(answer)))
    return 0


def _lines(info: dict[str, object]) -> list[str]:
    shown = dict(info)
    uptime_s = shown.pop("uptime_s", None)
    if isinstance(uptime_s, (int, float)):
        shown["uptime"] = duration(uptime_s)
    if shown.get("started_at"):
        shown["started_at"] = utc(shown["started_at"])
    if isinstance(shown.get("draining"), bool):
        shown["draining"] = "yes, no run is started" if shown["draining"] else "no"
    width = max((len(key) for key in shown), default=0)
    return [
        f"{safe(key.replace('_', ' ')).ljust(width)}  {safe(value)}" for key, value in shown.items()
    ]
