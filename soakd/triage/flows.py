"""Outcomes by flow: what was published, by which node, and which one looked for it.

A self-test has a handful of flows, a measurement of fifty nodes thousands. The document has all
of them, the text those with the most misses.
"""

from __future__ import annotations

from typing import Any

from soakd.core.stats import hit_rate, public_counts
from soakd.triage.findings import Findings


def flows(found: Findings) -> list[dict[str, Any]]:
    """Return counts and rate of each flow, those with the most misses first; none of a script."""
    rows = [
        {"flow": flow, **public_counts(counters), "hit_rate": hit_rate(counters)}
        for flow, counters in found.series.flows.items()
    ]
    return sorted(rows, key=_goodness)


def _goodness(row: dict[str, Any]) -> tuple[int, int, str]:
    return -row["miss"], -row["error"], row["flow"]
