"""The records of soakd's own runs: events, documents, odd lines, names in tarballs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from soakd.triage.names import Names
from soakd.triage.triage import triage
from tests.triage import kit


def _event(number: int, kind: str, node: str | None, **data: Any) -> dict[str, Any]:
    at = f"2026-11-01T00:{number:02d}:00.000Z"
    return {"n": number, "at": at, "boot_s": 1.0, "kind": kind, "node": node, "data": data}


def _folder(tmp_path: Path, events: list[dict[str, Any]]) -> Path:
    kit.write_lines(tmp_path / "logs" / "rounds.ndjson", kit.dealt_rounds(40))
    kit.write_lines(tmp_path / "logs" / "events.ndjson", events)
    return tmp_path


def test_events_tell_of_trouble_exits_and_panics(tmp_path: Path) -> None:
    """What ended before the run was being stopped ended by itself; what came after was asked."""
    events = [
        _event(1, "node_started", "a", pid=1),
        _event(2, "api_hangs", "b", route="/status", text="no answer"),
        _event(3, "panic", "b", line="thread 'x' panicked at src/a.rs:1:1:", at_byte=9),
        _event(4, "node_exited", "b", pid=2, code=101, signal=None),
        _event(5, "stopping", None, reason="x"),
        _event(6, "node_exited", "a", pid=1, code=0, signal=None),
    ]
    folder = _folder(tmp_path, events)
    document = triage(str(folder), ["node_exits == 0", "panics == 0"])
    values = {gate["gate"]: gate["value"] for gate in document["gates"]}
    assert values == {"node_exits == 0": 1, "panics == 0": 1}
    kinds = [entry["kind"] for entry in document["timeline"]["entries"]]
    assert kinds == ["node_started", "api_hangs", "node_exited"]
    assert document["timeline"]["entries"][1]["node"] == "b"


def test_lines_that_are_no_records_are_counted_and_passed_over(tmp_path: Path) -> None:
    """Torn, of another type, of an unknown outcome, of absurd depth."""
    folder = _folder(tmp_path, [])
    path = folder / "logs" / "rounds.ndjson"
    bad = ["[1]", "{", '{"outcome":"win"}', "[" * 100_000, "\udcff", '{"outcome":["hit"]}']
    text = path.read_text() + "\n".join(bad) + '\n{"round":41,"outc'
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    document = triage(str(folder))
    assert document["outcomes"]["total"] == 40
    assert "7 lines of logs/rounds.ndjson are no records" in document["source"]["notes"]


def test_the_runs_own_word_is_shown_and_counts(tmp_path: Path) -> None:
    """A run that was aborted stays aborted, whatever its gates say."""
    folder = _folder(tmp_path, [])
    cause = {"code": "host_restarted", "text": "the host was restarted", "node": None, "at": None}
    run: dict[str, Any] = {
        "id": "r7",
        "label": "x",
        "result": "aborted",
        "cause": cause,
        "verdict": "aborted",
    }
    gates: list[Any] = [{"gate": "measured >= 90%", "value": 0.5}]
    run |= {"why": "the host was restarted", "gates": gates}
    (folder / "run.json").write_text(json.dumps(run))
    document = triage(str(folder))
    assert (document["verdict"], document["why"]) == ("aborted", "the host was restarted")
    assert document["recorded"]["id"] == "r7"
    assert document["time"]["measured"] == 0.5
    (folder / "run.json").write_text("{")
    assert "run.json is no JSON document" in triage(str(folder))["source"]["notes"]


@pytest.mark.parametrize("gates", [["nonsense"], ["rounds >= 1", "beauty > 3"]])
def test_a_plan_with_a_gate_that_nobody_can_read_is_a_harness_error(
    tmp_path: Path, gates: list[str]
) -> None:
    """Of a later release, most likely: it is not passed over."""
    folder = _folder(tmp_path, [])
    (folder / "plan.json").write_text(json.dumps({"plan": {"gates": gates}}))
    assert triage(str(folder))["verdict"] == "harness_error"


def test_records_may_stand_below_one_folder() -> None:
    """The first one is taken; node folders and second folders are not."""
    notes: list[str] = []
    names = Names(notes.append)
    found = [
        names.record(name, 1)
        for name in (
            "mule-a/logs/a.out", "nodes/logs/a.out", "soak/mule-a/logs/a.out", "soak/logs/a.out",
            "soak/readme", "other/logs/b.out", "logs/b.out", "soak/logs/b.out", "soak/logs/a.out",
        )
    ]  # fmt: skip
    assert [name for name in found if name] == ["logs/a.out", "logs/b.out"]
    assert [found.index("logs/a.out"), found.index("logs/b.out")] == [3, 7]
    assert len(notes) == 3
    assert names.found == {"logs/a.out": 1, "logs/b.out": 1}


def test_memory_has_a_trend_per_node(tmp_path: Path) -> None:
    """Growth of one percent of the mean in an hour is 24 % a day."""
    folder = _folder(tmp_path, [])
    samples = [
        {"at": f"2026-11-01T{n // 60:02d}:{n % 60:02d}:00Z", "node": "b", "rss_bytes": 995 + n / 6}
        for n in range(61)
    ]
    kit.write_lines(folder / "logs" / "resources.ndjson", samples)
    memory = triage(str(folder))["nodes"]["b"]["memory"]
    assert memory["samples"] == 61
    assert memory["percent_per_day"] == pytest.approx(24.0, rel=1e-6)
