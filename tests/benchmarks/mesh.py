"""`python -m tests.benchmarks.mesh`: what many simulated nodes of one network cost a box.

All nodes are started at once, each in its own folder. Measured are: how long one start takes (from
the spawn to an answer of `/health`, alone, before the others), when every node's `live_10m` counts
all the others, processor time and memory while nobody asks anything, then publishes and searches
between pairs, of sources and of keywords, and whether descriptors leak meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from soakd.simnode import install
from soakd.simnode.builder import default_python
from tests.benchmarks.box import cpu_s, wait_for

TCP_FIRST, UDP_FIRST = 31_100, 31_200
CALL_S = 10.0
LATENCY_S = 0.05
SIM = {
    "warmup_secs": 0.0,
    "latency_min_secs": 0.0,
    "latency_max_secs": LATENCY_S,
    "outcomes": ["hit"],
    "sigint_miss_rate": 0.0,
    "udp_first_port": UDP_FIRST,
    "udp_ports": 64,
}


class MeshNode:
    """One node and a client of it."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder = folder / f"node-{number}"
        self.port = TCP_FIRST + number
        sim = {**SIM, "network": f"mesh-{os.getpid()}", "seed": number}
        name = f"mesh-{number}"
        install(self.folder, python=default_python(), port=self.port, session_name=name, sim=sim)
        config = self.folder / "config.toml"
        config.write_text(config.read_text().replace("[api]", "[api]\nrate_limit_enabled = false"))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Spawn it as the shim does: output to a file."""
        with (self.folder / "out").open("ab") as out:
            self._process = subprocess.Popen(
                ["./rust-mule"],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={"NO_COLOR": "1"},
            )

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(5.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Answer of the API, None if it was not 200."""
        token = (self.folder / "data" / "api.token").read_text()
        headers = {"Authorization": f"Bearer {token}"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=CALL_S)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, f"/api/v1{path}", data, headers)
            response = connection.getresponse()
            answer = response.read()
            return json.loads(answer) if response.status == 200 else None
        finally:
            connection.close()

    def healthy(self) -> bool:
        """Say whether it serves its API."""
        with contextlib.suppress(OSError):
            return self.call("GET", "/health") is not None
        return False

    def gauge(self, name: str) -> int:
        """A field of its status; -1 while there is none."""
        with contextlib.suppress(OSError):
            return int((self.call("GET", "/status") or {}).get(name, -1))
        return -1

    def pss_mib(self) -> float:
        """Its share of the memory it maps."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line[:4] == "Pss:") / 1024

    def descriptors(self) -> int:
        """Open descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid


@contextlib.contextmanager
def mesh(folder: Path, count: int) -> Iterator[list[MeshNode]]:
    """Make the folders of so many nodes; stop whatever was started."""
    nodes = [MeshNode(folder, number) for number in range(count)]
    try:
        yield nodes
    finally:
        for node in nodes:
            node.stop()


def started_alone_ms(node: MeshNode) -> float:
    """How long one start takes."""
    begun_s = time.monotonic()
    node.start()
    wait_for("an answer", node.healthy)
    return (time.monotonic() - begun_s) * 1000


def full_mesh_s(nodes: list[MeshNode], running: int) -> tuple[float, float]:
    """Start the others; seconds until all have heard of all, and until all gauges say so."""
    begun_s = time.monotonic()
    for node in nodes[running:]:
        node.start()

    def all_heard() -> bool:
        wanted = len(nodes) - 1
        return all(
            (node.folder / "out").read_text().count("simnode_found") >= wanted for node in nodes
        )

    wait_for("a full mesh", all_heard)
    heard_s = time.monotonic() - begun_s
    for node in nodes:
        wait_for("live_10m", lambda node=node: node.gauge("live_10m") >= len(nodes) - 1)
    return heard_s, time.monotonic() - begun_s


def pair_hits(nodes: list[MeshNode], pairs: int) -> tuple[int, int]:
    """Publish and search between pairs; how many sources and keywords were found."""
    count = len(nodes)
    chosen = [(a, (a + 1 + step) % count) for step in range(count - 1) for a in range(count)]
    stride = max(1, len(chosen) // pairs)
    found = [
        pair_found(nodes[a], nodes[b], number)
        for number, (a, b) in enumerate(chosen[::stride][:pairs])
    ]
    return sum(source for source, _ in found), sum(keyword for _, keyword in found)


def pair_found(a: MeshNode, b: MeshNode, number: int) -> tuple[bool, bool]:
    """Publish on one, search on the other: was the source found, and the keyword?"""
    file_id = f"{number + 1:032x}"
    a.call("POST", "/kad/publish_source", {"file_id_hex": file_id})
    b.call("POST", "/kad/search_sources", {"file_id_hex": file_id})
    keyword = {"query": f"word{number}"}
    hit = {"file_id_hex": file_id, "filename": "f", "file_size": 1}
    keyword_id = a.call("POST", "/kad/publish_keyword", keyword | hit)["keyword_id_hex"]
    time.sleep(2 * LATENCY_S)  # the wait of a round: what was sent has arrived
    b.call("POST", "/kad/search_keyword", keyword)
    return (
        _seen(lambda: b.call("GET", f"/kad/sources/{file_id}")["sources"]),
        _seen(lambda: b.call("GET", f"/kad/keyword_results/{keyword_id}")["hits"]),
    )


def _seen(look: Callable[[], list[Any]], patience_s: float = 2.0) -> bool:
    deadline_s = time.monotonic() + patience_s
    while time.monotonic() < deadline_s:
        if look():
            return True
        time.sleep(0.01)
    return False


def used_s(nodes: list[MeshNode]) -> float:
    """Processor time of all nodes so far."""
    return sum(cpu_s(node.pid) for node in nodes)


def report(nodes: list[MeshNode], idle_s: float, pairs: int) -> Iterator[str]:
    """Measure, a row at a time."""
    starts_ms = [started_alone_ms(node) for node in nodes[:3]]
    yield f"start, alone        {statistics.median(starts_ms):7.0f} ms to /health"
    heard_s, gauge_s = full_mesh_s(nodes, 3)
    yield f"all heard of all    {heard_s:7.2f} s; live_10m {len(nodes) - 1}: {gauge_s:.2f} s"
    yield f"routing             {sorted({node.gauge('routing') for node in nodes})}"
    before_s = used_s(nodes)
    time.sleep(idle_s)
    share = 100 * (used_s(nodes) - before_s) / idle_s
    yield f"idle, all together  {share:7.1f} % of one core"
    descriptors = [node.descriptors() for node in nodes]
    before_s = used_s(nodes)
    found = pair_hits(nodes, pairs)
    each_ms = 1000 * (used_s(nodes) - before_s) / pairs
    yield f"pairs               {pairs}: sources {found[0]}, keywords {found[1]}"
    yield f"a pair, both kinds  {each_ms:7.1f} ms of processor time, all nodes together"
    memory = [node.pss_mib() for node in nodes]
    yield f"PSS each            {statistics.mean(memory):7.1f} MiB, most {max(memory):.1f}"
    grown = [node.descriptors() - old for node, old in zip(nodes, descriptors, strict=True)]
    yield f"descriptors each    {max(descriptors):7} grown by {max(grown)}"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.mesh", description=__doc__)
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--idle-s", type=float, default=30.0)
    parser.add_argument("--pairs", type=int, default=60)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="soakd-mesh-") as folder,
        mesh(Path(folder), options.nodes) as nodes,
    ):
        for row in report(nodes, options.idle_s, options.pairs):
            print(row, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
