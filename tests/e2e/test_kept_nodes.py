"""Nodes first, rounds later: one soak after the other on nodes that stay up."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest

from tests.e2e.box import Box
from tests.e2e.pairs import wide_box
from tests.e2e.records import COUNTED

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def shared_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Yield a box whose soakd has slots for two runs."""
    with wide_box(tmp_path_factory.mktemp("kept")) as box:
        yield box


def test_soaks_follow_one_another_on_the_same_nodes(box: Box) -> None:
    """Numbers go on, the measurement tells them apart, and all sums agree."""
    # Long enough for a soakctl to come before they are ready.
    box.install(outcomes=["hit"], warmup_secs=3.0)
    run = box.start("--no-rounds", "1h")
    box.ctl("soak", run, "--rounds", "3", status=75)
    box.ctl("wait", run, "--for", "ready")
    pids = {node["pid"] for node in box.status(run)["nodes"]}
    assert "passed" in box.ctl("soak", run, "--rounds", "3", "--wait").out
    late = box.ctl("soak", run, "--for", "1s", "--gate", "rounds >= 1000", "--wait", status=3)
    assert "inconclusive" in late.out
    self_test = (
        "--warmup-live", "1", "--warmup-stable-samples", "1", "--warmup-check-secs", "0.1",
        "--wait-publish-secs", "0.1", "--wait-search-secs", "1", "--wait-sources-secs", "0.3",
        "--poll-interval-secs", "0.1", "--pause-secs", "0.05", "--rounds", "1",
    )  # fmt: skip
    assert "keyword:a>b" in box.ctl("selftest", "--run", run, *self_test).out
    assert {node["pid"] for node in box.status(run)["nodes"]} == pids
    path = box.ctl("collect", run).out.strip()
    assert (box.folder / path).exists()
    box.ctl("stop", run)
    final = box.status(run)
    # Stopping nodes that idle is how such a run ends.
    assert (final["result"], final["verdict"]) == ("completed", "passed")
    records = box.records(run)
    assert [record["round"] for record in records] == list(range(1, len(records) + 1))
    parts = [record["measurement"] for record in records]
    assert parts[:3] == ["1"] * 3
    assert parts[-6:] == ["3"] * 6
    assert set(parts) == {"1", "2", "3"}
    rounds = final["rounds"]
    assert rounds["total"] == len(records) == sum(rounds[name] for name in COUNTED)
    assert len(box.read(run, "logs/rounds.tsv").splitlines()) == len(records)
    recorded = json.loads(box.read(run, "run.json"))
    assert recorded["rounds"] == rounds
    assert [soak["verdict"] for soak in final["soaks"]] == ["passed", "inconclusive", "passed"]
    assert sum(soak["rounds"]["total"] for soak in recorded["soaks"]) == rounds["total"]
    assert box.read(run, "runner.state") == "completed\n"


def test_a_soak_outlives_its_soakd_or_is_judged_by_the_next_one(box: Box) -> None:
    """It goes on to the number that was asked for, cut rounds included; or its node died.

    Whoever asks later sees what became of it.
    """
    goes_on = box.start("--no-rounds")
    dies = box.start("--no-rounds", WAIT_BETWEEN="1", **box.other_urls())
    for run in (goes_on, dies):
        box.ctl("wait", run, "--for", "ready")
    box.ctl("soak", dies, "--rounds", "1000")
    box.ctl("soak", goes_on, "--rounds", "2", "--wait")
    victim = box.until_rounds(dies, 3)["nodes"][1]["pid"]
    box.ctl("soak", goes_on, "--rounds", "20", "--gate", "rounds >= 19")
    box.until_rounds(goes_on, 5)
    box.leave(signal.SIGKILL)
    os.kill(victim, signal.SIGKILL)
    box.serve()
    _check_a_soak_that_went_on(box, goes_on)
    _check_a_soak_that_ended_with_its_node(box, dies)


def _check_a_soak_that_went_on(box: Box, run: str) -> None:
    found = box.until(run, lambda status: len(status["soaks"]) == 2, "the end of the soak")
    assert (found["soaks"][1]["rounds"]["total"], found["soaks"][1]["verdict"]) == (20, "passed")
    assert [record["round"] for record in box.records(run)] == list(range(1, 23))
    box.ctl("stop", run)
    assert len(box.status(run)["gaps"]) == 1


def _check_a_soak_that_ended_with_its_node(box: Box, run: str) -> None:
    final = box.wait(run, status=1)
    assert (final["result"], final["verdict"]) == ("failed", "failed")
    assert final["nodes"][1]["exit"] == {"code": None, "signal": 9}
    [soak] = final["soaks"]
    assert (soak["verdict"], soak["first_round"]) == ("failed", 1)
    records = box.records(run)
    assert soak["rounds"]["total"] == len(records) == final["rounds"]["total"]
    assert {record["measurement"] for record in records} == {"1"}
    kinds = [event["kind"] for event in box.records(run, "logs/events.ndjson")]
    assert (kinds.count("soak_begun"), kinds.count("soak_ended")) == (1, 1)
