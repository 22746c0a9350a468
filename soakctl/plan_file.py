"""A plan file as `start --plan` and `plan check` take it: read, parsed, and its folders checked."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from soakctl.failures import Failure
from soakctl.folders import check_folders
from soakd.core.errors import UserError
from soakd.core.plan import Plan, parse_plan
from soakd.core.plan_file import MAX_CHARS, PlanFile, PlanFileError, read_plan_file

STDIN = "-"
_LAST_LINE = 1 << 32
_NOT_VALID = "the plan is not valid"


def new_run_tag() -> str:
    """Makes the tag of runs that were not given one."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.urandom(2).hex()}"


def read(path: str, flags: Mapping[str, object]) -> PlanFile:
    """Reads a plan file and the flags that go with it, which win.

    Args:
        path: the file; `-` is standard input, whose relative paths start at the current folder.
        flags: by field of a plan, as `plan_from_environment` takes them.

    Raises:
        Failure: `bad_plan`, with all problems of the plan and of the folders that it names.
    """
    # The user's own spelling of the path, so that an editor finds the line.
    name = "stdin" if path == STDIN else path
    text = _text(path, name)
    folder = os.getcwd() if path == STDIN else os.path.dirname(os.path.abspath(path))
    try:
        return read_plan_file(
            text, name=name, folder=folder, flags=flags, run_tag_default=new_run_tag()
        )
    except PlanFileError as error:
        of_plan = [str(problem) for problem in cast("list[object]", error.details["problems"])]
        _, of_folders = _check(error.plans, error.sources)
        problems = sorted([*of_plan, *of_folders], key=lambda problem: _line_of(problem, name))
        raise Failure(error.code, f"cannot start: {_NOT_VALID}", problems=problems) from error


def of_run(answer: Mapping[str, Any]) -> Plan:
    """Gives the plan of a run from soakd's answer.

    Raises:
        Failure: this soakctl is older than soakd and does not know what it says.
    """
    try:
        return parse_plan(answer["plan"])
    except UserError as error:
        raise Failure(
            "version",
            f"cannot read the plan of {answer.get('id')}: {error.message}",
            advice=["use the soakctl installed with that soakd"],
        ) from error


def invalid_plan(error: UserError, act: str = "start") -> Failure:
    """Gives what `soakctl.main` prints of a plan that could not be used."""
    problems = error.details.get("problems")
    several = isinstance(problems, list)
    return Failure(
        error.code,
        f"cannot {act}: {_NOT_VALID}" if several else error.message,
        problems=map(str, problems) if isinstance(problems, list) else (),
    )


def check_group(file: PlanFile) -> tuple[list[dict[str, str]], list[str]]:
    """Checks the folders of all runs of a file, each folder once.

    Returns:
        SHA-256 of the programs by node name for each run, and the problems, each with its line.
    """
    return _check([variant.plan for variant in file.variants], file.sources)


def _check(
    plans: Sequence[Plan], sources: Mapping[str, str]
) -> tuple[list[dict[str, str]], list[str]]:
    known: dict[tuple[object, ...], tuple[dict[str, str], list[str]]] = {}
    found: list[dict[str, str]] = []
    problems: dict[str, None] = {}
    for plan in plans:
        # Of a folder that the plan does not name there is nothing to be said besides that.
        nodes = tuple(node for node in plan.nodes if "/" not in (node.source, node.token_file))
        looked_at = ((node.name, node.source, node.token_file) for node in nodes)
        key = (plan.driver, plan.scenario, *looked_at)
        if key not in known:
            known[key] = _checked(replace(plan, nodes=nodes), sources)
        sha256, wrong = known[key]
        found.append(sha256)
        problems |= dict.fromkeys(wrong)
    return found, list(problems)


def _checked(plan: Plan, sources: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    try:
        return check_folders(plan, sources)
    except UserError as error:
        return {}, [str(problem) for problem in cast("list[object]", error.details["problems"])]


def _line_of(problem: str, name: str) -> int:
    """The line that a problem names; those of flags come last."""
    line = problem.removeprefix(f"{name}:").partition(":")[0]
    return int(line) if line.isdecimal() else _LAST_LINE * problem.startswith("--")


def _text(path: str, name: str) -> str:
    try:
        if path == STDIN:
            data = sys.stdin.buffer.read(4 * MAX_CHARS + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(4 * MAX_CHARS + 1)
        return data.decode()
    except OSError as error:
        raise Failure("bad_plan", f"cannot read plan {name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise Failure(
            "bad_plan", f"cannot read plan {name}: it is not TOML: line {line} is not UTF-8"
        ) from error
