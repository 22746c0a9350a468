"""docs/triage.md and the document say the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from soakd.triage.triage import triage
from tests.triage import kit

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "triage.md"
_LISTS = {"gates", "panics", "flows"}
# Keys of these are data; the page says of them in words what they hold.
_OPAQUE = {
    "recorded", "source.files", "source.notes", "old.rounds.first_success",
    "old.rounds.last_success", "old.rounds.top_sources", "old.counters", "old.panic_lines",
    "old.runner_out", "outcomes.prestored_by_outcome", "outcomes.cold",
    "outcomes.skipped_by_cause", "outcomes.errors_by_step", "hit_rate", "search_hit_rate",
    "first_sight", "time.gaps", "nodes.*.restarts", "nodes.*.windows", "nodes.*.lifetime",
    "nodes.*.unknown_fields", "nodes.*.memory", "timeline.counts", "timeline.entries",
    "gates[].needs", "panics[].before", "panics[].after",
}  # fmt: skip


def _documented() -> set[str]:
    table = _PAGE.read_text().split("## The document")[1].split("## ")[0]
    first_cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    return {name for cell in first_cells for name in re.findall(r"`([^`]+)`", cell)}


def _keys(value: Any, path: str = "") -> Iterator[str]:
    if path in _OPAQUE or not isinstance(value, dict | list):
        yield path
    elif path == "nodes" and isinstance(value, dict):
        for node in value.values():
            yield from _keys(node, "nodes.*")
    elif isinstance(value, list):
        assert path in _LISTS, path
        for item in value:
            yield from _keys(item, f"{path}[]")
    else:
        for key, inner in value.items():
            yield from _keys(inner, f"{path}.{key}" if path else key)


def _in_words(name: str) -> set[str]:
    line = next(line for line in _PAGE.read_text().splitlines() if line.startswith(f"| `{name}` "))
    spans: list[list[str]] = [span.split() for span in re.findall(r"`([^`]+)`", line)]
    longest = max(len(words) for words in spans)
    return next(set(words) for words in spans if len(words) == longest)


def _full_folder(folder: Path) -> Path:
    """Make a run folder of soakd with something of everything."""
    kit.script_folder(folder, 30)
    (folder / "logs" / "a.out").write_text("x\nthread 'main' panicked at src/a.rs:1:2:\nboom\n")
    kit.write_lines(folder / "logs" / "rounds.ndjson", kit.dealt_rounds(60))
    gap = {"from": "2026-11-01T00:10:00Z", "to": "2026-11-01T00:12:00Z", "s": 120.0, "why": "x"}
    event = {"n": 1, "at": "2026-11-01T00:12:00Z", "boot_s": 1.0, "kind": "gap", "node": None}
    kit.write_lines(folder / "logs" / "events.ndjson", [event | {"data": gap}])
    samples = [
        {"at": f"2026-11-01T0{n}:00:00Z", "node": "a", "rss_bytes": 10_000_000 + n * 1000}
        for n in range(8)
    ]
    kit.write_lines(folder / "logs" / "resources.ndjson", samples)
    run = {"id": "r1", "result": "completed", "verdict": "passed", "why": "all 5 gates hold"}
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def test_every_key_is_documented_and_every_documented_key_is_there(tmp_path: Path) -> None:
    """The table of docs/triage.md holds each path of the document, and no other."""
    document = triage(str(_full_folder(tmp_path / "run")))
    assert document["schema"] == 1
    found = set(_keys(document)) | {"gates[]", "panics[]", "flows[]", "nodes"}
    assert found == _documented()


def test_keys_that_are_told_in_words_are_those_that_are_there(tmp_path: Path) -> None:
    """The page names the inner keys of small objects in one cell."""
    document = triage(str(_full_folder(tmp_path / "run")))
    assert document["recorded"].keys() == _in_words("recorded")
    assert document["hit_rate"].keys() == _in_words("hit_rate")
    assert document["first_sight"].keys() == _in_words("first_sight")
    assert document["nodes"]["a"]["memory"].keys() == _in_words("nodes.*.memory")
    assert document["time"]["gaps"][0].keys() == _in_words("time.gaps")
    assert document["timeline"]["entries"][0].keys() == {"at", "node", "kind", "text"}
    lifetime = next(iter(document["nodes"]["a"]["lifetime"].values()))
    assert lifetime.keys() == {"grown", "per_hour"}


def test_the_document_is_plain_json(tmp_path: Path) -> None:
    """No infinity, no tuple that would come back as something else."""
    document = triage(str(_full_folder(tmp_path / "run")))
    assert json.loads(json.dumps(document, allow_nan=False)) == document
