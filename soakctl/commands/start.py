"""`soakctl start [DURATION]`: check as the user, submit, and return while the soak goes on."""

from __future__ import annotations

import argparse
import shlex

from soakctl import flows, groups
from soakctl.again import again_requests
from soakctl.arguments import seconds
from soakctl.displays import display_for
from soakctl.ending import conclude
from soakctl.places import place_text
from soakctl.planning import Requests, add_plan_flags, start_requests
from soakctl.render import safe
from soakctl.session import Session
from soakctl.watching import Display, Follower, Silent, detachable, submit

_EPILOG = """\
Without --plan the environment shapes the plan, as it did for the scripts: ROOT A_SRC B_SRC
A_URL B_URL RUN_ROOT WAIT_PUBLISH WAIT_SEARCH WAIT_BETWEEN READ_EVERY MISS_RECHECK_ATTEMPTS
MISS_RECHECK_DELAY READY_TIMEOUT_SECS SOAK_FRESH_IDENTITY SOAK_RUN_TAG.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the duration and the flags of design §8 that this version has."""
    parser.epilog = _EPILOG
    add = parser.add_argument
    add(
        "duration",
        nargs="?",
        type=seconds,
        metavar="DURATION",
        help="how long rounds may start, as 7200, 90m, 4h or 3d (default 30m)",
    )
    add("--rounds", type=int, metavar="N", help="stop after N rounds; alone: no deadline")
    add(
        "--no-rounds",
        action="store_true",
        help="only keep the nodes, for DURATION (12h); `soakctl soak` asks for rounds",
    )
    add("--scenario", metavar="S", help="source_probe (default), keyword_probe or dht_selftest")
    add("--plan", metavar="FILE", help="a plan in TOML instead of the environment (docs/plan.md)")
    add("--again", metavar="RUN", help="the plan and label of that run once more")
    add_plan_flags(parser)
    then = parser.add_mutually_exclusive_group()
    then.add_argument("--wait", action="store_true", help="wait; the exit status is the verdict")
    then.add_argument("--watch", action="store_true", help="watch; the exit status is the verdict")


def run(session: Session, options: argparse.Namespace) -> int:
    """Submits the soak; with `--wait` or `--watch` the exit status is the verdict."""
    wanted = again_requests(session, options) if options.again else start_requests(session, options)
    if wanted.group is not None:
        return _run_group(session, options, wanted)
    (request,) = wanted.each
    started = submit(session, "run.start", request)
    run_id = str(started.get("id"))
    if not (options.wait or options.watch):
        if session.json:
            session.emit(started)
        else:
            session.say(place_text(started))
            session.note(f"follow it: soakctl watch {run_id}     end it: soakctl stop {run_id}")
        return 0
    with detachable(run_id):
        session.note(place_text(started))
        display: Display = display_for(session) if options.watch else Silent()
    final = Follower(session, display).follow(run_id)
    if final.get("scenario") == "dht_selftest":
        return flows.conclude(session, final)
    return conclude(session, final)


def _run_group(session: Session, options: argparse.Namespace, wanted: Requests) -> int:
    started = groups.submit(session, wanted, options.plan)
    lines = [
        f"{place_text(run)} · {safe(request['plan']['label'])}"
        for run, request in zip(started, wanted.each, strict=True)
    ]
    if options.wait or options.watch:
        session.note("\n".join(lines))
        return groups.follow(session, [str(run.get("id")) for run in started], live=options.watch)
    if session.json:
        session.emit(started)
    else:
        session.say("\n".join(lines))
        session.note(f"their results as one table: soakctl table {shlex.quote(str(wanted.group))}")
    return 0
