"""The report for people: verdict first, then what made it, then the numbers.

Pure text of the document that `report` makes; whatever comes from others is made harmless.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from soakd.triage.fields import OLD_COUNTERS

Document = Mapping[str, Any]
_WIDTH = 12
_MAX_TIMELINE = 20
_MAX_GAPS = 5
_MAX_PANICS = 5
# Of 69 window counters those that a publish or a search leads to; --json has all.
_SHOWN = frozenset(
    (*OLD_COUNTERS, "sent_search_source_reqs", "recv_search_ress", "search_results", "new_sources",
     "sent_publish_source_reqs", "recv_publish_ress", "source_search_batch_sent",
     "source_publish_batch_sent", "evicted", "new_nodes")
)  # fmt: skip
_MAX_FLOWS = 20
_MISSING = "–"
_OUTCOMES = ("hit", "late", "miss", "error", "skipped")


def lines(document: Document) -> list[str]:
    """Return the report line by line."""
    return [
        *_head(document),
        *_gates(document["gates"]),
        *_rounds(document),
        *_flows(document["flows"]),
        *_time(document["time"]),
        *_nodes(document["nodes"]),
        *_panics(document["panics"]),
        *_timeline(document["timeline"]),
        *_old(document["old"]),
        *_notes(document["source"]),
    ]


def harmless(text: object) -> str:
    """Return text in which nothing can move the cursor or end a line."""
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def _head(document: Document) -> list[str]:
    source, recorded = document["source"], document["recorded"]
    found = [f"{document['verdict']}: {harmless(document['why'])}"]
    what = f"{source['kind']} by {source['made_by']}, {harmless(source['path'])}"
    found.append(_fact("bundle", what))
    if source["runner_state"]:
        found.append(_fact("", f"runner.state says {harmless(source['runner_state'])}"))
    if recorded is not None:
        label = f" {harmless(recorded['label'])}" if recorded["label"] else ""
        found.append(
            _fact(
                "run",
                f"{harmless(recorded['id'])}{label}, recorded as {harmless(recorded['verdict'])}:"
                f" {harmless(recorded['why'])}",
            )
        )
        if recorded["simulation"]:
            found.append(_fact("", "SIMULATED nodes: the figures say nothing about a network"))
    return found


def _gates(gates: Iterable[Document]) -> list[str]:
    return [_fact("gate", f"{gate['status']:<13} {harmless(gate['text'])}") for gate in gates]


def _rounds(document: Document) -> list[str]:
    outcomes, sight = document["outcomes"], document["first_sight"]
    if outcomes["from"] is None:
        return [_fact("rounds", "none recorded")]
    counts = ", ".join(f"{outcomes[name]} {name}" for name in _OUTCOMES)
    found = [_fact("rounds", f"{outcomes['total']}: {counts}")]
    if outcomes["prestored"]:
        found.append(_fact("", f"{outcomes['prestored']} were stored before the search"))
    if outcomes["cold"] and outcomes["cold"]["total"]:
        found.append(
            _fact("", f"{outcomes['cold']['total']} were cold: {_counts(outcomes['cold'])}")
        )
    if outcomes["error_sentence"]:
        found.append(_fact("", harmless(outcomes["error_sentence"])))
    found.append(_fact("hit rate", _rate(document["hit_rate"])))
    if document["search_hit_rate"]["n"]:
        found.append(_fact("search rate", _rate(document["search_hit_rate"])))
    found.append(_fact("miss streak", f"{outcomes['longest_miss_streak']} in a row at most"))
    if sight is not None:
        median, p95 = _seconds(sight["median_s"]), _seconds(sight["p95_s"])
        text = f"median {median}, p95 {p95} ({sight['n']} rounds, {sight['censored']} never seen)"
        found.append(_fact("first sight", text))
    return found


def _flows(flows: Sequence[Document]) -> list[str]:
    """The worst flows, where there is more than one."""
    if len(flows) < 2:
        return []
    found = [_fact("flows", f"{len(flows)}, those with the most misses first")]
    for flow in flows[:_MAX_FLOWS]:
        rate = _MISSING if flow["hit_rate"] is None else f"{100 * flow['hit_rate']:.1f} %"
        shown = _counts({name: flow[name] for name in _OUTCOMES})
        found.append(_fact("", f"{harmless(flow['flow'])} {rate} of {flow['total']}: {shown}"))
    return found + _more(len(flows) - _MAX_FLOWS)


def _rate(rate: Document) -> str:
    if rate["value"] is None:
        return _MISSING
    return (
        f"{100 * rate['value']:.1f} % of {rate['n']}, 95 % interval {100 * rate['low']:.1f} to"
        f" {100 * rate['high']:.1f} % (worth {rate['effective_n']:.0f} independent rounds)"
    )


def _time(time: Document) -> list[str]:
    if time["whole_s"] is None:
        return [_fact("measured", "unknown: no times recorded")]
    share = _MISSING if time["measured"] is None else f"{100 * time['measured']:.1f} %"
    text = f"{share} of {time['whole_s'] / 3600:.2f} h, {harmless(time['from'])} to"
    found = [_fact("measured", f"{text} {harmless(time['to'])}")]
    found += [
        _fact("gap", f"{harmless(gap['from'])}, {gap['s']} s: {harmless(gap['why'])}")
        for gap in time["gaps"][:_MAX_GAPS]
    ]
    return found + _more(len(time["gaps"]) - _MAX_GAPS)


def _nodes(nodes: Mapping[str, Document]) -> list[str]:
    found = []
    for name, node in nodes.items():
        if "snapshots" in node:
            text = (
                f"{node['snapshots']} snapshots, {node['process_restarts']} process and"
                f" {node['session_restarts']} session restarts"
            )
            found.append(_fact(f"node {harmless(name)}", text))
            found += _window_lines(node)
        memory = node.get("memory")
        if memory is not None:
            found.append(_fact("", f"memory {memory['percent_per_day']:+.2f} %/day"))
    return found


def _window_lines(node: Document) -> list[str]:
    """Some sums, and rates that are not 0."""
    sums = [f"{key} {value}" for key, value in node["windows"].items() if key in _SHOWN]
    rates = [
        f"{key} {item['per_hour']:.1f}/h"
        for key, item in node["lifetime"].items()
        if item["grown"] and item["per_hour"] is not None
    ]
    found = [_fact("  windows", text) for text in _wrapped(sums)]
    return found + [_fact("  rates", text) for text in _wrapped(rates)]


def _wrapped(items: list[str], width: int = 84) -> list[str]:
    """Join items to lines of about this width."""
    found = [""]
    for item in items:
        longer = f"{found[-1]}, {item}" if found[-1] else item
        if len(longer) > width and found[-1]:
            found.append(item)
        else:
            found[-1] = longer
    return [line for line in found if line]


def _panics(panics: Sequence[Document]) -> list[str]:
    found = []
    for panic in panics[:_MAX_PANICS]:
        times = f"{panic['count']} ×, first" if panic["count"] > 1 else "once,"
        where = f"node {panic['node']}, {times} in line {panic['first_line']}"
        found.append(_fact("panic", f"{where}: {harmless(panic['text'])}"))
        found += [_fact("", f"- {harmless(line)}") for line in panic["before"]]
        found += [_fact("", f"+ {harmless(line)}") for line in panic["after"]]
    return found + _more(len(panics) - _MAX_PANICS)


def _timeline(timeline: Document) -> list[str]:
    counts = ", ".join(f"{count} {kind}" for kind, count in timeline["counts"].items())
    found = [_fact("events", harmless(counts) or "none")]
    for entry in timeline["entries"][:_MAX_TIMELINE]:
        node = f" node {harmless(entry['node'])}" if entry["node"] else ""
        text = f"{harmless(entry['at']) or _MISSING}{node} {harmless(entry['kind'])}"
        found.append(_fact("", f"{text}: {harmless(entry['text'])[:160]}"))
    return found + _more(len(timeline["entries"]) - _MAX_TIMELINE)


def _more(count: int) -> list[str]:
    return [_fact("", f"and {count} more, see --json")] if count > 0 else []


def _old(old: Document) -> list[str]:
    """What the old triage printed, in its order."""
    found = ["", "the numbers of the old triage:"]
    rounds = old["rounds"]
    if rounds is None:
        found.append(_fact("rounds", "no rounds.tsv"))
    else:
        percent = _MISSING if rounds["success_percent"] is None else rounds["success_percent"]
        shown = percent if isinstance(percent, str) else f"{percent:.2f} %"
        text = f"total {rounds['total']}, successes {rounds['successes']} ({shown})"
        found.append(_fact("rounds", text))
        for label in ("first_success", "last_success"):
            place = rounds[label]
            shown = "none" if place is None else _place(place)
            found.append(_fact("", f"{label.replace('_', ' ')} {shown}"))
        found.append(_fact("", f"longest failure streak {rounds['longest_failure_streak']}"))
        found.append(
            _fact(
                "", f"successes in the last {rounds['recent_rows']}: {rounds['recent_successes']}"
            )
        )
        found.append(_fact("", f"unique successful file ids {rounds['unique_files']}"))
        found += [
            _fact("source", f"{source['rows']:>7} {harmless(source['source_id'])}")
            for source in rounds["top_sources"]
        ]
    for node, counters in old["counters"].items():
        pairs = [f"{key} {value['max']}/{value['last']}" for key, value in counters.items()]
        found += [_fact(f"{node} max/last", text) for text in _wrapped(pairs)]
    panics = ", ".join(f"{node} {count}" for node, count in old["panic_lines"].items())
    found.append(_fact("panic lines", panics or _MISSING))
    found.append(_fact("stop marker", harmless(old["stop_marker"] or "none")))
    return found + [_fact("runner.out", harmless(line)) for line in old["runner_out"]]


def _place(place: Document) -> str:
    return f"round {harmless(place['round'])} at {harmless(place['at'])} (line {place['line']})"


def _notes(source: Document) -> list[str]:
    return [_fact("note", harmless(note)) for note in source["notes"]]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{value} {key}" for key, value in counts.items() if value and key != "total")


def _seconds(value: float | None) -> str:
    return "beyond the longest wait" if value is None else f"{value:.1f} s"


def _fact(label: str, text: str) -> str:
    return f"  {label.ljust(_WIDTH)}{text}"
