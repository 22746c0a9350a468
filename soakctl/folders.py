"""What `start` checks as the user before it submits: soakd itself never looks at a path of theirs.

All problems are found at once, each with the node it concerns; what passes is hashed, so that soakd
can tell later whether the program changed while the run was queued.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from functools import partial

from soakd.core.plan import NodePlan, Plan
from soakd.drivers import registry
from soakd.drivers.driver import Driver

MAX_TOKEN_BYTES = 4096
"""As the shim reads it."""


def check_folders(
    plan: Plan, names: Mapping[str, str] | None = None
) -> tuple[dict[str, str], list[str]]:
    """Checks every node's folder; of a node that somebody else runs, its token file.

    Args:
        plan: names the folders.
        names: by node, what its problems are told under; without it `node a`.

    Returns:
        SHA-256 of the program by node name (only of usable folders, and none of nodes that somebody
        else runs), and the problems.

    Raises:
        UserError: `bad_plan`; nobody knows the plan's driver, and so what its folders hold.
    """
    driver = registry.check(plan)
    files = driver.files
    sha256: dict[str, str] = {}
    problems: list[str] = []
    for node in plan.nodes:
        if node.token_file is not None:
            found = _checked(_check_token, node.token_file)
        else:
            found = _check_folder(node) or [
                *_checked(
                    partial(_check_program, driver), os.path.join(node.source, files.program)
                ),
                *_checked(partial(_check_config, driver), os.path.join(node.source, files.config)),
            ]
        if not found and not node.is_attached:
            with open(os.path.join(node.source, files.program), "rb") as program:
                sha256[node.name] = hashlib.file_digest(program, "sha256").hexdigest()
        title = (names or {}).get(node.name, f"node {node.name}")
        problems += [f"{title}: {problem}" for problem in found]
    return sha256, problems


def not_ready(plan: Plan, act: str = "start") -> str:
    """Gives the heading of what `check_folders` has found."""
    what = "token files" if plan.is_attached else "node folders"
    return f"cannot {act}: the {what} are not ready"


def _check_folder(node: NodePlan) -> list[str]:
    if not os.path.lexists(node.source):
        return [f"cannot use {node.source}: there is no such folder"]
    if not os.path.isdir(node.source):
        return [f"cannot use {node.source}: it is not a folder"]
    if not os.access(node.source, os.R_OK | os.X_OK):
        return [f"cannot use {node.source}: you may not read it"]
    return []


def _checked(check: Callable[[str], str | None], path: str) -> list[str]:
    try:
        problem = check(path)
    except OSError as error:
        problem = error.strerror
    return [f"cannot use {path}: {problem}"] if problem else []


def _check_program(driver: Driver, path: str) -> str | None:
    if not os.path.lexists(path):
        return f"it is not there; {driver.files.program_advice}"
    # Follows links: soakd copies the program by content.
    if not stat.S_ISREG(os.stat(path).st_mode):
        return "it is not a regular file"
    if not os.access(path, os.R_OK):
        return "you may not read it"
    if not os.access(path, os.X_OK):
        return f"it is not executable; try chmod +x {path}"
    return None


def _check_token(path: str) -> str | None:
    """What is in it is the shim's to read, and nobody's to be shown."""
    if not os.path.lexists(path):
        return "it is not there; the node writes it beside its other data, as api.token"
    info = os.stat(path)
    if not stat.S_ISREG(info.st_mode):
        return "it is not a regular file"
    if not os.access(path, os.R_OK):
        return "you may not read it"
    if info.st_size > MAX_TOKEN_BYTES:
        return f"a token has no more than {MAX_TOKEN_BYTES} bytes, it has {info.st_size}"
    return None


def _check_config(driver: Driver, path: str) -> str | None:
    if not os.path.lexists(path):
        # soakd makes one
        return None
    # A FIFO would block us for ever.
    if not stat.S_ISREG(os.stat(path).st_mode):
        return "it is not a regular file"
    with open(path, "rb") as file:
        return driver.config_problem(file.read())
