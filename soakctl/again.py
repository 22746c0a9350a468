"""`start --again RUN`: the plan of a run once more, under a new run tag."""

from __future__ import annotations

import argparse
from dataclasses import replace

from soakctl import plan_file
from soakctl.failures import Failure
from soakctl.folders import check_folders, not_ready
from soakctl.planning import Requests
from soakctl.session import Session
from soakd.core.errors import UserError
from soakd.core.plan import parse_plan, plan_to_dict

_OTHERS = (
    "DURATION", "--rounds", "--label", "--plan", "--set", "--latest", "--keep-config", "--gate",
    "--node-env", "--ports", "--scenario", "--no-rounds",
)  # fmt: skip


def again_requests(session: Session, options: argparse.Namespace) -> Requests:
    """Asks soakd for the plan, and checks the folders as they are now.

    Raises:
        Failure: other flags are given, there is no such run, it is somebody else's, or the folders
            are not ready.
    """
    given = [
        name for name in _OTHERS if getattr(options, name.lower().strip("-").replace("-", "_"))
    ]
    if given:
        raise Failure(
            "usage",
            f"cannot use --again with {', '.join(given)}: it takes the plan as it was",
            advice=[f"write it to a file and change it there: soakctl plan show {options.again}"],
        )
    with session.connect() as client:
        known = client.call("run.plan", {"run": options.again})
    try:
        plan = replace(parse_plan(known["plan"]), run_tag=plan_file.new_run_tag())
        sha256, problems = check_folders(plan)
    except UserError as error:
        raise plan_file.invalid_plan(error) from error
    if problems:
        raise Failure(
            "bad_plan",
            not_ready(plan, f"start {options.again} again"),
            problems=problems,
        )
    return Requests([{"plan": plan_to_dict(plan), "sha256": sha256}])
