"""What the record files of a run must look like, character by character (design §6)."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import datetime
from typing import Any

from tests.e2e.box import Box

SCRIPT_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+0000"
SOURCES_MARK = '"sources":[{'
COUNTED = ("hit", "late", "miss", "error", "skipped")
ROUND_KEYS = {
    "round", "measurement", "publisher", "searcher", "flow", "file_id", "file_size", "outcome",
    "cause", "cold", "prestored", "source_ids", "publisher_listed", "first_seen_s", "rechecks",
    "error", "notes", "started_at", "publish_at", "ended_at", "duration_s",
}  # fmt: skip
STATUS_KEYS = {
    "id", "owner", "state", "phase", "link", "verdict", "cause", "remaining_s", "rounds", "nodes",
    "gaps", "edits",
}  # fmt: skip
_ID = "[0-9a-f]{32}"
_SECS = r"\d+(\.\d+)?"
MARKERS = {
    "soak-start": rf"soak-start duration_secs=({_SECS}|none) deadline_epoch=(\d{{10}}|none)",
    "run-tag": r"run-tag=\S+ session_a=\S+ session_b=\S+ fresh_identity=[01]",
    "started": r"started A pid=\d+ B pid=\d+",
    "ready-check": r"ready-check elapsed=\d+s A=\d{3} B=\d{3}",
    "timer": r"timer remaining_secs=(\d+|none) round=\d+",
    "round": rf"round=\d+ file={_ID} size=\d+",
    "miss_recheck": rf"round=\d+ miss_recheck attempt=\d+ delay_secs={_SECS} file={_ID}",
    "miss_recheck_hit": rf"round=\d+ miss_recheck_hit attempt=\d+ file={_ID}",
    "deadline reached": r"deadline reached",
    "stop marker detected": r"stop marker detected",
    "node stop requested": r"node stop requested",
    "soak-finished": r"soak-finished rounds=\d+",
    "runner stop requested": r"runner stop requested",
    "ERROR": r"ERROR: \S.*",
    "WARN": r"WARN: \S.*",
}


def markers(box: Box, run: str) -> list[tuple[str, str]]:
    """Name and text of every line of runner.log; each must be one of design §6."""
    found = []
    for line in box.read(run, "logs/runner.log").splitlines():
        time_and_text = re.fullmatch(rf"({SCRIPT_TIME}) (.*)", line)
        assert time_and_text, line
        names = [name for name, form in MARKERS.items() if re.fullmatch(form, time_and_text[2])]
        assert len(names) == 1, line
        found.append((names[0], time_and_text[2]))
    return found


def count(box: Box, run: str) -> Counter[str]:
    """How many lines of runner.log there are of each marker."""
    return Counter(name for name, _ in markers(box, run))


def tsv(box: Box, run: str) -> list[list[str]]:
    """The rows of rounds.tsv, each of six columns and a true time."""
    rows = [line.split("\t") for line in box.read(run, "logs/rounds.tsv").split("\n")[:-1]]
    for row in rows:
        assert len(row) == 6
        assert re.fullmatch(SCRIPT_TIME, row[0])
        assert re.fullmatch(_ID, row[2])
    return rows


def check_sums(box: Box, run: str, status: dict[str, Any]) -> None:
    """Status, rounds.tsv, rounds.ndjson and run.json tell the same story of a finished run."""
    rounds, rows, records = status["rounds"], tsv(box, run), box.records(run)
    recorded = json.loads(box.read(run, "run.json"))
    assert recorded["rounds"] == rounds
    assert recorded["verdict"] == status["verdict"]
    assert rounds["total"] == sum(rounds[name] for name in COUNTED) == len(rows) == len(records)
    outcomes = Counter(record["outcome"] for record in records)
    assert {name: outcomes[name] for name in COUNTED} == {name: rounds[name] for name in COUNTED}
    assert sum(record["prestored"] for record in records) == rounds["prestored"]
    assert sum(SOURCES_MARK in row[5] for row in rows) == rounds["hit"] + rounds["late"]
    classified = rounds["hit"] + rounds["late"] + rounds["miss"]
    assert status["hit_rate"]["n"] == classified
    if classified:
        rate = (rounds["hit"] + rounds["late"]) / classified
        assert status["hit_rate"]["value"] == rate
    assert count(box, run)["round"] == rounds["total"]
    assert ("soak-finished", f"soak-finished rounds={rounds['total']}") in markers(box, run)
    check_rounds(rows, records)
    check_status_files(box, run, rounds["total"] - rounds["error"] - rounds["skipped"])
    check_events(box, run)


def check_rounds(rows: list[list[str]], records: list[dict[str, Any]]) -> None:
    """Row and record of a round agree, and rounds are numbered without holes."""
    assert [record["round"] for record in records] == list(range(1, len(records) + 1))
    for row, record in zip(rows, records, strict=True):
        assert set(record) == ROUND_KEYS
        assert (int(row[1]), row[2]) == (record["round"], record["file_id"])
        assert 1024 <= record["file_size"] <= 5_001_023
        assert (record["publisher"], record["searcher"]) == ("a", "b")
        assert (record["measurement"], record["flow"]) == ("1", "source:a>b")
        if record["outcome"] in {"hit", "late", "miss"}:
            assert row[3] == row[4] == '{"queued":true}'
            final = json.loads(row[5])
            # Raw bodies: the pipelines of the old triage look for just these characters.
            assert row[5].startswith(f'{{"file_id_hex":"{record["file_id"]}","sources":[')
            listed = [source["source_id_hex"] for source in final["sources"]]
            assert listed == record["source_ids"]
            assert bool(listed) == (record["outcome"] != "miss")
            assert (record["rechecks"] > 0) >= (record["outcome"] == "late")


def check_status_files(box: Box, run: str, finished: int) -> None:
    """One A and one B per finished round, in pairs; samples of both nodes."""
    if finished == 0:
        return
    lines = box.read(run, "logs/status.ndjson").splitlines()
    letters = [_status_letter(line) for line in lines]
    pairs = [set(letters[at : at + 2]) for at in range(0, 2 * finished, 2)]
    assert pairs == [{"A", "B"}] * finished
    samples = box.read(run, "logs/status_samples.ndjson").splitlines()
    assert {_status_letter(line) for line in samples} == {"A", "B"}


def _status_letter(line: str) -> str:
    time_text, letter, body = line.split("\t")
    assert re.fullmatch(SCRIPT_TIME, time_text)
    assert len(json.loads(body)) == 99
    return letter


def check_events(box: Box, run: str) -> None:
    """Events are numbered from 1; resources name their node."""
    events = box.records(run, "logs/events.ndjson")
    assert [event["n"] for event in events] == list(range(1, len(events) + 1))
    resources = box.records(run, "logs/resources.ndjson")
    assert {sample["node"] for sample in resources} == {"a", "b"}
    assert all(sample["rss_bytes"] > 0 for sample in resources)


def epoch(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 time."""
    return datetime.fromisoformat(text).timestamp()
