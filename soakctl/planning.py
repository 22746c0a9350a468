"""From the command line and the environment to a plan: the part of `start` that talks to nobody."""

from __future__ import annotations

import argparse
import os
import time
import tomllib
from collections.abc import Mapping

from soakctl.failures import Failure
from soakctl.folders import check_folders
from soakctl.session import Session
from soakd.core.errors import UserError
from soakd.core.plan import (
    ENVIRONMENT_NAMES,
    Plan,
    ignored_node_env,
    plan_from_environment,
    plan_from_mapping,
    plan_to_dict,
)

_HOW_TO_NAME_FOLDERS = (
    "name the two folders: A_SRC=/dist/mule-a B_SRC=/dist/mule-b soakctl start 7200"
)


def start_request(session: Session, options: argparse.Namespace) -> dict[str, object]:
    """Makes and checks what `run.start` is asked for.

    Raises:
        Failure: `bad_plan`, with every problem of the plan, or of the folders, at once.
    """
    plan = _plan(session, options)
    sha256, problems = check_folders(plan)
    if problems:
        raise Failure(
            "bad_plan",
            "cannot start: the node folders are not ready",
            problems=problems,
            advice=[_HOW_TO_NAME_FOLDERS],
        )
    _note_what_is_not_passed(session, options)
    return {"plan": plan_to_dict(plan), "sha256": sha256}


def _plan(session: Session, options: argparse.Namespace) -> Plan:
    flags = {
        "duration_s": options.duration,
        "rounds": options.rounds,
        "label": options.label,
        "latest": options.latest or None,
        "keep_config": options.keep_config or None,
        "node_env": options.node_env,
        "set": options.set,
    }
    tag = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.urandom(2).hex()}"
    try:
        if options.plan is None:
            return plan_from_environment(
                session.environ, cwd=os.getcwd(), flags=flags, run_tag_default=tag
            )
        _note_ignored_variables(session)
        return plan_from_mapping(_read(options.plan), flags=flags, run_tag_default=tag)
    except UserError as error:
        problems = error.details.get("problems")
        several = isinstance(problems, list)
        raise Failure(
            error.code,
            "cannot start: the plan is not valid" if several else error.message,
            problems=map(str, problems) if isinstance(problems, list) else (),
        ) from error


def _read(path: str) -> Mapping[str, object]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise Failure("bad_plan", f"cannot read plan {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Failure("bad_plan", f"cannot read plan {path}: it is not TOML: {error}") from error


def _note_ignored_variables(session: Session) -> None:
    ignored = [name for name in ENVIRONMENT_NAMES if session.environ.get(name)]
    if ignored:
        session.note(f"note: ignored, since --plan says everything: {' '.join(ignored)}")


def _note_what_is_not_passed(session: Session, options: argparse.Namespace) -> None:
    passed = {pair.partition("=")[0] for pair in options.node_env or ()}
    kept_back = ignored_node_env(session.environ, passed)
    if kept_back:
        session.note(
            f"note: set here but not passed to the nodes: {' '.join(kept_back)}"
            f" (pass on with --node-env {kept_back[0]}=…)"
        )
