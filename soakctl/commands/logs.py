"""`soakctl logs [RUN] [--node a] [-f]`: the run's own log, or what a node printed."""

from __future__ import annotations

import argparse
import codecs
import sys

from soakctl.failures import Detached, Failure
from soakctl.render import safe
from soakctl.session import Session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares `[RUN]`, `--node`, `--tail` and `--follow`."""
    parser.add_argument("run_id", nargs="?", metavar="RUN", help="a run, as r7")
    parser.add_argument("--node", metavar="NAME", help="a node's output instead of the run's log")
    parser.add_argument(
        "--answers", action="store_true", help="the raw answers of a self-test instead"
    )
    parser.add_argument("-n", "--tail", type=_count, metavar="N", help="only the last N lines")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the run is over")


def run(session: Session, options: argparse.Namespace) -> int:
    """Copies the log: byte by byte into a pipe, control characters escaped on a terminal."""
    if options.answers and options.node is not None:
        text = "cannot print --answers of one --node: each answer names its node"
        raise Failure("usage", text)
    write = writer_for(session)
    asked = {
        "run": options.run_id,
        "node": options.node,
        "follow": options.follow,
        "tail": options.tail,
    }
    if options.answers:
        # Not named otherwise: an older soakd refuses what it does not know.
        asked["answers"] = True
    with session.connect() as client:
        try:
            for piece in client.stream("run.logs", asked):
                if piece is not None:
                    write.feed(piece["data"])
        except KeyboardInterrupt:
            name = f" {options.run_id}" if options.run_id else ""
            raise Detached(f"detached; the soak goes on: soakctl watch{name}") from None
    write.end()
    return 0


class _Bytes:
    """Copies as it came."""

    def feed(self, data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def end(self) -> None:
        """Has nothing left."""


class _Lines:
    """Splits into lines, whatever pieces they came in, for a terminal or for JSON."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + self._decoder.decode(data)).split("\n")
        for line in lines:
            self._print(line)

    def end(self) -> None:
        if self._rest:
            self._print(self._rest)

    def _print(self, line: str) -> None:
        if self._session.json:
            self._session.emit({"line": line})
        else:
            self._session.say("\t".join(safe(cell) for cell in line.split("\t")))


def writer_for(session: Session) -> _Bytes | _Lines:
    """Picks how log text is shown on this stdout."""
    return _Lines(session) if session.json or sys.stdout.isatty() else _Bytes()


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"cannot count lines: expected a number, got {text!r}")
    return int(text)
