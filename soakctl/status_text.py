"""A run as a person reads it: one headline, then what is known, line by line.

Every key is optional: of others' runs soakd shows only a few, and an older soakd may know fewer.
"""

from __future__ import annotations

from soakctl.render import (
    MISSING,
    duration,
    exit_text,
    outcomes,
    paint,
    paint_verdict,
    rate,
    safe,
    utc,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from soakctl.shapes import Status

SIMULATION = "these nodes are SIMULATED: the figures say nothing about a real network"
_LABEL_WIDTH = 10


def status_lines(status: Status, *, colours: bool, with_edits: bool = True) -> list[str]:
    """Gives the whole picture of a run; a result that was waited for needs no list of edits."""
    facts = [*_when(status), *_measured(status), *_soaks(status), *_nodes(status)]
    facts += _troubles(status)
    if with_edits:
        facts += [("edited", safe(edit)) for edit in status.get("edits") or ()]
    lines = [headline(status, colours=colours)]
    lines += [
        f"  {paint(label.ljust(_LABEL_WIDTH), 'dim', colours=colours)}{text}"
        for label, text in facts
    ]
    if status.get("simulation"):
        lines.append(f"  {paint(SIMULATION, 'yellow', colours=colours)}")
    return lines


def headline(status: Status, *, colours: bool) -> str:
    """Gives the run in one line: what it is doing, or how it ended and why."""
    name = paint(safe(status.get("id", "?")), "bold", colours=colours)
    state = safe(status.get("state", "?"))
    if state == "finished":
        return f"{name} finished{_ending(status, colours=colours)}"
    parts = [state]
    if status.get("phase"):
        number = f"round {status['round']} " if status.get("round") else ""
        parts.append(f"{number}{safe(status['phase'])}")
    if status.get("remaining_s") is not None and state == "running":
        parts.append(f"{duration(status['remaining_s'])} left")
    if status.get("kept") and state == "running" and not status.get("soak"):
        parts.append(f"nodes kept: soakctl soak {safe(status.get('id'))}")
    if status.get("reason"):
        parts.append(f"waits for: {safe(status['reason'])}")
    if status.get("link") in ("lost", "unknown"):
        parts.append(paint(f"link to the shim {status['link']}", "yellow", colours=colours))
    return f"{name} {' · '.join(parts)}"


def _ending(status: Status, *, colours: bool) -> str:
    if not status.get("verdict"):
        return ""
    verdict = paint_verdict(safe(status["verdict"]), status["verdict"], colours=colours)
    why = f": {safe(status['why'])}" if status.get("why") else ""
    left = _blocked(status)
    return f" · {verdict}{why}" + (paint(f" · {left}", "yellow", colours=colours) if left else "")


def _blocked(status: Status) -> str:
    """What of a finished run still keeps its slot and ports; empty if nothing does."""
    rung = status.get("rung")
    if not rung or status.get("state") != "finished" or rung.get("rung") != "blocked":
        return ""
    return f"blocked by {pids_text(rung.get('pids'))}"


def pids_text(pids: Iterable[object] | None) -> str:
    """Gives `pid 4711` or `pids 4711 4712`."""
    named = [safe(pid) for pid in pids or ()]
    return f"{'pid' if len(named) == 1 else 'pids'} {' '.join(named)}"


def _when(status: Status) -> list[tuple[str, str]]:
    facts = []
    if status.get("label"):
        facts.append(("label", safe(status["label"])))
    if status.get("owner"):
        facts.append(("owner", safe(status["owner"])))
    for label, key in (("queued", "created_at"), ("started", "started_at"), ("ended", "ended_at")):
        if status.get(key) and not (key == "created_at" and status.get("started_at")):
            facts.append((label, utc(status[key])))
    if status.get("position") is not None:
        facts.append(("position", f"{status['position']} in the queue"))
    if status.get("expected_start") and status.get("position"):
        word = "promised by" if status.get("promised") else "estimated"
        facts.append(("start", f"{word} {utc(status['expected_start'])}"))
    return facts


def _measured(status: Status) -> list[tuple[str, str]]:
    rounds = status.get("rounds")
    if rounds is None:
        return []
    facts = [("rounds", outcomes(rounds)), ("hit rate", rate(status.get("hit_rate")))]
    prestored = rounds.get("prestored", 0)
    if prestored:
        searched = rate(status.get("search_hit_rate"))
        facts.append(("", f"search alone {searched}; {prestored} stored there before the search"))
    return facts


def _soaks(status: Status) -> list[tuple[str, str]]:
    """What kept nodes were used for, and are used for now."""
    facts = []
    for soak in status.get("soaks") or ():
        counts, verdict = outcomes(soak.get("rounds") or {}), safe(soak.get("verdict"))
        text = f"{safe(soak.get('scenario'))}, {counts}, {verdict}"
        facts.append((f"soak {soak.get('number')}", text))
    now = status.get("soak")
    if now and status.get("state") == "running":
        wanted = f" of {now['rounds_wanted']}" if now.get("rounds_wanted") else ""
        done = (status.get("rounds") or {}).get("total", 0) - now.get("first_round", 1) + 1
        text = f"{safe(now.get('scenario'))}, {done}{wanted} rounds, under way"
        facts.append((f"soak {now.get('number')}", text))
    return facts


def _nodes(status: Status) -> list[tuple[str, str]]:
    facts = []
    for node in status.get("nodes") or ():
        pid = f"pid {node['pid']}" if node.get("pid") else ""
        text = "  ".join(
            part for part in (safe(node.get("state")), pid, exit_text(node.get("exit"))) if part
        )
        facts.append((f"node {safe(node.get('name', '?'))}", text))
        facts += [("trouble", safe(sentence)) for sentence in node.get("trouble") or ()]
    return facts


def _troubles(status: Status) -> list[tuple[str, str]]:
    facts = []
    rung = status.get("rung")
    if rung and status.get("state") == "stopping":
        facts.append(("stopping", rung_text(rung)))
    cause = status.get("cause")
    # The headline of a finished run has said it already, where no node is to be named.
    if cause and (cause.get("node") or cause.get("text") != status.get("why")):
        where = f" (node {safe(cause['node'])})" if cause.get("node") else ""
        facts.append(("cause", f"{safe(cause.get('text', ''))}{where}"))
    facts += [
        ("gap", f"{utc(gap.get('from'))}, {duration(gap.get('s', 0))}: {safe(gap.get('why', ''))}")
        for gap in status.get("gaps") or ()
    ]
    facts += [("note", safe(note)) for note in status.get("notes") or ()]
    return facts


def rung_text(rung: Status) -> str:
    """Gives one rung of the stop ladder: `SIGINT to 4711 4712`."""
    pids = " ".join(str(pid) for pid in rung.get("pids") or ())
    name = safe(rung.get("rung", "?"))
    shown = name.upper() if name.startswith("sig") else name
    return f"{shown} to {pids}" if pids else shown


def _last_word(run: Status) -> str:
    left = _blocked(run)
    word = safe(run.get("verdict") or run.get("reason") or MISSING)
    return f"{word}, {left}" if left else word


def list_rows(runs: list[Status]) -> list[list[str]]:
    """Gives the rows of `soakctl list`, heading first."""
    rows = [["RUN", "STATE", "OWNER", "LABEL", "STARTED", "ROUNDS", "HIT RATE", "VERDICT"]]
    rows += [
        [
            safe(run.get("id", "?")),
            safe(run.get("state", "?")),
            safe(run.get("owner") or MISSING),
            safe(run.get("label") or MISSING),
            utc(run["started_at"]) if run.get("started_at") else MISSING,
            str(run["rounds"].get("total", 0)) if run.get("rounds") else MISSING,
            rate(run.get("hit_rate")),
            _last_word(run),
        ]
        for run in runs
    ]
    return rows
