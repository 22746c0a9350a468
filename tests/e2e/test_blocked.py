"""A process that nothing can kill: its run ends all the same, and keeps slot and ports."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import inside
from tests.e2e.box import Box
from tests.e2e.freezer import Freezer, hierarchy
from tests.e2e.host import alive
from tests.e2e.waiting import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.safety]

_STOPS_WITHIN_S = 30.0
"""The ladder's 0.3 + 3 + 1 + 10 s, the cut round and the clean-up."""


@pytest.fixture
def freezer(tmp_path: Path) -> Iterator[Freezer]:
    """Yield a freezer in which nobody is, and leave nobody in it."""
    if os.geteuid() != 0:
        pytest.skip("only root may freeze processes: run the tests as root")
    folder = tmp_path / "freezer"
    folder.mkdir()
    with hierarchy(folder) as found:
        if found is None:
            pytest.skip("this kernel has no cgroup v1 freezer: mount -t cgroup -o freezer fails")
        made = Freezer(found)
        try:
            yield made
        finally:
            made.close()


def _block(box: Box, freezer: Freezer) -> tuple[str, int]:
    """Stop a run while one of its nodes is frozen; the run and the node's pid."""
    run = inside.start(box, "50", "--set", "stop_grace_s=0.3")
    pid = box.until_rounds(run, 1)["nodes"][0]["pid"]
    freezer.freeze(pid)
    began = time.monotonic()
    stopped = box.ctl("stop", run)
    assert time.monotonic() - began < _STOPS_WITHIN_S
    assert f"blocked by pid {pid}" in stopped.out
    return run, pid


def _leases(box: Box, run: str) -> list[str]:
    with closing(sqlite3.connect(box.state / "soakd.db")) as store:
        rows = store.execute("SELECT kind FROM leases WHERE run_id = ?", (run[1:],))
        return sorted(kind for (kind,) in rows)


def _assert_blocked(box: Box, run: str, pid: int) -> None:
    status = box.status(run)
    assert (status["state"], status["result"]) == ("finished", "stopped")
    assert status["rung"] == {"rung": "blocked", "pids": [pid]}
    [note] = [note for note in status["notes"] if "could not be killed" in note]
    ports = " ".join(map(str, box.ports[:2]))
    assert note == (
        f"process {pid} could not be killed; slot and ports {ports} stay taken until it is gone"
        f" or an admin says `soakctl forget {run}`"
    )
    assert note in inside.status_text(status)
    assert f"aborted, blocked by pid {pid}" in box.ctl("list").out
    assert _leases(box, run) == ["blocked", "port", "port", "session", "session", "slot"]


def test_a_process_that_cannot_be_killed_keeps_slot_and_ports_until_it_is_gone(
    box: Box, freezer: Freezer
) -> None:
    """Bounded stop, finished run, a reason for those behind it; no end of soakd changes that."""
    run, pid = _block(box, freezer)
    _assert_blocked(box, run, pid)
    queued = box.ctl("--json", "start", "--rounds", "1", env=box.plan_env()).json()
    assert (queued["state"], queued["reason"]) == ("queued", f"blocked lease pid {pid} of {run}")
    box.leave(signal.SIGKILL)
    box.serve()
    _assert_blocked(box, run, pid)
    status = box.status(queued["id"])
    assert (status["state"], status["reason"]) == ("queued", f"blocked lease pid {pid} of {run}")
    box.ctl("daemon", "shutdown")
    assert box.daemon.wait(_STOPS_WITHIN_S) == 0
    box.serve()
    _assert_blocked(box, run, pid)
    shim = box.row(run)["shim_pid"]
    assert alive(shim)
    assert alive(pid)
    freezer.thaw()
    assert inside.wait(box, queued["id"])["verdict"] == "passed"
    assert not alive(pid)
    assert not alive(shim)
    after = box.status(run)
    assert after["rung"] is None
    assert after["notes"] == []
    assert after["nodes"][0]["state"] == "exited"
    assert box.leftovers() == []


def test_an_admin_may_have_it_forgotten(box: Box, freezer: Freezer) -> None:
    """The slot is free at once, the audit log has who; soakd still cleans up after it one day."""
    run, pid = _block(box, freezer)
    other = box.plan_env(**box.other_urls())
    queued = box.ctl("--json", "start", "--rounds", "1", env=other).json()
    assert queued["reason"] == f"blocked lease pid {pid} of {run}"
    said = box.ctl("forget", run).out
    assert said == f"forgot {run}: its slot and ports are free; still there: pid {pid}\n"
    assert inside.wait(box, queued["id"])["verdict"] == "passed"
    status = box.status(run)
    assert (status["rung"], status["notes"]) == (None, [])
    assert alive(pid)
    assert _audit(box, run)[-1] == (
        os.geteuid(),
        "forgot the blocked lease",
        f'{{"pids": [{pid}]}}',
    )
    assert "nothing to do" in box.ctl("forget", run, status=75).err
    box.leave()
    box.serve()
    after = inside.start(box, "--rounds", "1", **box.other_urls())
    assert inside.wait(box, after)["verdict"] == "passed"
    assert _leases(box, run) == ["forgotten"]
    freezer.thaw()
    wait_for(lambda: box.leftovers() == [], "soakd has cleaned up")


def test_one_thread_that_cannot_be_killed_is_enough(
    box: Box, freezer: Freezer, tmp_path: Path
) -> None:
    """The node's first thread is dead then, a zombie to look at: the process has its port still."""
    program = box.soaks[0] / "rust-mule"
    real = tmp_path / "program"
    first_line = program.read_bytes().partition(b"\n")[0].decode()
    program.rename(real)
    program.write_text(
        f"{first_line}\nimport runpy, threading, time\n"
        "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"
        f"runpy.run_path({str(real)!r}, run_name='__main__')\n"
    )
    program.chmod(0o755)
    run = inside.start(box, "50", "--set", "stop_grace_s=0.3")
    pid = box.until_rounds(run, 1)["nodes"][0]["pid"]
    [thread] = {int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()} - {pid}
    freezer.freeze_thread(thread)
    assert f"blocked by pid {pid}" in box.ctl("stop", run).out
    assert ") Z " in Path(f"/proc/{pid}/stat").read_text()
    _assert_blocked(box, run, pid)
    box.leave(signal.SIGKILL)
    box.serve()
    _assert_blocked(box, run, pid)
    freezer.thaw()
    wait_for(lambda: _leases(box, run) == [], "nothing is leased")
    assert box.leftovers() == []


def _audit(box: Box, run: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(box.state / "soakd.db")) as store:
        query = "SELECT uid, what, detail_json FROM audit WHERE run_id = ? ORDER BY id"
        return list(store.execute(query, (run[1:],)))
