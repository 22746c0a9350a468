"""soakd comes and goes; the soak stays."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.box import Box
from tests.e2e.host import alive
from tests.e2e.records import check_rounds, count, epoch, tsv
from tests.e2e.terminal import Terminal
from tests.e2e.waiting import GUARD_S, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

_LEAVES_WITHIN_S = 2.0
# Enough to be still at it when soakd is told to leave.
_FILES_TO_COPY = 4000


def test_a_soakd_that_crashed_takes_its_run_over(bare_box: Box) -> None:
    """Same processes, next round number, a gap; the round that was cut is skipped, none is lost."""
    box = bare_box
    box.install()
    box.serve()
    run = box.start("50", WAIT_SEARCH="1")
    box.until_rounds(run, 1)
    before = box.until(run, lambda s: s["phase"] == "wait_search", "a round under way")
    pids = [node["pid"] for node in before["nodes"]]
    shim = box.row(run)["shim_pid"]
    box.leave(signal.SIGKILL)
    assert all(map(alive, [shim, *pids]))
    box.serve()
    after = box.status(run)
    assert after["state"] == "running"
    assert after["link"] == "connected"
    assert [node["pid"] for node in after["nodes"]] == pids
    assert after["rounds"]["skipped"] == 1
    assert after["deadline_at"] == before["deadline_at"]
    [gap] = after["gaps"]
    assert gap["why"]
    assert 0 < gap["s"] == pytest.approx(epoch(gap["to"]) - epoch(gap["from"]), abs=0.01)
    later = box.until_rounds(run, after["rounds"]["total"] + 1)
    assert later["remaining_s"] < before["remaining_s"]
    box.ctl("stop", run)
    final = box.wait(run, status=4)
    assert box.leftovers() == []
    records = box.records(run)
    assert len(records) == len(tsv(box, run)) == final["rounds"]["total"]
    check_rounds(tsv(box, run), records)
    cut = records[before["round"] - 1]
    assert (cut["outcome"], cut["cause"]) == ("skipped", "gap")
    assert final["rounds"]["skipped"] in {1, 2}
    assert box.row(run)["shim_pid"] == shim
    assert count(box, run)["soak-start"] == 1
    assert [ended["exit"] for ended in final["nodes"]] == [{"code": 0, "signal": None}] * 2


@pytest.mark.safety
def test_a_run_completes_under_the_soakd_that_took_it_over(bare_box: Box) -> None:
    """Its deadline did not move, and the gap counts against what was measured."""
    box = bare_box
    box.install()
    box.serve()
    run = box.start("3", WAIT_BETWEEN="0")
    box.until_rounds(run, 1)
    began = box.status(run)["deadline_at"]
    box.leave()
    # A gap of more than a tenth of the duration, by the clock that soakd will read.
    left_at = time.time()
    wait_for(lambda: time.time() > left_at + 1.0, "a gap")
    box.serve()
    final = box.wait(run, status=3)
    assert (final["result"], final["verdict"]) == ("completed", "inconclusive")
    assert "wanted measured >= 90%" in final["why"]
    assert final["deadline_at"] == began
    assert epoch(final["ended_at"]) >= epoch(began)


def test_a_run_in_warm_up_is_taken_over_too(bare_box: Box) -> None:
    """It goes on waiting for readiness, with the same processes."""
    box = bare_box
    box.install(warmup_secs=2.0)
    box.serve()
    run = box.start("--rounds", "1")
    before = box.until(run, lambda s: s["nodes"][1]["pid"], "both nodes run")
    assert box.leave() <= _LEAVES_WITHIN_S
    assert not box.socket.exists()
    box.serve()
    after = box.status(run)
    assert after["state"] == "starting", after["cause"]
    assert [n["pid"] for n in after["nodes"]] == [n["pid"] for n in before["nodes"]]
    assert box.wait(run)["verdict"] == "passed"


def test_a_stop_goes_on_without_soakd(bare_box: Box) -> None:
    """The shim walks the ladder alone; who asked for the stop is not forgotten."""
    box = bare_box
    box.install(stop_secs=1.0)
    box.serve()
    run = box.start("50")
    box.until_rounds(run, 1)
    box.ctl("stop", run, "--no-wait")
    box.until(run, lambda s: s["rung"], "the first rung")
    box.leave(signal.SIGKILL)
    box.serve()
    final = box.wait(run, status=4)
    assert (final["result"], final["verdict"]) == ("stopped", "aborted")
    assert final["cause"]["code"] == "stop_asked"
    assert box.read(run, "runner.state") == "stopped\n"
    assert box.read(run, "logs/soak.log").count("stop requested") == 1
    assert len(box.records(run)) == len(tsv(box, run)) == final["rounds"]["total"]
    assert box.leftovers() == []


def test_staging_that_was_cut_is_done_again(own_box: Box) -> None:
    """A soakd that goes while folders are copied costs nothing but time."""
    box = own_box
    many = box.soaks[0] / "many"
    many.mkdir()
    (many / "0").write_bytes(b"content")
    for number in range(1, _FILES_TO_COPY):
        os.link(many / "0", many / str(number))
    run = box.start("--rounds", "1")
    box.leave()
    assert box.row(run)["state"] == "staging"
    box.serve()
    assert box.wait(run)["verdict"] == "passed"
    copies = list((box.node(run, "a") / "many").iterdir())
    assert len(copies) == _FILES_TO_COPY
    assert {path.read_bytes() for path in copies} == {b"content"}


def test_a_node_that_died_while_soakd_was_away_is_told(own_box: Box) -> None:
    """The shim remembers: cause with node and signal, as if soakd had been there."""
    box = own_box
    run = box.start("50")
    victim = box.until_rounds(run, 1)["nodes"][0]["pid"]
    box.leave()
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: not alive(victim), "the node is dead")
    box.serve()
    final = box.wait(run, status=1)
    assert (final["cause"]["code"], final["cause"]["node"]) == ("node_exited", "a")
    assert final["nodes"][0]["exit"]["signal"] == 9
    assert len(box.records(run)) == len(tsv(box, run)) == final["rounds"]["total"]


def test_nobody_at_home_for_long_ends_the_run(own_box: Box) -> None:
    """After `orphan_grace_s` the shim stops its nodes; the next soakd writes the end down."""
    box = own_box
    run = box.start("50", "--set", "orphan_grace_s=1")
    pids = [node["pid"] for node in box.until_rounds(run, 1)["nodes"]]
    box.leave()
    wait_for(lambda: not box.processes(), "the shim ends everything")
    assert not any(map(alive, pids))
    box.serve()
    final = box.wait(run, status=5)
    assert final["result"] == "failed"
    assert box.leftovers() == []
    recorded = json.loads(box.read(run, "run.json"))
    assert recorded["rounds"] == final["rounds"]
    assert len(box.records(run)) == len(tsv(box, run)) == final["rounds"]["total"]


@pytest.mark.safety
def test_watchers_come_through_a_restart_of_soakd(own_box: Box) -> None:
    """`wait` says that soakd is away, tries again, and tells the end."""
    box = own_box
    run = box.start("--rounds", "5")
    waiting = box.ctl_spawn("wait", run)
    box.until_rounds(run, 1)
    box.leave()
    box.serve()
    out, err = waiting.communicate(timeout=GUARD_S)
    assert "lost soakd; the soak goes on" in err
    assert "finished" in out


def test_a_second_soakd_is_refused_in_clear_words(own_box: Box) -> None:
    """On the same socket, or on the same state folder; the first one goes on."""
    box = own_box
    for options in (["--state", "state2"], ["--socket", "s2.sock"]):
        refused = box.serve_refused(*options)
        assert "another soakd" in refused
        assert str(box.folder) in refused
    assert box.status(box.start("50"))["state"] != "finished"


def test_a_damaged_store_is_refused_and_kept(bare_box: Box) -> None:
    """Never started empty over it; the message names the file."""
    box = bare_box
    box.state.mkdir(mode=0o700)
    store = box.state / "soakd.db"
    store.write_bytes(b"not a database" * 1000)
    assert str(store) in box.serve_refused()
    assert store.read_bytes() == b"not a database" * 1000
    store.unlink()


@pytest.fixture
def background(bare_box: Box) -> Iterator[Box]:
    """Yield a box; the soakd that a test sends to the background in it is ended."""
    bare_box.install()
    yield bare_box
    if bare_box.answers():
        pid = bare_box.call("daemon.info")["pid"]
        os.kill(pid, signal.SIGINT)
        wait_for(lambda: not alive(pid), "soakd ends")


def test_a_soakd_in_the_background_outlives_its_terminal(background: Box) -> None:
    """`soakd --background` returns when it serves; then the terminal may close."""
    box = background
    with Terminal(box, {}) as terminal:
        terminal.execute(*box.daemon_command("--background"))
        terminal.read_until(r"soakd serves .*s\.sock; its log is .*soakd\.log")
        assert terminal.exit_status() == 0
        assert box.answers()
        pid = box.call("daemon.info")["pid"]
    run = box.start("50")
    box.until_rounds(run, 1)
    assert box.call("daemon.info")["pid"] == pid
    assert os.getsid(pid) != os.getsid(0)
    assert Path(f"/proc/{pid}/fd/0").readlink() == Path("/dev/null")
    assert "another soakd" in box.serve_refused("--background")
    box.ctl("daemon", "shutdown")
    wait_for(lambda: not alive(pid), "soakd ends")
    assert box.processes() == {}
    assert box.row(run)["result"] == "stopped"
    assert not box.socket.exists()


def test_a_soakd_in_a_terminal_that_is_closed_leaves_and_the_soak_goes_on(
    background: Box,
) -> None:
    """SIGHUP in the foreground is a reason to leave, not to stop the runs."""
    box = background
    with Terminal(box, {}) as terminal:
        terminal.execute(*box.daemon_command())
        wait_for(box.answers, "soakd answers")
        run = box.start("50")
        pids = [node["pid"] for node in box.until_rounds(run, 1)["nodes"]]
    assert not box.answers()
    assert all(map(alive, pids))
    box.serve()
    assert [node["pid"] for node in box.status(run)["nodes"]] == pids
    box.ctl("stop", run)


def test_ctrl_c_in_soakds_terminal_stops_all_runs_first(background: Box) -> None:
    """SIGINT in the foreground is `daemon shutdown`."""
    box = background
    with Terminal(box, {}) as terminal:
        terminal.execute(*box.daemon_command())
        wait_for(box.answers, "soakd answers")
        run = box.start("50")
        box.until_rounds(run, 1)
        terminal.interrupt()
        assert terminal.exit_status() == 0
    assert box.processes() == {}
    assert box.row(run)["result"] == "stopped"
