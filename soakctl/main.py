"""Entry point of soakctl: the table of verbs, and the one place where failures become text.

A verb's module is imported only when that verb was typed.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from importlib import import_module

from soakctl import streams
from soakctl.failures import BROKEN_PIPE, Detached, Failure
from soakctl.render import safe
from soakctl.session import Session
from soakd.wire.errors import EXIT_DETACHED, exit_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

VERBS: dict[str, str] = {
    "start": "submit a soak; it goes on when this terminal closes",
    "soak": "rounds on nodes that `start --no-rounds` keeps",
    "status": "show a run: state, rounds, hit rate, nodes, verdict",
    "watch": "follow a run live",
    "wait": "wait for the end of a run, or for ready nodes; exits by its verdict",
    "logs": "print the log of a run or of one of its nodes",
    "list": "list runs",
    "queue": "show who has a slot, who waits, why, and when each starts",
    "table": "compare the runs of a group, or the flows of a run",
    "plan": "check a plan file, or show the plan of a run",
    "stop": "stop a run, or take it out of the queue",
    "hold": "keep a queued run back",
    "release": "let a held run wait for its turn again",
    "top": "put a queued run before all others (admins)",
    "extend": "let the rounds of a run go on for longer",
    "label": "give a run another label",
    "forget": "free slot and ports of a run that left processes (admins)",
    "collect": "fetch the records of a run as one .tar.gz without secrets",
    "triage": "from a bundle or run folder to a verdict, without a daemon",
    "selftest": "check every flow between two nodes: keyword and source, both ways",
    "demo": "see it all work in a minute, with two simulated nodes",
    "daemon": "ask the daemon about itself, drain it, or shut it down",
}
EPILOG = """\
Without RUN a verb means your active or latest run.

exit status:
  0 done or passed    1 failed verdict       2 usage            3 inconclusive
  4 stopped, aborted  5 harness error       66 no such run     69 no daemon
  75 refused for now  77 not allowed        78 bad plan       124 time-out
  130 detached or interrupted
"""


# Of a write to stdout, which names no file; EBADF: it was opened for reading.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Finds the width of the terminal itself: argparse imports shutil for that, 3 ms a start."""

    def __init__(self, prog: str) -> None:
        try:
            columns = os.get_terminal_size().columns
        except OSError:
            columns = 0
        super().__init__(prog, width=(columns or 80) - 2)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit status of `soakctl`.
    """
    streams.stand_in()
    try:
        status = _run(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
    except Failure as failure:
        _explain(failure)
        return exit_status(failure.code)
    except Detached as parting:
        streams.tell(f"\n{parting}")
        return EXIT_DETACHED
    except KeyboardInterrupt:
        streams.tell("\ninterrupted")
        return EXIT_DETACHED
    except BrokenPipeError:
        # The reader of our output has left; the interpreter must not flush into the pipe again.
        streams.leave_stdout()
        return BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - no traceback ever reaches a user
        if isinstance(error, OSError) and error.errno in _UNWRITABLE and error.filename is None:
            streams.leave_stdout()
            streams.tell(f"soakctl: cannot write to stdout: {error.strerror}")
            return exit_status("internal")
        return _apologise(error)
    return status


def _run(argv: list[str]) -> int:
    parser = _top_parser()
    options = parser.parse_args(argv)
    if options.version:
        from importlib.metadata import version

        print(f"soakctl {version('soakd')}")
        return 0
    if options.verb is None:
        parser.print_help(sys.stderr)
        return exit_status("usage")
    if options.verb not in VERBS:
        parser.error(_unknown(options.verb))
    command = import_module(f"soakctl.commands.{options.verb}")
    verb_parser = argparse.ArgumentParser(
        prog=f"soakctl {options.verb}",
        description=VERBS[options.verb],
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    command.add_arguments(verb_parser)
    # Also after the verb, where most people type them; absent there, what stood before holds.
    _add_common(verb_parser, default=argparse.SUPPRESS)
    rest = options.rest
    del options.rest
    verb_parser.parse_args(rest, namespace=options)
    session = Session(socket=options.socket, json=bool(options.json))
    status: int = command.run(session, options)
    return status


def _top_parser() -> argparse.ArgumentParser:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb.ljust(width)}  {summary}" for verb, summary in VERBS.items())
    parser = argparse.ArgumentParser(
        prog="soakctl",
        usage="soakctl [--socket PATH] [--json] VERB ...   (VERB --help says more)",
        description=f"Soak tests of peer-to-peer nodes, run by soakd.\n\nverbs:\n{verbs}",
        epilog=EPILOG,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    _add_common(parser, default=None)
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument("verb", nargs="?", metavar="VERB", help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _add_common(parser: argparse.ArgumentParser, *, default: str | None) -> None:
    parser.add_argument("--socket", metavar="PATH", default=default, help="socket of soakd")
    parser.add_argument("--json", action="store_true", default=default, help="print JSON on stdout")


def _unknown(verb: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(verb, VERBS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(VERBS)}"
    return f"cannot {safe(verb)}: there is no such verb; {hint}"


def _explain(failure: Failure) -> None:
    streams.tell(f"soakctl: {safe(failure.message)}")
    for problem in failure.problems:
        streams.tell(f"  - {safe(problem)}")
    for advice in failure.advice:
        streams.tell(f"  {safe(advice)}")


def _apologise(error: Exception) -> int:
    if os.environ.get("SOAKCTL_TRACEBACK"):
        import traceback

        traceback.print_exception(error)
    streams.tell(
        f"soakctl: cannot go on: {type(error).__name__}: {safe(error)}\n"
        "  this is a fault of soakctl; SOAKCTL_TRACEBACK=1 shows where"
    )
    return exit_status("internal")
