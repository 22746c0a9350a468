"""`soakctl demo`: a private soakd and two simulated nodes for a minute; nothing stays behind."""

from __future__ import annotations

import argparse
import os
import signal

from soakctl.arguments import seconds
from soakctl.displays import display_for
from soakctl.ending import conclude
from soakctl.failures import Detached, Failure
from soakctl.interrupts import Interrupts
from soakctl.private_daemon import PrivateDaemon
from soakctl.render import duration, safe
from soakctl.session import Session
from soakctl.shapes import Status
from soakctl.simulated import demo_request, install_nodes
from soakctl.watching import Follower

_DEFAULT_S = 60.0
_FOREWORD = """\
This is a SIMULATION: a private soakd and two simulated rust-mule nodes on this machine.
No network is touched, and nothing stays behind (folder {folder}).
The soak takes {time} after the nodes' warm-up; Ctrl-C ends it at any moment.
"""
_AFTERWORD = """\

The demo's soakd, nodes and folder are gone. A soak of your own two node folders:
  soakd --background
  A_SRC=/dist/mule-a B_SRC=/dist/mule-b soakctl start 7200\
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares `--seconds`."""
    parser.add_argument(
        "--seconds", type=seconds, default=_DEFAULT_S, metavar="N", help="length of the soak (60)"
    )


def run(session: Session, options: argparse.Namespace) -> int:
    """Runs the demo; the exit status is its verdict, or 130 after Ctrl-C with all cleaned up."""
    with Interrupts() as interrupts:
        try:
            status = _soak(session, options.seconds, interrupts)
        except (Detached, KeyboardInterrupt):
            return _ended_early(session, interrupts)
        except Exception:
            if interrupts.first is None:
                raise
            # The signal went to our children as well, or took the terminal away.
            return _ended_early(session, interrupts)
        session.note(_AFTERWORD)
        return status


def _ended_early(session: Session, interrupts: Interrupts) -> int:
    if interrupts.first != signal.SIGHUP:
        session.note("ended early; the demo's soakd, nodes and folder are gone")
    return 128 + (interrupts.first or signal.SIGINT)


def _soak(session: Session, length_s: float, interrupts: Interrupts) -> int:
    with PrivateDaemon() as daemon:
        session.note(_FOREWORD.format(folder=daemon.folder, time=duration(length_s)))
        private = Session(socket=daemon.socket, json=session.json, environ=session.environ)
        nodes = install_nodes(os.path.join(daemon.folder, "nodes"))
        daemon.launch()
        try:
            with interrupts.allowed():
                final = _follow(private, daemon, demo_request(nodes, length_s))
        except (Detached, KeyboardInterrupt):
            session.note("\nstopping the nodes, a few seconds")
            raise
        except Failure:
            _quote(session, daemon)
            raise
        if final.get("verdict") == "harness_error":
            _quote(session, daemon)
        return _conclude(private, final)


def _follow(private: Session, daemon: PrivateDaemon, request: dict[str, object]) -> Status:
    daemon.wait_until_ready()
    with private.connect() as client:
        started = client.call("run.start", request)
    return Follower(private, display_for(private), reconnect=False).follow(str(started["id"]))


def _quote(session: Session, daemon: PrivateDaemon) -> None:
    """Saves the only clue to a fault of soakd from the folder that is about to go."""
    session.note("the last words of the demo's soakd:")
    session.note("\n".join(safe(line) for line in daemon.last_words()))


def _conclude(session: Session, final: Status) -> int:
    if not session.json:
        session.say("")
    return conclude(session, final, hint=False)
