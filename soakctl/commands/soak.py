"""`soakctl soak [RUN]`: rounds on nodes that `start --no-rounds` keeps."""

from __future__ import annotations

import argparse
from typing import Any

from soakctl import soaks
from soakctl.arguments import seconds
from soakctl.session import Session
from soakctl.watching import submit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares RUN, how many rounds or how long, what is measured, and whether to wait."""
    add = parser.add_argument
    add("run_id", nargs="?", metavar="RUN", help="a run whose nodes are kept, as r7")
    add("--rounds", type=int, metavar="N", help="so many rounds (500 without --for)")
    add(
        "--for", dest="duration", type=seconds, metavar="T", help="rounds for so long, as 90m or 4h"
    )
    add("--scenario", metavar="S", help="source_probe, keyword_probe or dht_selftest")
    add("--set", action="append", metavar="K=V", help="set one field of what is measured")
    add("--gate", action="append", metavar="G", help="a gate of this soak; repeatable")
    then = parser.add_mutually_exclusive_group()
    then.add_argument("--wait", action="store_true", help="wait; the exit status is the verdict")
    then.add_argument("--watch", action="store_true", help="watch; the exit status is the verdict")


def run(session: Session, options: argparse.Namespace) -> int:
    """Begins the soak; with `--wait` or `--watch` the exit status is its verdict."""
    begun = submit(session, "run.soak", {"run": options.run_id, "soak": _asked(options)})
    if options.wait or options.watch:
        session.note(soaks.begun_text(begun))
        return soaks.conclude(session, *soaks.follow(session, begun, live=options.watch))
    if session.json:
        session.emit(begun)
    else:
        session.say(soaks.begun_text(begun))
        session.note(f"follow it: soakctl watch {begun.get('id')}")
    return 0


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    from soakctl import plan_file
    from soakd.core.errors import UserError
    from soakd.core.plan_env import read_flags

    flags = {
        "rounds": options.rounds,
        "duration_s": options.duration,
        "scenario": options.scenario,
        "set": options.set,
        "gates": options.gate,
    }
    try:
        return read_flags(flags)
    except UserError as error:
        raise plan_file.invalid_plan(error, "soak") from error
