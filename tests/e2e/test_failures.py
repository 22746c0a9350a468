"""Runs that fail: why, whose fault, in the node's own words; and nothing is left."""

from __future__ import annotations

import json
import os
import signal
import tarfile

import pytest

from tests.e2e.box import Box
from tests.e2e.host import alive, listening
from tests.e2e.nodes import LEAVES_A_CHILD, PANICS, teach
from tests.e2e.records import check_sums, count

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.mark.safety
def test_a_node_that_dies_ends_the_run_and_the_round_is_no_miss(box: Box) -> None:
    """Cause with node and signal; the round under way is an error of that node."""
    run = box.start("50", WAIT_SEARCH="20")
    box.until(run, lambda s: s["phase"] == "wait_search", "a round under way")
    victim = box.status(run)["nodes"][1]["pid"]
    os.kill(victim, signal.SIGKILL)
    final = box.wait(run, status=1)
    assert (final["result"], final["verdict"]) == ("failed", "failed")
    assert (final["cause"]["code"], final["cause"]["node"]) == ("node_exited", "b")
    assert f"node b (pid {victim})" in final["cause"]["text"]
    assert "SIGKILL" in final["cause"]["text"]
    assert final["cause"]["at"]
    [ended] = [node for node in final["nodes"] if node["name"] == "b"]
    assert ended["exit"]["signal"] == 9
    check_sums(box, run, final)
    [record] = box.records(run)
    assert (record["outcome"], record["cause"]) == ("error", "node_down:b")
    assert record["error"]["step"] == "wait_search"
    assert final["hit_rate"] == {"value": None, "n": 0}
    assert count(box, run)["ERROR"] == 1
    assert box.read(run, "runner.state") == "failed\n"
    assert box.leftovers() == []


@pytest.mark.safety
def test_a_node_that_dies_during_warm_up_fails_the_start(box: Box) -> None:
    """At once, not after the time for readiness."""
    box.install(warmup_secs=60.0)
    run = box.start("50")
    status = box.until(run, lambda s: s["nodes"][1]["pid"], "both nodes run")
    os.kill(status["nodes"][0]["pid"], signal.SIGTERM)
    final = box.wait(run, status=1)
    assert (final["cause"]["code"], final["cause"]["node"]) == ("node_exited", "a")
    assert "SIGTERM" in final["cause"]["text"]


def test_a_source_that_lost_its_program_while_queued_fails_naming_it(box: Box) -> None:
    """The shim finds out, as the user."""
    first = box.start("50")
    second = box.start("50")
    (box.soaks[1] / "rust-mule").unlink()
    box.ctl("stop", first)
    final = box.wait(second, status=5)
    assert final["result"] == "failed"
    assert f"rust-mule in {box.soaks[1]}" in final["cause"]["text"]
    assert final["cause"]["node"] == "b"


def test_a_program_that_cannot_be_executed_fails_naming_it(box: Box) -> None:
    """No retry, no waiting for readiness."""
    (box.soaks[0] / "rust-mule").write_bytes(b"#!/nonexistent/interpreter\n")
    run = box.start("50")
    final = box.wait(run, status=1)
    assert (final["cause"]["code"], final["cause"]["node"]) == ("node_not_executed", "a")
    assert "No such file" in final["cause"]["text"]
    assert box.leftovers() == []


def test_a_run_that_never_had_a_folder_can_be_collected(box: Box) -> None:
    """Its port is taken before anything is made; any state means any."""
    with listening(box.ports[1]):
        run = box.start("50")
        assert box.wait(run, status=5)["cause"]["code"] == "port_busy"
    box.ctl("collect", run, "-o", "early.tar.gz")
    with tarfile.open(box.folder / "early.tar.gz") as bundle:
        manifest = bundle.extractfile("MANIFEST.json")
        assert manifest is not None
        assert json.load(manifest)["about"]["status"]["cause"]["code"] == "port_busy"


def test_a_panic_of_a_node_fails_its_gate(box: Box) -> None:
    """The node lives on and the run completes, but the verdict is `failed`."""
    box.install(outcomes=["hit"])
    teach(box.soaks[0], PANICS)
    run = box.start("--rounds", "2")
    final = box.wait(run, status=1)
    assert (final["result"], final["verdict"]) == ("completed", "failed")
    assert "panics is 1" in final["why"]
    [event] = [e for e in box.records(run, "logs/events.ndjson") if e["kind"] == "panic"]
    assert event["node"] == "a"


@pytest.mark.safety
def test_a_run_that_never_gets_ready_fails_in_time(box: Box) -> None:
    """READY_TIMEOUT_SECS."""
    box.install(warmup_secs=60.0)
    run = box.start("50", READY_TIMEOUT_SECS="1")
    final = box.wait(run, status=1)
    assert final["cause"]["code"] == "ready_timeout"
    assert "not ready after 1 s" in final["cause"]["text"]
    assert box.leftovers() == []


def test_the_shims_death_ends_its_nodes_and_the_run_says_so(box: Box) -> None:
    """A harness error, never the node's fault; the next run starts all the same."""
    teach(box.soaks[0], LEAVES_A_CHILD)
    run = box.start("50")
    box.until_rounds(run, 1)
    stray = int((box.node(run, "a") / "stray.pid").read_text())
    os.kill(box.row(run)["shim_pid"], signal.SIGKILL)
    final = box.wait(run, status=5)
    assert final["cause"]["code"] == "shim_lost"
    assert not alive(stray)
    recorded = json.loads(box.read(run, "run.json"))
    assert [node["pid"] for node in recorded["nodes"]] == [None, None]
    check_sums(box, run, final)
    box.wait(box.start("--rounds", "1"))
    assert box.leftovers() == []
