"""What `plan check` says of a plan besides the plan itself: ports, disk, ends and beginnings."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from soakctl.failures import Failure
from soakctl.render import duration, utc
from soakctl.session import Session
from soakd.core.admission import disk_bytes
from soakd.core.plan import NodePlan, Plan, latest_end_s, longest_round_s, plan_to_dict
from soakd.core.plan_file import PlanFile
from soakd.core.plan_file_write import plan_to_toml

# What a soakd takes that was told nothing else and has measured no long run yet.
NODE_BYTES_PER_HOUR = 50_000_000
RUN_BYTES_MAX = 20 << 30


class Start(NamedTuple):
    """When a run could start.

    Attributes:
        text: For people.
        at: UTC RFC 3339; None: nobody can say.
        is_now: Nothing is in the way.
    """

    text: str
    at: str | None = None
    is_now: bool = False


def resolved(file: PlanFile) -> str:
    """Gives the plan with all defaults, as TOML; of a group with the lists of its file."""
    plan = replace(file.variants[0].plan, label=file.group or file.variants[0].plan.label)
    lists = {axis.name: axis.values for axis in file.axes}
    return plan_to_toml(plan, lists=lists, given=file.given, with_tag="run_tag" in file.given)


def expected_start(session: Session, plan: Plan) -> Start:
    """Asks soakd for its queue; without an answer says why nothing is known."""
    if plan.is_attached:
        return Start("at once: it needs no slot", _utc(_now_s()), is_now=True)
    try:
        with session.connect() as client:
            queue = client.call("queue.list")
    except Failure as failure:
        return Start(f"unknown: {failure.message}")
    if queue.get("draining"):
        return Start("unknown: soakd starts nothing until an admin says `soakctl daemon resume`")
    entries = queue.get("runs", [])
    if not entries:
        return Start("now: nothing runs or waits", _utc(_now_s()), is_now=True)
    names = " ".join(str(entry.get("id")) for entry in entries)
    ends = [entry.get("ends_by") for entry in entries]
    if not all(ends):
        return Start(f"unknown: it is not known when these end: {names}")
    # Times of one form, all UTC: the order of the texts is that of the times.
    last = max(map(str, ends))
    return Start(f"by {utc(last)} if all of these go first and take their time: {names}", last)


def check_facts(file: PlanFile, start: Start) -> Iterator[tuple[str, str]]:
    """Yields what there is to know, each with its heading."""
    plans = [variant.plan for variant in file.variants]
    if file.group is not None:
        yield "runs", f"{len(plans)}, as group {file.group}"
        yield from (("", str(plan.label)) for plan in plans)
        if any(plan.run_root for plan in plans):
            yield "run_root", "shared by them: its node folders will be those of the latest run"
    yield from _ports(file)
    if plans[0].is_attached:
        yield "nodes", "somebody else's: they are not started, stopped or touched"
    else:
        each = [_disk_bytes(plan) for plan in plans]
        rate = f"{NODE_BYTES_PER_HOUR / 1e6:g} MB an hour and node until soakd has measured it"
        yield "disk", f"up to {max(each) / 1e6:.0f} MB{_of_all(sum(each), len(each))}, at {rate}"
    yield "longest round", duration(max(longest_round_s(plan) for plan in plans))
    latest_s = max(latest_end_s(plan) for plan in plans)
    at = f", which is {utc(_utc(_now_s() + latest_s))} if it starts now" if start.is_now else ""
    yield "latest end", f"{duration(latest_s)} after its start{at}"
    yield "expected start", start.text


def check_json(file: PlanFile, start: Start) -> dict[str, Any]:
    """Gives the same for programs."""
    runs = [
        {
            "label": variant.plan.label,
            "values": dict(variant.values),
            "plan": plan_to_dict(variant.plan),
            "disk_bytes": _disk_bytes(variant.plan),
            "longest_round_s": longest_round_s(variant.plan),
            "latest_end_s": latest_end_s(variant.plan),
        }
        for variant in file.variants
    ]
    ports = sorted({node.port for v in file.variants for node in v.plan.nodes})
    return {
        "group": file.group,
        "runs": runs,
        "ports": ports if file.variants[0].plan.ports == "fixed" else [],
        "expected_start": start.at,
    }


def _disk_bytes(plan: Plan) -> int:
    if plan.is_attached:
        # Its nodes write elsewhere.
        return 0
    return disk_bytes(plan, NODE_BYTES_PER_HOUR, RUN_BYTES_MAX)


def _of_all(total_bytes: int, count: int) -> str:
    return f" a run, {total_bytes / 1e6:.0f} MB for all {count}" if count > 1 else ""


def _ports(file: PlanFile) -> Iterator[tuple[str, str]]:
    plan = file.variants[0].plan
    if plan.ports == "auto":
        yield "ports", f"{len(plan.nodes)} of soakd's own range"
        return
    nodes = {(node.host, node.port): node for v in file.variants for node in v.plan.nodes}
    for index, node in enumerate(nodes.values()):
        if node.is_attached:
            note = "  nobody listens there now" if _is_free(node) else ""
            yield "ports" if index == 0 else "", f"{node.host}:{node.port} node {node.name}{note}"
            continue
        taken = "" if _is_free(node) else "  in use now: the run waits for a soak, fails otherwise"
        yield "ports" if index == 0 else "", f"{node.host}:{node.port} node {node.name}{taken}"


def _is_free(node: NodePlan) -> bool:
    """Whether one could listen there now; a host name stands for both loopback families."""
    hosts = ("127.0.0.1", "::1") if node.host == "localhost" else (node.host,)
    return all(_can_listen(host, node.port) for host in hosts)


def _can_listen(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
    except OSError as error:
        return error.errno != errno.EADDRINUSE
    return True


def _utc(epoch_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch_s))


def _now_s() -> float:
    return time.time()  # noqa: TID251 - shown to people; the edge's clock is not for soakctl
