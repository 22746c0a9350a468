"""Groups of runs that one plan file made: submitted together, followed, and shown as one table."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from soakctl import plan_file
from soakctl.client import Client
from soakctl.displays import display_for
from soakctl.failures import Detached, Failure, exit_of_verdict
from soakctl.planning import Requests
from soakctl.render import MISSING, rate, safe, table
from soakctl.session import Session
from soakctl.shapes import Status
from soakctl.watching import Display, Follower, Silent, detachable
from soakd.core.plan import Plan
from soakd.core.plan_file_matrix import differences, in_group, value_text

# What a group is worth in a script: whatever is wrong with the program comes first, and a run that
# says nothing makes the group say less, not nothing.
_WORST_FIRST = ("failed", "harness_error", "aborted", "inconclusive", "passed")


def submit(session: Session, wanted: Requests, path: str) -> list[dict[str, Any]]:
    """Submits the runs of a group one after the other, in the order of the file's values.

    Raises:
        Failure: one was refused; those before it stay, and it says how to go on.
        Detached: the user pressed Ctrl-C; so do they then.
    """
    started: list[dict[str, Any]] = []
    with session.connect() as client:
        for request in wanted.each:
            try:
                started.append(client.call("run.start", request))
            except Failure as failure:
                ids = [str(run.get("id")) for run in started]
                raise _cut_short(failure, wanted, ids, path) from failure
            except KeyboardInterrupt:
                ids = [str(run.get("id")) for run in started]
                so_far = f"{' '.join(ids) or 'none'} of {len(wanted.each)}"
                text = f"interrupted; submitted are {so_far}, or one more: soakctl list"
                raise Detached(text) from None
    return started


def follow(session: Session, runs: Sequence[str], *, live: bool) -> int:
    """Follows each run of a group to its end, then prints their table.

    Returns:
        The exit status of the worst verdict.
    """
    finals = []
    for run in runs:
        with detachable(run):
            display: Display = display_for(session) if live else Silent()
        finals.append(Follower(session, display).follow(run))
    with session.connect() as client:
        show(session, with_values(client, finals))
    return exit_of_group(finals)


def exit_of_group(finals: Sequence[Status]) -> int:
    """Gives the exit status of the worst verdict; an unknown one counts as a harness error."""
    verdicts = {str(final.get("verdict")) for final in finals}
    known = [verdict for verdict in _WORST_FIRST if verdict in verdicts]
    if verdicts - set(_WORST_FIRST) and "failed" not in known:
        return exit_of_verdict("harness_error")
    return exit_of_verdict(known[0])


def find(client: Client, label: str, *, with_earlier: bool) -> list[dict[str, Any]]:
    """Gets my runs with the label of a group, oldest first, each with its `values`.

    Args:
        client: a connection.
        label: the group's.
        with_earlier: also runs whose values a later run has again.

    Raises:
        Failure: there is none.
    """
    listed = client.call("run.list", {"all": False}).get("runs", [])
    runs = [run for run in listed if in_group(run.get("label"), label)]
    if not runs:
        raise Failure(
            "no_such_run",
            f"cannot find a run of yours with the label {label!r}",
            advice=["see which there are: soakctl list"],
        )
    runs.sort(key=lambda run: int(str(run["id"])[1:]))
    return with_values(client, runs, with_earlier=with_earlier)


def with_values(
    client: Client, runs: Sequence[Status], *, with_earlier: bool = True
) -> list[dict[str, Any]]:
    """Adds to each run, under `values`, what its plan says other than the plans of the rest."""
    plans = [_plan(client, str(run["id"])) for run in runs]
    rows = [{**run, "values": values} for run, values in zip(runs, differences(plans), strict=True)]
    if with_earlier:
        return rows
    latest = {tuple(map(repr, row["values"].values())): row["id"] for row in rows}
    return [row for row in rows if row["id"] in latest.values()]


def table_rows(runs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Gives the rows of a group's table, heading first; what differs stands beside the run."""
    names = list(runs[0]["values"])
    heading = ["RUN", *map(safe, names), "STATE", "ROUNDS", "HIT", "LATE", "MISS", "ERROR"]
    rows = [[*heading, "HIT RATE", "VERDICT"]]
    for run in runs:
        rounds = run.get("rounds") or {}
        rows.append(
            [
                safe(run["id"]),
                *(_value(run["values"][name]) for name in names),
                safe(run.get("state", "?")),
                *(str(rounds.get(key, 0)) for key in ("total", "hit", "late", "miss", "error")),
                rate(run.get("hit_rate")),
                safe(run.get("verdict") or run.get("reason") or MISSING),
            ]
        )
    return rows


def show(session: Session, runs: Sequence[Mapping[str, Any]]) -> None:
    """Prints the table of a group, or its rows as JSON."""
    if session.json:
        keys = ("id", "label", "state", "verdict", "why", "rounds", "hit_rate", "values")
        session.emit([{key: run.get(key) for key in keys} for run in runs])
    else:
        session.say("\n".join(table(table_rows(runs))))


def _plan(client: Client, run: str) -> Plan:
    return plan_file.of_run(client.call("run.plan", {"run": run}))


def _value(value: object) -> str:
    return MISSING if value is None else safe(value_text(value))


def _cut_short(failure: Failure, wanted: Requests, ids: Sequence[str], path: str) -> Failure:
    """Says what of a group was submitted, and how to submit the rest."""
    rest = [str(request["plan"]["label"]) for request in wanted.each[len(ids) :]]
    values = wanted.values[len(ids)]
    sets = [f"--set {shlex.quote(f'{name}={value_text(v)}')}" for name, v in values.items()]
    advice = list(failure.advice)
    if ids:
        shown = f"soakctl table {shlex.quote(str(wanted.group))}"
        advice.append(f"submitted before that: {' '.join(ids)}; show them: {shown}")
    advice.append(
        f"submit what is left one by one: soakctl start --plan {shlex.quote(path)}"
        f" {' '.join(sets)} --label {shlex.quote(rest[0])}"
    )
    message = f"cannot submit {len(rest)} of the {len(wanted.each)} runs of {wanted.group}"
    return Failure(
        failure.code,
        f"{message}: {failure.message}",
        problems=[*failure.problems, *(f"not submitted: {label}" for label in rest)],
        advice=advice,
    )
