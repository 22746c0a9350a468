"""How much of the time was measured, and where the gaps are.

soakd's own runs book their gaps. In a script's records a gap is a pause between two rows that no
round can explain: five minutes at least, and five times the usual interval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from soakd.core.series import epoch_of
from soakd.triage.findings import Findings
from soakd.triage.outcomes import Outcomes
from soakd.triage.records import number
from soakd.triage.rounds_tsv import MIN_PAUSE_S, RoundsTsv

_UNUSUAL = 5


def measured_time(found: Findings, outcomes: Outcomes) -> dict[str, Any]:
    """Return `from`, `to`, `whole_s`, `gaps`, `gap_s` and `measured`, a share or null."""
    if outcomes.source == "logs/rounds.tsv" and found.tsv is not None:
        return _of_script(found, found.tsv)
    return _of_soakd(found)


def _of_soakd(found: Findings) -> dict[str, Any]:
    run = found.documents.get("run.json", {})
    gaps = [] if found.events is None else found.events.gaps
    # A run that still goes on is measured up to its last record.
    rounds = found.rounds
    begun = found.soak_log.running_at or None
    ended = found.soak_log.ending_at or (None if rounds is None else rounds.last_at) or None
    whole_s = _between(begun, ended)
    gap_s = sum(gap["s"] or 0.0 for gap in gaps)
    share = None
    if whole_s is not None:
        share = 1.0 if whole_s <= 0 else max(0.0, 1 - gap_s / whole_s)
    recorded = _recorded_share(run)
    return {
        "from": begun,
        "to": ended,
        "whole_s": whole_s,
        "gaps": gaps,
        "gap_s": gap_s,
        "measured": share if recorded is None else recorded,
    }


def _recorded_share(run: Mapping[str, Any]) -> float | None:
    """What the run's own gate `measured` has found: it knows the clock better than its files do."""
    gates = run.get("gates")
    for gate in gates if isinstance(gates, list) else ():
        if isinstance(gate, dict) and str(gate.get("gate", "")).startswith("measured "):
            return number(gate.get("value"))
    return None


def _of_script(found: Findings, tsv: RoundsTsv) -> dict[str, Any]:
    usual_s = _median(tsv.intervals)
    least_s = max(MIN_PAUSE_S, _UNUSUAL * usual_s)
    long = [pause for pause in tsv.pauses if pause[0] >= least_s]
    gap_s = sum(
        (seconds - usual_s) * count
        for seconds, count in tsv.intervals.items()
        if seconds >= least_s
    )
    log = found.runner_log
    first, last = tsv.span
    begun = log.started_at if log is not None and log.started_at else first
    whole_s = _between(begun, last)
    share = None
    if whole_s is not None and whole_s > 0:
        share = max(0.0, 1 - gap_s / whole_s)
    return {
        "from": begun or None,
        "to": last or None,
        "whole_s": whole_s,
        "gaps": [
            {"from": before, "to": after, "s": seconds - usual_s, "why": "no round was recorded"}
            for seconds, before, after in sorted(long, key=lambda pause: pause[1])
        ],
        "gap_s": gap_s,
        "measured": share,
    }


def _median(intervals: Counter[int]) -> int:
    left = intervals.total() // 2
    for seconds in sorted(intervals):
        left -= intervals[seconds]
        if left < 0:
            return seconds
    return 0


def _between(begun: str | None, ended: str | None) -> float | None:
    first, last = epoch_of(begun), epoch_of(ended)
    return None if first is None or last is None else max(0.0, last - first)
