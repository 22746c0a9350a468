"""The self-test against simulated nodes: every option, and what it leaves on record."""

from __future__ import annotations

import json
import signal
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.box import Box

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

FLOWS = [
    "keyword:a>a", "keyword:a>b", "source:a>b", "keyword:b>b", "keyword:b>a", "source:b>a",
]  # fmt: skip
IDS = "00112233445566778899aabbccddeeff", "112233445566778899aabbccddeeff00"
WAITS = (
    "--wait-publish-secs", "0.1", "--wait-search-secs", "1", "--wait-sources-secs", "0.3",
    "--poll-interval-secs", "0.1", "--pause-secs", "0.05", "--warmup-check-secs", "0.1",
)  # fmt: skip
WARM = ("--warmup-live", "1", "--warmup-stable-samples", "2")


def selftest(box: Box, *args: str, status: int = 0) -> dict[str, Any]:
    """Run a self-test to its end; its final status with the flows."""
    done = box.ctl("--json", "selftest", *WAITS, *args, status=status, env=box.plan_env())
    final: dict[str, Any] = done.lines()[-1]
    assert final["state"] == "finished"
    return final


def answers(box: Box, run: str) -> list[dict[str, Any]]:
    """Every raw answer, with its body read."""
    rows = box.records(run, "logs/answers.ndjson")
    return [{**row, "body": json.loads(row["body"])} for row in rows]


def steps(rows: list[dict[str, Any]], step: str) -> list[tuple[int | None, str]]:
    """Round and node of each answer to a step."""
    return [(row["round"], row["node"]) for row in rows if row["step"] == step]


def test_every_flow_is_played_recorded_and_shown(box: Box) -> None:
    """Twice, with fresh files: nothing of round 1 is found in round 2 before its search.

    Raw answers are in the bundle without secrets.
    """
    box.install(outcomes=["hit"])
    final = selftest(box, *WARM)
    assert (final["verdict"], final["rounds"]["total"], final["rounds"]["hit"]) == (
        "passed",
        12,
        12,
    )
    assert [row["flow"] for row in final["flows"]] == FLOWS
    assert {row["rounds"]["hit"] for row in final["flows"]} == {2}
    records = box.records(final["id"])
    assert [record["flow"] for record in records] == FLOWS * 2
    assert len({record["file_id"] for record in records}) == 8
    assert not any(record["prestored"] for record in records if record["round"] % 6 in {1, 3})
    table = box.ctl("table", final["id"]).out.splitlines()
    assert [line.split()[0] for line in table[1:]] == FLOWS
    rows = [line.split("\t") for line in box.read(final["id"], "logs/rounds.tsv").splitlines()]
    for row, record in zip(rows, records, strict=True):
        mark = '"sources":[{' if record["flow"].startswith("source:") else '"origin":"network"'
        assert mark in row[5].replace(" ", "")
    # What a self-test looks at: before the warm-up, behind it, and after each direction.
    seen = answers(box, final["id"])
    assert sorted(node for _, node in steps(seen, "health")) == ["a", "b"]
    assert len(steps(seen, "routing_buckets")) == 2
    assert [number for number, _ in steps(seen, "peers")] == sorted(
        [None, None] + [n for n in (2, 3, 5, 6, 8, 9, 11, 12) for _ in "ab"],
        key=lambda number: number or 0,
    )
    assert {number for number, _ in steps(seen, "routing_summary")} == {None, 2, 5, 8, 11}
    assert box.ctl("logs", "--answers", final["id"]).out == box.read(
        final["id"], "logs/answers.ndjson"
    )
    _check_bundle(box, final["id"], seen)


def _check_bundle(box: Box, run: str, seen: list[dict[str, Any]]) -> None:
    """Destinations in raw answers are pseudonyms of the same length."""
    path = box.ctl("collect", run).out.strip()
    with tarfile.open(box.folder / path) as bundle:
        member = bundle.extractfile("logs/answers.ndjson")
        assert member is not None
        packed = member.read().decode()
    raw = box.read(run, "logs/answers.ndjson")
    assert len(packed) == len(raw)
    peer = next(row for row in seen if row["step"] == "peers")["body"]["peers"]
    assert peer[0]["udp_dest_b64"] in raw
    assert peer[0]["udp_dest_b64"] not in packed


