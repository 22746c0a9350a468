"""`soakctl plan check FILE` and `plan show RUN`: what a file asks for, what a run was asked to do.

Both print TOML that `soakctl start --plan` takes; what else is to be said stands in comments.
"""

from __future__ import annotations

import argparse

from soakctl import plan_file
from soakctl.failures import Failure
from soakctl.folders import not_ready
from soakctl.plan_check import check_facts, check_json, expected_start, resolved
from soakctl.render import safe, utc
from soakctl.session import Session
from soakd.core.plan_file_write import plan_to_toml

_EPILOG = """\
check needs no soakd; with one it also says when the run could start. docs/plan.md has every key.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares `check FILE` and `show RUN`."""
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("action", choices=("check", "show"), metavar="check|show")
    add("subject", nargs="?", metavar="FILE|RUN", help="a plan file (- is stdin), or a run, as r7")
    add("--set", action="append", metavar="K=V", help="check: set one key of the plan")


def run(session: Session, options: argparse.Namespace) -> int:
    """Prints the plan; a file that cannot be started as it is ends with 78 and all problems."""
    if options.action == "show":
        if options.set:
            raise Failure("usage", "cannot --set a key of a run: its plan is what it was")
        return _show(session, options.subject)
    if options.subject is None:
        raise Failure("usage", "cannot check a plan without its file: soakctl plan check FILE")
    return _check(session, options.subject, options.set)


def _show(session: Session, run_id: str | None) -> int:
    with session.connect() as client:
        answer = client.call("run.plan", {"run": run_id})
    if session.json:
        session.emit(answer)
        return 0
    plan = plan_file.of_run(answer)
    lines = [f"# {safe(answer['id'])}, submitted {utc(answer['created_at'])}"]
    for name, digest in answer["sha256"].items():
        changed = ", or what it was later: latest = true" if plan.latest else ""
        lines.append(f"# program of node {safe(name)}: SHA-256 {safe(digest)}{changed}")
    session.say("\n".join(lines) + "\n\n" + plan_to_toml(plan, with_tag=False).rstrip("\n"))
    return 0


def _check(session: Session, path: str, sets: list[str] | None) -> int:
    file = plan_file.read(path, {"set": sets})
    _, problems = plan_file.check_group(file)
    plan = file.variants[0].plan
    if problems:
        raise Failure("bad_plan", not_ready(plan), problems=problems)
    start = expected_start(session, plan)
    if session.json:
        session.emit(check_json(file, start))
    else:
        facts = "\n".join(
            f"# {label.ljust(16)}{safe(text)}".rstrip() for label, text in check_facts(file, start)
        )
        session.say(f"{resolved(file)}\n{facts}")
    return 0
