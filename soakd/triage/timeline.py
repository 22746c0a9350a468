"""Restarts, trouble, gaps and panics of all nodes in one list, in the order of their times."""

from __future__ import annotations

from collections import Counter
from typing import Any

from soakd.core.series import epoch_of
from soakd.triage.findings import Findings

MAX_ENTRIES = 500


def timeline(found: Findings) -> dict[str, Any]:
    """Return the first five hundred entries, and how many there are of each kind.

    Of soakd's own runs the events tell of trouble; of others the nodes' output does.
    """
    entries = _restarts(found)
    counts = Counter(entry["kind"] for entry in entries)
    if found.events is not None:
        entries += found.events.notable
        for entry in found.events.notable:
            counts[entry["kind"]] += 1
    else:
        for node, output in found.outputs.items():
            entries += [
                {"at": trouble.at, "node": node, "kind": trouble.kind, "text": trouble.text}
                for trouble in output.troubles
            ]
            counts.update(output.trouble_counts)
    for node, output in found.outputs.items():
        for panic in output.panics:
            entries.append({"at": panic.at, "node": node, "kind": "panic", "text": panic.text})
            counts["panic"] += panic.count
    # What has no time stands where it is found: at the end.
    entries.sort(key=lambda entry: epoch_of(entry["at"]) or float("inf"))
    return {"counts": dict(sorted(counts.items())), "entries": entries[:MAX_ENTRIES]}


def _restarts(found: Findings) -> list[dict[str, Any]]:
    """New beginnings by the nodes' own counters; of both files the one with every snapshot."""
    entries: list[dict[str, Any]] = []
    for name in ("logs/status_samples.ndjson", "logs/status.ndjson"):
        status = found.status.get(name)
        if status is None or not status.nodes:
            continue
        for letter, node in status.nodes.items():
            for restart in node.lives.restarts:
                text = f"uptime fell from {restart.uptime_before_s} s to {restart.uptime_s} s"
                kind = f"{restart.kind}_restart"
                entries.append(
                    {"at": restart.at, "node": letter.lower(), "kind": kind, "text": text}
                )
        break
    return entries


def panics(found: Findings) -> list[dict[str, Any]]:
    """Return the different panics of all nodes with the lines around the first of each."""
    return [
        {
            "node": node,
            "text": panic.text,
            "count": panic.count,
            "first_line": panic.first_line,
            "last_line": panic.last_line,
            "at": panic.at or None,
            "before": panic.before,
            "after": panic.after,
        }
        for node, output in found.outputs.items()
        for panic in output.panics
    ]
