"""From the command line and the environment to a plan: the part of `start` that talks to nobody."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from soakctl import plan_file
from soakctl.failures import Failure
from soakctl.folders import check_folders
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
    flags = _flags(options)
    if options.plan is None:
        group, values, plans = None, [], [_plan(session, flags)]
        try:
            sha256, problems = check_folders(plans[0])
        except UserError as error:
            raise plan_file.invalid_plan(error) from error
        digests = [sha256]
    else:
        _note_ignored_variables(session)
        file = plan_file.read(options.plan, flags)
        group, values = file.group, [variant.values for variant in file.variants]
        plans = [variant.plan for variant in file.variants]
        digests, problems = plan_file.check_group(file)
    if problems:
        raise Failure(
            "bad_plan",
            "cannot start: the node folders are not ready",
            problems=problems,
            advice=[_HOW_TO_NAME_FOLDERS] if options.plan is None else (),
        )
    _note_what_is_not_passed(session, plans)
    each = [
        {"plan": plan_to_dict(plan), "sha256": sha256}
        for plan, sha256 in zip(plans, digests, strict=True)
    ]
    return Requests(each, group, values)


def _flags(options: argparse.Namespace) -> dict[str, object]:
    return {
        "duration_s": options.duration,
        "rounds": options.rounds,
        "scenario": options.scenario,
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


def _note_ignored_variables(session: Session) -> None:
    ignored = [name for name in ENVIRONMENT_NAMES if session.environ.get(name)]
    if ignored:
        session.note(f"note: ignored, since --plan says everything: {' '.join(ignored)}")


def _note_what_is_not_passed(session: Session, plans: Sequence[Plan]) -> None:
    tables = [env for plan in plans for env in (plan.node_env, *(n.env for n in plan.nodes))]
    passed = {name for table in tables for name, _ in table}
    kept_back = ignored_node_env(session.environ, passed)
    if kept_back:
        session.note(
            f"note: set here but not passed to the nodes: {' '.join(kept_back)}"
            f" (pass on with --node-env {kept_back[0]}=…)"
        )
