"""The nodes and the plan of the demo: simulated nodes, waits so short that a minute is enough."""

from __future__ import annotations

import os
import random
import socket
import sys
from pathlib import Path
from typing import Any

from soakctl.failures import Failure
from soakctl.folders import check_folders
from soakd.core.plan import parse_plan, plan_to_dict
from soakd.simnode import install

# Below the range from which the kernel takes ports for outgoing connections.
_PORT_RANGE = (20000, 27000)
_PORT_TRIES = 200
_WAITS = {
    "wait_publish_s": 1.0,
    "wait_search_s": 2.0,
    "wait_between_s": 0.5,
    "read_every_s": 0.5,
    "miss_recheck_attempts": 1,
    "miss_recheck_delay_s": 2.0,
}
_SIMULATION: dict[str, object] = {
    "warmup_secs": 3.0,
    "status_every_secs": 1.0,
    "latency_min_secs": 0.05,
    "latency_max_secs": 0.5,
    # After the deciding read, before the recheck.
    "late_secs": 2.8,
}


def install_nodes(folder: str) -> list[dict[str, Any]]:
    """Makes two node folders below `folder`.

    Returns:
        The `nodes` of a plan.

    Raises:
        Failure: no free port, or a node folder cannot be made.
    """
    nodes: list[dict[str, Any]] = []
    simulation = {**_SIMULATION, "network": f"demo-{os.getpid()}", "seed": random.getrandbits(31)}
    for (name, role), port in zip(
        {"a": "publisher", "b": "searcher"}.items(), free_ports(2), strict=True
    ):
        source = os.path.join(folder, f"mule-{name}")
        try:
            install(
                Path(source),
                python=sys.executable,
                port=port,
                session_name=f"demo-{name}",
                sim=simulation,
            )
        except (ValueError, OSError) as error:
            raise Failure("internal", f"cannot make a simulated node: {error}") from error
        nodes.append(
            {"name": name, "source": source, "host": "127.0.0.1", "port": port, "roles": [role]}
        )
    return nodes


def demo_request(nodes: list[dict[str, Any]], seconds: float) -> dict[str, object]:
    """Gives the parameters of `run.start` for the demo's soak."""
    plan = parse_plan(
        {
            "nodes": nodes,
            "duration_s": seconds,
            "rounds": None,
            "run_tag": "demo",
            "label": "demo",
            "ready_timeout_s": 60.0,
            **_WAITS,
        }
    )
    sha256, problems = check_folders(plan)
    if problems:
        raise Failure("internal", "cannot start the demo", problems=problems)
    return {"plan": plan_to_dict(plan), "sha256": sha256}


def free_ports(count: int) -> list[int]:
    """Finds ports that are free on both loopback addresses, by binding them.

    Raises:
        Failure: none found.
    """
    found: list[int] = []
    for _try in range(_PORT_TRIES):
        port = random.randint(*_PORT_RANGE)  # noqa: S311 - a port, not a secret
        if port not in found and _is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise Failure("refused", f"cannot find {count} free ports between {_PORT_RANGE}")


def _is_free(port: int) -> bool:
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        if family == socket.AF_INET6 and not os.path.exists("/proc/net/if_inet6"):
            continue
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.bind((host, port))
        except OSError:
            return False
    return True
