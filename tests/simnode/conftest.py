from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from soakd.simnode import install
from soakd.simnode.loop import Loop
from tests.ports import free_ports, free_udp_range
from tests.simnode.simnodes import ROOT, MakeNode, SimNode, wait_until

_UDP_PORTS = 4


@contextmanager
def _network(folder: Path, environment: dict[str, str]) -> Iterator[MakeNode]:
    nodes: list[SimNode] = []
    udp = free_udp_range(_UDP_PORTS)

    def make(name: str = "a", **sim: object) -> SimNode:
        quick: dict[str, object] = {
            "network": str(folder),
            "udp_first_port": udp,
            "udp_ports": _UDP_PORTS,
            "warmup_secs": 0.0,
            "beacon_secs": 0.05,
            "latency_min_secs": 0.0,
            "latency_max_secs": 0.0,
            "sigint_miss_rate": 0.0,
        }
        [port] = free_ports(1)
        place = folder / name
        install(
            place,
            python=sys.executable,
            port=port,
            session_name=f"sim-{name}",
            sim={**quick, **sim},
        )
        nodes.append(SimNode(place, port, {**environment, "PYTHONPATH": str(ROOT)}))
        return nodes[-1]

    yield make
    for node in nodes:
        node.end()


@pytest.fixture
def make_node(tmp_path: Path, child_env: dict[str, str]) -> Iterator[MakeNode]:
    """Make nodes of one simulated network; all of them are gone afterwards."""
    with _network(tmp_path, child_env) as make:
        yield make


@pytest.fixture(scope="module")
def asked_node(
    tmp_path_factory: pytest.TempPathFactory, shared_child_env: dict[str, str]
) -> Iterator[SimNode]:
    """One node, ready, for all tests of a module that only ask it: what is changed stays."""
    with _network(tmp_path_factory.mktemp("asked"), shared_child_env) as make:
        made = make()
        made.run()
        wait_until(made.ready)
        yield made


@pytest.fixture
def node(make_node: MakeNode) -> SimNode:
    """One node, ready."""
    made = make_node()
    made.run()
    wait_until(made.ready)
    return made


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A loop of the simulated node, in this process."""
    made = Loop()
    yield made
    made.close()
