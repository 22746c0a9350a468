"""soakd comes and goes; the soak stays."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.box import Box
from tests.e2e.host import alive
from tests.e2e.records import epoch
from tests.e2e.terminal import Terminal
from tests.e2e.waiting import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


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
    """`soakd --background` returns when it serves; then the terminal may close.

    A second soakd is refused, on the same socket as on the same state folder; the first goes on.
    """
    box = background
    with Terminal(box, {}) as terminal:
        terminal.execute(*box.daemon_command("--background"))
        terminal.read_until(r"soakd serves .*s\.sock; its log is .*soakd\.log")
        assert terminal.exit_status() == 0
        assert box.answers()
        pid = box.call("daemon.info")["pid"]
    assert os.getsid(pid) != os.getsid(0)
    assert Path(f"/proc/{pid}/fd/0").readlink() == Path("/dev/null")
    for options in (["--background", "--state", "state2"], ["--socket", "s2.sock"]):
        refused = box.serve_refused(*options)
        assert "another soakd" in refused
        assert str(box.folder) in refused
    run = box.start("50")
    box.until_rounds(run, 1)
    assert box.call("daemon.info")["pid"] == pid
    box.ctl("daemon", "shutdown")
    wait_for(lambda: not alive(pid), "soakd ends")
    assert box.processes() == {}
    assert box.row(run)["result"] == "stopped"
    assert not box.socket.exists()


def test_a_closed_terminal_ends_soakd_alone_and_ctrl_c_its_runs_first(bare_box: Box) -> None:
    """In the foreground SIGHUP is a reason to leave, SIGINT is `daemon shutdown`."""
    box = bare_box
    box.install()
    with Terminal(box, {}) as terminal:
        terminal.execute(*box.daemon_command())
        wait_for(box.answers, "soakd answers")
        run = box.start("50")
        pids = [node["pid"] for node in box.until_rounds(run, 1)["nodes"]]
    assert not box.answers()
    assert all(map(alive, pids))
    with Terminal(box, {}) as terminal:
        terminal.execute(*box.daemon_command())
        wait_for(box.answers, "the next soakd answers")
        assert [node["pid"] for node in box.status(run)["nodes"]] == pids
        terminal.interrupt()
        assert terminal.exit_status() == 0
    assert box.processes() == {}
    assert box.row(run)["result"] == "stopped"
