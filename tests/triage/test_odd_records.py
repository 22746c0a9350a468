"""Records of odd types, torn bundles, plans that nobody can read: told, never a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from soakd.triage import text
from soakd.triage.status import Status
from soakd.triage.triage import triage
from tests.triage import kit

_AT = "2026-11-01T00:00:00Z"


def _checked(path: Path, gates: tuple[str, ...] = ()) -> dict[str, Any]:
    """Judge, and prove that the document is JSON and the text printable."""
    document = triage(str(path), gates)
    json.dumps(document, allow_nan=False)
    assert all(line.isprintable() for line in text.lines(document))
    return document


def test_one_line_of_any_file_does_not_cost_the_others(tmp_path: Path) -> None:
    """Infinite, huge, of another type: counted as no record, all else is read."""
    kit.write_lines(tmp_path / "logs" / "rounds.ndjson", kit.dealt_rounds(40))
    rounds = tmp_path / "logs" / "rounds.ndjson"
    odd = kit.round_record(41, "hit")
    with rounds.open("a") as file:
        for seen in ("1e999", "NaN", "-Infinity", "1" + "0" * 400, "9" * 5000):
            line = json.dumps(odd | {"first_seen_s": "@"}).replace('"@"', seen)
            file.write(line + "\n")
    event = {"at": _AT, "kind": "gap", "node": None, "data": {"s": 60.0, "why": "x"}}
    events = [
        event,
        event | {"kind": "round_error", "data": {"trouble": {"a": 1}, "text": 5}},
        event | {"data": {"s": 10**400, "from": 5, "to": [1], "why": "y" * 1000}},
        event | {"data": {"s": True}},
    ]
    kit.write_lines(tmp_path / "logs" / "events.ndjson", events)
    times = [f"2026-11-0{day}T00:00:00Z" for day in range(1, 5)]
    samples = [{"at": at, "node": "a", "rss_bytes": 1000} for at in times]
    samples += [{"at": _AT, "node": "a", "rss_bytes": size} for size in (-1, 10**400, 1e300, "x")]
    kit.write_lines(tmp_path / "logs" / "resources.ndjson", samples)
    document = _checked(tmp_path)
    assert document["outcomes"]["total"] == 40
    assert document["nodes"]["a"]["memory"]["samples"] == 4
    assert [gap["s"] for gap in document["time"]["gaps"]] == [60.0, None, None]
    assert (document["time"]["gap_s"], len(document["time"]["gaps"][1]["why"])) == (60.0, 300)
    assert set(document["source"]["notes"]) == {
        "5 lines of logs/rounds.ndjson are no records",
        "1 lines of logs/events.ndjson are no records",
        "3 lines of logs/resources.ndjson are no records",
    }


@pytest.mark.parametrize(
    "run",
    [
        {"gates": 5},
        {"gates": [{"gate": 5}, {"gate": "measured >= 5%", "value": 10**400}]},
        {"result": ["x"], "id": {"x": 1}, "label": ["\x1b"], "why": {}},
        {"result": "failed", "cause": {"code": 5, "text": [1]}},
    ],
)
def test_a_run_json_of_odd_types_is_read_for_what_it_says(
    tmp_path: Path, run: dict[str, Any]
) -> None:
    """It was written by nobody knows whom."""
    kit.write_lines(tmp_path / "logs" / "rounds.ndjson", kit.dealt_rounds(10))
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert _checked(tmp_path)["time"]["measured"] is None


@pytest.mark.parametrize("gates", [[5, "rounds >= 1"], {"rounds": 1}, [None]])
def test_a_gate_of_a_plan_that_is_no_text_is_no_silent_skip(tmp_path: Path, gates: object) -> None:
    """It is as unreadable as a text that is no gate."""
    kit.write_lines(tmp_path / "logs" / "rounds.ndjson", kit.dealt_rounds(10))
    (tmp_path / "plan.json").write_text(json.dumps({"plan": {"gates": gates}}))
    assert _checked(tmp_path)["verdict"] == "harness_error"


def test_a_torn_bundle_is_never_passed(tmp_path: Path) -> None:
    """What is missing may be what would have failed; what has failed, failed."""
    folder = kit.script_folder(tmp_path / "soak", 400)
    (folder / "logs" / "soak.log").write_text("")
    whole = kit.packed(folder, tmp_path / "soak.tar.gz")
    torn = tmp_path / "torn.tar.gz"
    torn.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 4])
    assert _checked(whole, ("rounds >= 400",))["verdict"] == "passed"
    document = _checked(torn, ("rounds >= 400",))
    assert document["verdict"] == "inconclusive"
    assert document["why"].startswith("all gates hold for what can be read, but the bundle cannot")
    assert _checked(torn, ("max_miss_streak <= 0",))["verdict"] == "failed"


def test_a_status_line_cut_in_its_midst_is_no_dead_node(tmp_path: Path) -> None:
    """Whoever was cut off while writing lived; an empty line at the end says the opposite."""
    folder = kit.script_folder(tmp_path / "soak", 40)
    path = folder / "logs" / "status.ndjson"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines)[:-300])
    assert _checked(folder, ("node_exits == 0",))["verdict"] == "passed"
    path.write_text("\n".join([*lines[:-1], lines[-1][:27]]) + "\n")
    assert _checked(folder, ("node_exits == 0",))["verdict"] == "failed"


def test_lines_without_a_node_are_torn_and_nothing_else() -> None:
    """Blank ones, those with one tab, those of a name that is none; a brace may stand anywhere."""
    status = Status()
    lines = [b"", b"x", b"T\tA", b"{", b"\t", b"T\t{\t{}", b"T\t" + b"n" * 30 + b"\t{}", b"no {\t"]
    status.add(b"\n".join([*lines, b'T\tA\t{"uptime_secs":5,"live":7}', b"T\tB\t"]))
    status.finish()
    assert status.torn == len(lines)
    assert status.nodes["A"].old_counters()["live"] == {"max": 7, "last": 7}
    assert (status.nodes["B"].lines, status.nodes["B"].unreadable) == (1, 1)
