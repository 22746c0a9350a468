"""Makes one document of what was read, the `--json` of `soakctl triage`; see docs/triage.md.

A number that the records cannot give is null, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from soakd.core.stats import Counters, public_counts
from soakd.triage import times
from soakd.triage.fields import LIFETIME, WINDOW
from soakd.triage.findings import Findings
from soakd.triage.flows import flows
from soakd.triage.judging import Judgement
from soakd.triage.names import OURS
from soakd.triage.outcomes import Outcomes, interval_of
from soakd.triage.status import Status
from soakd.triage.timeline import panics, timeline

SCHEMA: Final = 1
MAX_RESTARTS = 200


def report(found: Findings, outcomes: Outcomes, judgement: Judgement) -> dict[str, Any]:
    """Return the whole document; keys as docs/triage.md has them."""
    return {
        "schema": SCHEMA,
        "verdict": judgement.verdict,
        "why": judgement.why,
        "gates": [result.to_dict() for result in judgement.results],
        "recorded": _recorded(found),
        "source": _source(found),
        "old": old_numbers(found),
        "outcomes": _outcomes(found, outcomes),
        "flows": flows(found),
        "hit_rate": interval_of(outcomes.sums.hits),
        "search_hit_rate": interval_of(outcomes.sums.searched),
        "first_sight": _first_sight(found, outcomes),
        "time": times.measured_time(found, outcomes),
        "nodes": _nodes(found),
        "timeline": timeline(found),
        "panics": panics(found),
    }


def _recorded(found: Findings) -> dict[str, Any] | None:
    """What the run itself has written about its end."""
    run = found.documents.get("run.json")
    if run is None:
        return None
    keys = ("id", "label", "state", "verdict", "why", "started_at", "ended_at", "simulation")
    return {key: run.get(key) for key in keys}


def _source(found: Findings) -> dict[str, Any]:
    made_by = "soakd" if OURS & found.files.keys() else "scripts" if found.files else "unknown"
    notes = list(found.notes)
    if found.runner_state == "running":
        notes.append("runner.state says running: judged is what there was then")
    notes += [f"{count} lines of {name} are no records" for name, count in found.bad_lines.items()]
    return {
        "path": found.path,
        "kind": found.kind,
        "made_by": made_by,
        "runner_state": found.runner_state or None,
        "files": dict(sorted(found.files.items())),
        "notes": notes,
    }


def old_numbers(found: Findings) -> dict[str, Any]:
    """Return what the old triage said, by its own definitions."""
    status = found.status.get("logs/status.ndjson")
    return {
        "rounds": None if found.tsv is None else found.tsv.old_numbers(),
        "counters": {
            name: node.old_counters()
            for name, node in sorted((status.nodes if status else {}).items())
        },
        "panic_lines": {name: output.panic_lines for name, output in sorted(found.outputs.items())},
        "stop_marker": found.soak_log.stop_line,
        "runner_out": found.runner_out,
    }


def _outcomes(found: Findings, outcomes: Outcomes) -> dict[str, Any]:
    records = found.rounds
    counters = outcomes.sums.counters
    return {
        "from": outcomes.source,
        **_plain(counters),
        "prestored": None if records is None else counters.prestored,
        "prestored_by_outcome": None if records is None else _by_outcome(records.prestored),
        "cold": None if records is None else _plain(records.cold),
        "skipped_by_cause": None if records is None else dict(records.causes),
        "errors_by_step": None if records is None else dict(records.steps),
        "error_sentence": None if found.events is None else found.events.errors.sentence() or None,
        "longest_miss_streak": outcomes.sums.misses.longest,
    }


def _by_outcome(counts: dict[str, int]) -> dict[str, int]:
    return {name: counts.get(name, 0) for name in ("hit", "late", "miss", "error", "skipped")}


def _plain(counters: Counters) -> dict[str, int]:
    return {key: value for key, value in public_counts(counters).items() if key != "prestored"}


def _first_sight(found: Findings, outcomes: Outcomes) -> dict[str, Any] | None:
    """Kaplan and Meier's estimate; the scripts' records have no times of sight."""
    seen = outcomes.sums.seen
    if seen.n == 0 or found.rounds is None:
        return None
    return {
        "n": seen.n,
        "censored": found.rounds.censored,
        "median_s": seen.quantile_s(0.5),
        "p95_s": seen.quantile_s(0.95),
        "longest_s": seen.longest_s,
        "step_s": seen.step / 10,
    }


def _nodes(found: Findings) -> dict[str, Any]:
    """Snapshots, restarts, window sums and rates of each node, and its memory."""
    name, status = _best_status(found)
    nodes: dict[str, Any] = {}
    for letter, node in sorted((status.nodes if status else {}).items()):
        lives = node.lives
        nodes[letter.lower()] = {
            "from": name,
            "lines": node.lines,
            "unreadable": node.unreadable,
            "snapshots": node.snapshots,
            "first_at": node.first_at,
            "last_at": node.last_at,
            "uptime_s": lives.uptime_s,
            "process_restarts": lives.processes,
            "session_restarts": lives.sessions,
            "restarts": [restart._asdict() for restart in lives.restarts],
            "windows": _ordered(node.sums, WINDOW),
            "lifetime": {
                key: {"grown": value, "per_hour": _per_hour(value, lives.uptime_s)}
                for key, value in _ordered(lives.grown, LIFETIME).items()
            },
            "unknown_fields": sorted(node.unknown),
        }
    for letter in found.series.nodes:
        nodes.setdefault(letter, {})["memory"] = _memory(found, letter)
    return nodes


def _best_status(found: Findings) -> tuple[str | None, Status | None]:
    """Every snapshot stands only among the samples; rounds see one each."""
    for name in ("logs/status_samples.ndjson", "logs/status.ndjson"):
        status = found.status.get(name)
        if status is not None and status.nodes:
            return name, status
    return None, None


def _ordered(values: dict[str, int], known: Iterable[str]) -> dict[str, int]:
    return {key: values[key] for key in sorted(known) if key in values}


def _per_hour(grown: int, uptime_s: int) -> float | None:
    return None if uptime_s <= 0 else grown * 3600 / uptime_s


def _memory(found: Findings, node: str) -> dict[str, Any] | None:
    trend = found.series.memory_over(node, None)
    line = None if trend is None else trend.line()
    if trend is None or line is None:
        return None
    interval: Sequence[float] | None = line.interval
    return {
        "samples": trend.n,
        "span_s": trend.span_s,
        "percent_per_day": line.percent_per_day,
        "low": None if interval is None else interval[0],
        "high": None if interval is None else interval[1],
    }