def test_every_option_of_the_script_does_what_it_says(box: Box, tmp_path: Path) -> None:
    """Words, files, names, types, snapshots, the lookup and the file with each raw answer."""
    box.install(outcomes=["hit"])
    out = tmp_path / "raw.ndjson"
    final = selftest(
        box, *WARM, "--rounds", "2", "--query", "both words", "--query-b", "another",
        "--a-file-id-hex", IDS[0], "--b-file-id-hex", IDS[1], "--a-filename", "x.bin",
        "--b-filename", "y.bin", "--file-size", "321", "--file-type", "Doc", "--debug-lookup",
        "--peers-snapshot", "none", "--routing-snapshot", "end", "--out-file", str(out),
        "--warmup-timeout-secs", "20",
    )  # fmt: skip
    assert final["rounds"]["total"] == 12
    rows = answers(box, final["id"])
    assert out.read_text() == box.read(final["id"], "logs/answers.ndjson")
    assert out.stat().st_mode & 0o777 == 0o600
    words = {
        row["node"]: row["body"]["keyword"] for row in rows if row["step"] == "publish_keyword"
    }
    assert words == {"a": "both", "b": "another"}
    hits = {
        (hit["file_id_hex"], hit["filename"], hit["file_size"], hit["file_type"])
        for row in rows
        if row["step"] == "keyword_results"
        for hit in row["body"]["hits"]
    }
    assert hits == {(IDS[0], "x.bin", 321, "Doc"), (IDS[1], "y.bin", 321, "Doc")}
    assert sorted(node for _, node in steps(rows, "debug_lookup")) == ["a", "b"]
    assert steps(rows, "peers") == []
    assert [number for number, _ in steps(rows, "routing_summary")] == [12, 12]
    # What was given and is there already says nothing of this round's search.
    later = [row for row in box.records(final["id"]) if row["round"] in {8, 11}]
    assert [row["prestored"] for row in later] == [True, True]
    assert [row["file_id"] for row in later] == list(IDS)


def test_an_answer_without_the_keywords_id_is_made_up_for_by_the_search(box: Box) -> None:
    """As of an older version; the early read is noted, the round is a hit all the same."""
    box.install(outcomes=["hit"], tell_keyword_id=False)
    final = selftest(box, *WARM, "--rounds", "1")
    assert final["rounds"]["hit"] == 6
    notes = [record["notes"] for record in box.records(final["id"])]
    assert "no answer named its keyword_id_hex" in notes[0][0]["text"]
    # The next flow has learnt it from the search before.
    assert notes[1] == []


def test_a_keyword_that_nobody_stores_is_a_miss_whatever_its_publisher_shows(box: Box) -> None:
    """Its own hit has the origin `local`; a gate makes the self-test fail."""
    box.install(outcomes=["hit"], keyword_outcomes=["local"])
    final = selftest(box, *WARM, "--rounds", "1", "--gate", "hit_rate >= 0.9", status=1)
    outcomes = {row["flow"]: row["rounds"]["miss"] for row in final["flows"]}
    assert outcomes == {flow: int(flow.startswith("keyword:")) for flow in FLOWS}


def test_nodes_that_do_not_get_warm_are_tested_cold(box: Box) -> None:
    """Three live nodes are not to be had of two: the rounds are marked, and say nothing of hits."""
    box.install(outcomes=["hit"])
    final = selftest(
        box, "--rounds", "1", "--warmup-timeout-secs", "0.5", "--gate", "hit_rate >= 0.5", status=3
    )
    assert final["verdict"] == "inconclusive"
    assert {record["cold"] for record in box.records(final["id"])} == {True}
    assert "warmup elapsed=0s A live_10m=1 B live_10m=1 stable=0/3" in box.read(
        final["id"], "logs/runner.log"
    )
    kinds = {event["kind"] for event in box.records(final["id"], "logs/events.ndjson")}
    assert "not_warm" in kinds


def test_a_run_may_want_no_cold_rounds(box: Box) -> None:
    """It ends without any, and nobody is to blame."""
    box.install(outcomes=["hit"])
    ending = ("--set", "warmup_on_timeout=end", "--warmup-timeout-secs", "0.3")
    final = selftest(box, *ending, status=3)
    assert (final["verdict"], final["rounds"]["total"]) == ("inconclusive", 0)
    assert final["why"].startswith("the nodes were not warm after ")
    assert "the last sample: A live_10m=1 B live_10m=1" in final["why"]


def test_a_killed_soakd_costs_a_self_test_no_flow(box: Box) -> None:
    """The next one goes on with the flow behind the one that was cut."""
    box.install(outcomes=["hit"])
    run = box.ctl(
        "--json", "selftest", *WAITS, *WARM, "--pause-secs", "0.3", "--no-wait",
        "--gate", "rounds >= 12", env=box.plan_env(),
    ).json()["id"]  # fmt: skip
    box.until_rounds(run, 2)
    box.leave(signal.SIGKILL)
    box.serve()
    final = box.wait(run)
    records = box.records(run)
    assert [record["flow"] for record in records] == FLOWS * 2
    assert final["rounds"]["total"] == 12
    assert final["rounds"]["hit"] + final["rounds"]["skipped"] == 12


def test_a_keyword_probe_is_a_soak_like_any(box: Box) -> None:
    """A fresh word in each round; late answers are late, what stays local is a miss."""
    box.install(keyword_outcomes=["hit", "late", "local"], late_secs=0.7)
    run = box.start(
        "--scenario", "keyword_probe", "--rounds", "3", "--set", "read_every_s=0.1",
        WAIT_SEARCH="0.4", MISS_RECHECK_DELAY="0.6",
    )  # fmt: skip
    final = box.wait(run)
    assert [record["outcome"] for record in box.records(run)] == ["hit", "late", "miss"]
    assert final["rounds"]["total"] == 3
    assert {record["flow"] for record in box.records(run)} == {"keyword:a>b"}
