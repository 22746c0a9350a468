"""More than two nodes: every pair has outcomes of its own, and a node may be of another build."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from soakd.simnode import install
from tests.e2e.box import FAST_NODES, Box
from tests.e2e.host import node_python
from tests.ports import free_ports, free_udp_range

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

LENGTH_S = 300
WAITS = {
    "wait_publish": 0.1, "wait_search": 0.3, "wait_between": 0, "read_every": 0.1,
    "miss_recheck_delay": 0.1, "ready_timeout": 60,
}  # fmt: skip


class Fleet:
    """Folders of many simulated nodes of one network, and plans of them."""

    def __init__(self, box: Box, count: int, **sim: object) -> None:
        self.box = box
        self.names = [f"n{number + 1}" for number in range(count)]
        self.ports = free_ports(count)
        box.ports += self.ports
        udp = free_udp_range(count)
        for place, name in enumerate(self.names):
            install(
                self.source(name),
                python=node_python(),
                port=self.ports[place],
                session_name=name,
                sim={
                    **FAST_NODES,
                    "network": f"many-{udp}",
                    "udp_first_port": udp,
                    "udp_ports": count,
                    "seed": place + 1,
                    **sim,
                },
            )

    def source(self, name: str) -> Path:
        """Where a node's folder is."""
        return self.box.folder / "many" / name

    def plan(self, **keys: object) -> Path:
        """A plan file of all nodes."""
        lines = [f"{key} = {json.dumps(value)}" for key, value in {**WAITS, **keys}.items()]
        for name, port in zip(self.names, self.ports, strict=True):
            lines += [f"[node.{name}]", f'source = "{self.source(name)}"', f"port = {port}"]
        path = self.box.folder / "many.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def start(self, **keys: object) -> str:
        """Start such a soak and return its id."""
        run: str = self.box.ctl("--json", "start", "--plan", str(self.plan(**keys))).json()["id"]
        return run


def flows(box: Box, run: str) -> dict[str, dict[str, Any]]:
    """The rows of `soakctl table RUN`, by flow."""
    rows = box.ctl("--json", "table", run).json()["flows"]
    return {row["flow"]: row for row in rows}


def test_all_to_all_visits_every_pair_and_counts_each(box: Box) -> None:
    """Five nodes have twenty pairs; the table's sums are the run's and those of the records."""
    fleet = Fleet(box, 5, outcomes=["hit", "hit", "miss"])
    run = fleet.start(pairs="all_to_all", pair_seed=7, rounds=26)
    final = box.wait(run)
    table = flows(box, run)
    assert len(table) == 20
    counted = Counter((record["flow"], record["outcome"]) for record in box.records(run))
    for flow, row in table.items():
        for outcome in ("hit", "late", "miss", "error", "skipped"):
            assert row["rounds"][outcome] == counted[flow, outcome]
    assert sum(row["rounds"]["total"] for row in table.values()) == final["rounds"]["total"] == 26
    assert {row["rounds"]["total"] for row in table.values()} == {1, 2}
    # One status of each node in each round, in the plan's order.
    letters = [line.split("\t")[1] for line in box.read(run, "logs/status.ndjson").splitlines()]
    assert letters == [name.upper() for name in fleet.names] * 26
    order = [record["flow"] for record in box.records(run)]
    again = fleet.start(pairs="all_to_all", pair_seed=7, rounds=6)
    box.wait(again)
    assert [record["flow"] for record in box.records(again)] == order[:6]


def test_a_new_build_among_old_ones(box: Box) -> None:
    """Each node has the program of its own folder; round-robin gives each its turn."""
    fleet = Fleet(box, 3, outcomes=["hit"])
    program = fleet.source("n3") / "rust-mule"
    program.write_bytes(program.read_bytes() + b"\n# a new build\n")
    run = fleet.start(pairs="round_robin", rounds=3)
    final = box.wait(run)
    assert final["verdict"] == "passed"
    hashes = json.loads(box.read(run, "plan.json"))["program_sha256"]
    assert hashes["n1"] == hashes["n2"]
    assert hashes["n3"] != hashes["n1"]
    pairs = [(record["publisher"], record["searcher"]) for record in box.records(run)]
    assert pairs == [("n1", "n2"), ("n2", "n3"), ("n3", "n1")]
    assert {record["publisher_listed"] for record in box.records(run)} == {True}


@pytest.fixture
def soakd_use(box: Box) -> Iterator[dict[str, float]]:
    """Processor time and memory of soakd and its shims over a test."""
    soakd = psutil.Process(box.daemon.pid)
    before = sum(soakd.cpu_times()[:2])
    use: dict[str, float] = {}
    yield use
    use["cpu_s"] = sum(soakd.cpu_times()[:2]) - before
    use["rss_mb"] = soakd.memory_info().rss / 1e6
    print({name: round(value, 1) for name, value in use.items()})  # noqa: T201


@pytest.mark.campaign
def test_twenty_nodes_all_to_all_for_five_minutes(box: Box, soakd_use: dict[str, float]) -> None:
    """On two cores; its figures are printed (`-m campaign -s -k twenty`)."""
    fleet = Fleet(box, 20, status_every_secs=5.0, beacon_secs=1.0)
    began = time.monotonic()
    run = fleet.start(pairs="all_to_all", duration=f"{LENGTH_S}s", warmup=["live_10m >= 19"],
                      warmup_check="1s", warmup_samples=2)  # fmt: skip
    box.until(run, lambda status: status["state"] == "running", "rounds")
    ready_s = time.monotonic() - began
    nodes = [psutil.Process(node["pid"]) for node in box.status(run)["nodes"]]
    used = sum(sum(node.cpu_times()[:2]) for node in nodes)
    # No look at soakd meanwhile, whose own use is measured too.
    box.ctl("wait", run, "--timeout", str(LENGTH_S - 20), status=124, guard_s=LENGTH_S)
    used = sum(sum(node.cpu_times()[:2]) for node in nodes) - used
    pss = sum(node.memory_full_info().pss for node in nodes) / 1e6
    final = box.wait(run)
    table = flows(box, run)
    rounds = final["rounds"]
    assert final["verdict"] == "passed"
    assert sum(row["rounds"]["total"] for row in table.values()) == rounds["total"]
    assert rounds["error"] == 0
    figures = {"ready_s": ready_s, "nodes_cpu_s": used, "nodes_pss_mb": pss, "flows": len(table)}
    print({**{name: round(value, 1) for name, value in figures.items()}, **rounds})  # noqa: T201
