"""The whole way of a soak through every verb, for people and for programs."""

from __future__ import annotations

import json
import os
import re
import tarfile
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.box import Box
from tests.e2e.records import STATUS_KEYS
from tests.e2e.terminal import Terminal
from tests.e2e.waiting import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def test_a_soak_is_started_followed_and_collected_by_a_person(box: Box) -> None:
    """Every verb prints something readable and exits as design §8 says."""
    started = box.ctl("start", "50", "--rounds", "8", "--label", "first", env=box.plan_env())
    told = re.search(r"\br\d+\b", started.out)
    assert told is not None
    run = told[0]
    watch = box.ctl_spawn("watch")
    logs = box.ctl_spawn("logs", "-f")
    box.until_rounds(run, 2)
    shown = box.ctl("status", run).out
    assert re.search(rf"^{run} running · round \d+ \w+ · \d+ s left$", shown, re.MULTILINE)
    assert re.search(r"hit rate +\d+\.\d % of \d+", shown)
    assert re.search(r"node a +ready +pid \d+", shown)
    assert "SIMULATED" in shown
    assert "first" in box.ctl("list").out
    waited = box.ctl("wait", run)
    assert "passed" in waited.out
    assert f"{run} finished · passed: all 5 gates hold" in box.ctl("status").out
    watched, _ = watch.communicate(timeout=20)
    assert watch.returncode == 0
    assert "\x1b" not in watched
    assert re.search(r"round 8 \w+ · 8: .*hit rate \d+\.\d % of 8", watched)
    assert "passed" in watched
    followed, _ = logs.communicate(timeout=20)
    assert logs.returncode == 0
    assert followed == box.read(run, "logs/runner.log")
    assert "SIMULATION" in box.ctl("logs", run, "--node", "b").out
    assert box.ctl("logs", "-n", "1").out.endswith("node stop requested\n")
    collected = Path(box.ctl("collect").out.strip())
    assert re.fullmatch(r"soak-.+-first-\d{8}T?\d{6}Z\.tar\.gz", collected.name)
    assert (box.folder / collected).stat().st_mode & 0o777 == 0o600


def test_every_verb_speaks_json(own_box: Box) -> None:
    """With --json stdout holds nothing but JSON, with the keys of design §8; before any run too."""
    box = own_box
    assert "soakctl start" in box.ctl("status", status=66).err
    assert box.ctl("--json", "list").json() == []
    started = box.ctl("--json", "start", "50", env=box.plan_env()).json()
    assert set(started) >= {"id", "state", "position", "expected_start", "reason"}
    assert started["id"] == "r1"
    assert started["state"] in {"staging", "starting"}
    watch = box.ctl_spawn("--json", "watch", "r1")
    status = box.until_rounds("r1", 2)
    shown = box.ctl("--json", "status").json()
    assert set(shown) >= STATUS_KEYS
    assert set(shown["rounds"]) == {
        "total", "hit", "late", "miss", "error", "skipped", "prestored",
    }  # fmt: skip
    of_a_node = {"name", "pid", "state", "exit", "trouble"}
    assert [set(node) for node in shown["nodes"]] == [of_a_node] * 2
    assert shown["remaining_s"] < status["remaining_s"] < 50
    assert all(_RFC3339.fullmatch(shown[key]) for key in ("created_at", "started_at"))
    [listed] = box.ctl("--json", "list").json()
    assert (listed["id"], listed["state"]) == ("r1", "running")
    [line] = box.ctl("--json", "logs", "-n", "1").lines()
    assert set(line) == {"line"}
    stopped = box.ctl("--json", "stop").json()
    assert (stopped["state"], stopped["result"]) == ("finished", "stopped")
    waited = box.ctl("--json", "wait", "r1", status=4).json()
    assert waited["verdict"] == "aborted"
    out, _ = watch.communicate(timeout=20)
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["seq"] for event in events] == sorted({event["seq"] for event in events})
    assert {event["kind"] for event in events} >= {"progress", "state", "rung", "event", "end"}
    assert events[-1]["kind"] == "end"
    bundle = box.ctl("--json", "collect", "r1", "-o", "bundle.tar.gz").json()
    assert bundle["bytes"] == (box.folder / "bundle.tar.gz").stat().st_size
    with tarfile.open(box.folder / "bundle.tar.gz") as archive:
        assert {"runner.out", "logs/rounds.tsv", "MANIFEST.json"} <= set(archive.getnames())
    info = box.ctl("--json", "daemon", "info").json()
    assert (info["running"], info["queued"]) == (0, 0)


def test_a_soak_goes_on_when_the_terminals_that_show_it_are_left(box: Box) -> None:
    """soakctl's live line (progress, phase, time, rate, nodes) goes; soakd and the soak do not.

    Be the terminal closed, or Ctrl-C pressed in it: then it says so and exits with 130. So does
    running out of patience (124).
    """
    with Terminal(box, box.plan_env(WAIT_SEARCH="0.3")) as terminal:
        terminal.run("start", "50", "--watch")
        terminal.read_until(r"━─+ \d+ % \d+ s left · round \d+ \w+ · \d .*\d % of \d hit")
        terminal.read_until("a ready · b ready")
        assert "\x1b[32m" in terminal.raw
    [run] = [run["id"] for run in box.call("run.list")["runs"] if run["state"] == "running"]
    status = box.status(run)
    pids = [node["pid"] for node in status["nodes"]]
    assert os.getsid(pids[0]) == pids[0]
    for command in (["watch", run], ["logs", run, "-f"], ["wait", run]):
        asked = box.log().read_text().count("run.status")
        with Terminal(box, {}) as terminal:
            terminal.run(*command)
            if command[0] == "wait":
                # It shows nothing; soakd tells that it is there.
                wait_for(partial(_asked_more, box, asked), "a question")
            else:
                terminal.read_until("─ [0-9]+ %|round=")
            terminal.interrupt()
            terminal.read_until(f"detached; the soak goes on: soakctl watch {run}")
            assert terminal.exit_status() == 130
    gave_up = box.ctl("wait", run, "--timeout", "0.5", status=124)
    assert "the soak goes on" in gave_up.err
    later = box.until_rounds(run, status["rounds"]["total"] + 2)
    assert later["state"] == "running"
    assert [node["pid"] for node in later["nodes"]] == pids


def _asked_more(box: Box, asked: int) -> bool:
    return box.log().read_text().count("run.status") > asked


def test_each_refusal_has_its_exit_status_and_says_what_to_do(box: Box) -> None:
    """No run, no daemon, a bad plan: all problems at once, no traceback."""
    before = box.ctl("--json", "list").json()
    assert "r999" in box.ctl("stop", "r999", status=66).err
    nobody = box.ctl("--socket", str(box.folder / "none.sock"), "status", status=69)
    assert "soakd --background" in nobody.err
    plan = box.plan_env(A_SRC="/nonexistent", B_SRC=str(box.folder), WAIT_SEARCH="0.1")
    refused = box.ctl("start", env=plan, status=78)
    assert "/nonexistent" in refused.err
    assert f"{box.folder}/rust-mule" in refused.err
    bad = box.ctl("start", env=box.plan_env(WAIT_SEARCH="soon", A_URL="10.0.0.1:80"), status=78)
    assert "WAIT_SEARCH" in bad.err
    assert "A_URL" in bad.err
    box.ctl("start", "never", status=2)
    assert box.ctl("--json", "list").json() == before
