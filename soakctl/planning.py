"""From the command line and the environment to a plan: the part of `start` that talks to nobody."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from soakctl import plan_file
from soakctl.failures import Failure
from soakctl.folders import check_folders, not_ready
from soakctl.session import Session
from soakd.core.errors import UserError
from soakd.core.plan import (
    ENVIRONMENT_NAMES,
    Plan,
    ignored_node_env,
    plan_from_environment,
    plan_to_dict,
)

_HOW_TO_NAME_FOLDERS = (
    "name the two folders: A_SRC=/dist/mule-a B_SRC=/dist/mule-b soakctl start 7200"
)


_HOW_TO_NAME_TOKENS = (
    "name the api.token of each node, as --a-token-file /dist/mule-a/data/api.token"
)


class Requests(NamedTuple):
    """What `run.start` is asked for.

    Attributes:
        each: Plan and digests, once for each run.
        group: The label of several; None: there is one run.
        values: What tells each run of a group from the others.
    """

    each: list[dict[str, Any]]
    group: str | None = None
    values: Sequence[Mapping[str, object]] = ()


def start_requests(session: Session, options: argparse.Namespace) -> Requests:
    """Makes and checks what `run.start` is asked for.

    Raises:
        Failure: `bad_plan`, with every problem of the plan, or of the folders, at once.
    """
    flags = plan_flags(options) | {
        "duration_s": options.duration,
        "rounds": options.rounds,
        "scenario": options.scenario,
        "no_rounds": options.no_rounds or None,
    }
    if options.plan is None:
        return Requests([environment_request(session, flags)])
    _note_ignored_variables(session)
    file = plan_file.read(options.plan, flags)
    plans = [variant.plan for variant in file.variants]
    digests, problems = plan_file.check_group(file)
    if problems:
        raise _not_ready(plans[0], problems)
    _note_what_is_not_passed(session, plans)
    each = [_request(plan, sha256) for plan, sha256 in zip(plans, digests, strict=True)]
    return Requests(each, file.group, [variant.values for variant in file.variants])


def environment_request(session: Session, flags: Mapping[str, object]) -> dict[str, Any]:
    """Makes and checks what `run.start` is asked for, of the environment and of flags.

    Raises:
        Failure: `bad_plan`, as `start_requests`.
    """
    plan = _plan(session, flags)
    try:
        sha256, problems = check_folders(plan)
    except UserError as error:
        raise plan_file.invalid_plan(error) from error
    if problems:
        advice = _HOW_TO_NAME_TOKENS if plan.is_attached else _HOW_TO_NAME_FOLDERS
        raise _not_ready(plan, problems, advice)
    _note_what_is_not_passed(session, [plan])
    return _request(plan, sha256)


def add_plan_flags(parser: argparse.ArgumentParser) -> None:
    """Declares the flags that shape any plan; `plan_flags` reads them."""
    add = parser.add_argument
    add("--label", metavar="T", help="a name for lists and for the bundle")
    add("--set", action="append", metavar="K=V", help="set one field of the plan")
    add("--latest", action="store_true", help="take the program as it is when the run's turn comes")
    add("--keep-config", action="store_true", help="edit only what collides in config.toml")
    add("--gate", action="append", metavar="G", help="a gate, as 'hit_rate >= 0.85'; repeatable")
    add("--ports", choices=("fixed", "auto"), help="auto: soakd finds free ports for the APIs")
    add("--node-env", action="append", metavar="K=V", help="a variable for the nodes")


def plan_flags(options: argparse.Namespace) -> dict[str, object]:
    """Reads the flags of `add_plan_flags`, by field of the plan."""
    return {
        "label": options.label,
        "latest": options.latest or None,
        "keep_config": options.keep_config or None,
        "node_env": options.node_env,
        "gates": options.gate,
        "ports": options.ports,
        "set": options.set,
    }


def _plan(session: Session, flags: Mapping[str, object]) -> Plan:
    try:
        return plan_from_environment(
            session.environ, cwd=os.getcwd(), flags=flags, run_tag_default=plan_file.new_run_tag()
        )
    except UserError as error:
        raise plan_file.invalid_plan(error) from error


def _not_ready(plan: Plan, problems: list[str], *advice: str) -> Failure:
    return Failure("bad_plan", not_ready(plan), problems=problems, advice=advice)


def _request(plan: Plan, sha256: Mapping[str, str]) -> dict[str, Any]:
    return {"plan": plan_to_dict(plan), "sha256": sha256}


def _note_ignored_variables(session: Session) -> None:
    ignored = [name for name in ENVIRONMENT_NAMES if session.environ.get(name)]
    if ignored:
        session.note(f"note: ignored, since --plan says everything: {' '.join(ignored)}")


def _note_what_is_not_passed(session: Session, plans: Sequence[Plan]) -> None:
    # Of nodes that somebody else runs nobody would expect it, and --node-env is refused.
    plans = [plan for plan in plans if not plan.is_attached]
    if not plans:
        return
    tables = [env for plan in plans for env in (plan.node_env, *(n.env for n in plan.nodes))]
    passed = {name for table in tables for name, _ in table}
    kept_back = ignored_node_env(session.environ, passed)
    if kept_back:
        session.note(
            f"note: set here but not passed to the nodes: {' '.join(kept_back)}"
            f" (pass on with --node-env {kept_back[0]}=…)"
        )
