"""`soakctl demo`: one command, a readable result, and nothing left, however it ends."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.box import Box
from tests.e2e.terminal import Terminal
from tests.e2e.waiting import GUARD_S, STOP_GUARD_S, Lines, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


class Demo:
    """A demo with a temporary folder of its own, and whatever is left of it."""

    def __init__(self, box: Box) -> None:
        self._box = box

    def command(self, *options: str) -> list[str]:
        return [sys.executable, "-m", "soakctl", *options]

    def start(self, *options: str) -> subprocess.Popen[str]:
        return self._box.spawn(self.command(*options), process_group=0)

    def left(self) -> list[str]:
        """Folders below TMPDIR, processes that stand there or name it."""
        place = str(self._box.temporary)
        left = [str(path) for path in self._box.temporary.iterdir()]
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                inside = str((process / "cwd").readlink()).startswith(place)
                if inside or place in command:
                    left.append(f"{process.name}: {command}")
        return left


def _cgroups_named_in(shown: str) -> list[Path]:
    """The cgroups of the demo that said in which folder it is."""
    found = re.search(r"\(folder (\S+)\)", shown)
    if found is None:
        return []
    tag = hashlib.sha256(f"{found[1]}/state".encode()).hexdigest()[:8]
    return list(Path("/sys/fs/cgroup").glob(f"**/soak-{tag}-*"))


@pytest.fixture
def demo(bare_box: Box) -> Iterator[Demo]:
    """Yield a place for a demo; what a failing one leaves is killed."""
    demo = Demo(bare_box)
    yield demo
    for line in demo.left():
        with suppress(ValueError, ProcessLookupError):
            os.kill(int(line.split(":")[0]), signal.SIGKILL)


def test_the_demo_shows_a_soak_and_leaves_nothing(demo: Demo) -> None:
    """Exit status 0; it says that it is a simulation, what it measured, and what to do next."""
    process = demo.start("demo", "--seconds", "1")
    out, err = process.communicate(timeout=STOP_GUARD_S)
    assert process.returncode == 0, out + err
    assert demo.left() == []
    assert _cgroups_named_in(err) == []
    assert "This is a SIMULATION" in err
    assert "r1 running" in out
    assert "SIMULAT" in out
    assert re.search(r"r1 finished · passed: all 5 gates hold", out)
    assert re.search(r"rounds +\d+: \d+ hit", out)
    assert re.search(r"hit rate +\d+\.\d % of \d+", out)
    assert re.search(r"round 1 \w+ · 1: ", out)
    assert "soakctl start 7200" in err
    assert "Traceback" not in out + err


def test_ctrl_c_cleans_up_before_there_is_anything_to_clean_up(demo: Demo, bare_box: Box) -> None:
    """While the interpreter starts."""
    with Terminal(bare_box, {}) as terminal:
        terminal.execute(*demo.command("demo", "--seconds", "60"))
        terminal.interrupt()
        terminal.exit_status()
        shown = terminal.raw
    assert demo.left() == []
    assert _cgroups_named_in(shown) == []


@pytest.mark.parametrize(
    ("moment", "then"), [("SIMULATION", ""), ("running", "stopping the nodes")]
)
def test_ctrl_c_cleans_up_at_any_moment(demo: Demo, bare_box: Box, moment: str, then: str) -> None:
    """Processes, ports, folder and cgroup are gone, and so is every trace in /tmp.

    A second and a third Ctrl-C during the clean-up change nothing.
    """
    with Terminal(bare_box, {}) as terminal:
        terminal.execute(*demo.command("demo", "--seconds", "60"))
        terminal.read_until(moment)
        terminal.interrupt()
        if then:
            terminal.read_until(then)
        terminal.interrupt()
        terminal.interrupt()
        assert terminal.exit_status() == 130
        shown = terminal.raw
    assert demo.left() == []
    assert _cgroups_named_in(shown) == []
    assert "are gone" in shown
    assert "Traceback" not in shown


def test_a_closed_terminal_ends_the_demo_as_well(demo: Demo, bare_box: Box) -> None:
    """SIGHUP: it owns that soakd."""
    with Terminal(bare_box, {}) as terminal:
        terminal.execute(*demo.command("demo", "--seconds", "60"))
        terminal.read_until("running")
    assert demo.left() == []


def test_a_killed_demo_takes_its_soakd_and_nodes_along(demo: Demo) -> None:
    """SIGKILL leaves no chance to clean up the folder, but nothing runs on."""
    process = demo.start("demo", "--seconds", "60")
    Lines(process).until(lambda line: "running" in line, "the nodes")
    process.kill()
    process.wait(GUARD_S)
    wait_for(lambda: all(item.startswith("/") for item in demo.left()), "everything has ended")
