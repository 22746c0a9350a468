"""Simulated nodes told to misbehave: when they are installed, or while they run."""

from __future__ import annotations

import json
import re
from pathlib import Path

from soakd.simnode import order
from tests.e2e.box import Box
from tests.e2e.waiting import wait_for


def at_install(folder: Path, *orders: str) -> None:
    """Put orders into the configuration of a node folder (soakd/simnode/faults.py)."""
    config = folder / "config.toml"
    head, section, rest = config.read_text().partition("[sim]\n")
    assert section
    config.write_text(f"{head}{section}faults = {json.dumps(orders)}\n{rest}")


def now(box: Box, run: str, node: str, *orders: str) -> None:
    """Have a running node obey, and return when it has said that it does."""
    already = _carried_out(box, run, node)
    order(box.node(run, node) / "data", *orders)
    wait_for(lambda: _carried_out(box, run, node) >= already + len(orders), f"{node}: {orders}")


def descendants(box: Box, run: str, node: str) -> list[int]:
    """Pids of everything that `fork` and `daemon` made in a node, by its own word."""
    found = re.findall(r'simulated fault .*pids="?([\d ]+)', _said(box, run, node))
    return [int(word) for pids in found for word in pids.split()]


def _carried_out(box: Box, run: str, node: str) -> int:
    return _said(box, run, node).count('event="sim_fault"')


def _said(box: Box, run: str, node: str) -> str:
    # The file log: a node may print gigabytes.
    logs = sorted((box.node(run, node) / "data" / "logs").glob("*.log"))
    return "".join(path.read_text(errors="replace") for path in logs)
