"""What is not provably the run's is never touched (docs/safety.md, 4)."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import inside
from tests.e2e.box import Box
from tests.e2e.host import alive, node_python
from tests.e2e.waiting import wait_for
from tests.ports import free_ports
from tests.shim.scene import start_as

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.safety]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has other uids and pids")
_NOBODY = 65534
_NEAR = ("owner's tail", "owner's shell", "owner's tail in a terminal", "names the folder")
"""What stands in a node folder or names one, and is its owner's."""

_SLEEP = "import time; time.sleep(100)"
_BOTH_UIDS = f"import os, time; os.setresuid({_NOBODY}, 0, 0); time.sleep(100)"


class Strangers:
    """Processes that look like a run's and are not; `lost` are those that were ended."""

    def __init__(self, box: Box, run: str) -> None:
        self._box = box
        self._home = box.node(run, "a")
        self._nonce = {"SOAK_RUN_NONCE": box.row(run)["nonce"]}
        self._made: dict[str, subprocess.Popen[bytes]] = {}
        self._open = ExitStack()

    def surround(self, run: str) -> None:
        """Start one of each kind around a live run."""
        home, log = self._home, str(self._box.run_folder(run) / "logs" / "a.out")
        self._start("owner's tail", ["tail", "-f", log], cwd=home)
        self._start("owner's shell", ["sh", "-i"], cwd=home, terminal=True)
        self._start("owner's tail in a terminal", ["tail", "-f", log], cwd=home, terminal=True)
        self._start("names the folder", [node_python(), "-c", _SLEEP, str(home)], cwd=Path("/"))
        self._start("same program", ["./rust-mule"], cwd=self._another_node())
        elsewhere = self._box.soaks[0].parent
        shutil.copy("/bin/sleep", elsewhere / "rust-mule")
        self._start("same name", ["./rust-mule", "100"], cwd=elsewhere)
        if os.geteuid() == 0:
            nobody = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
            self._start("nonce, another uid", ["sleep", "100"], env=self._nonce, popen=nobody)
            self._start(
                "nonce, half another uid", [node_python(), "-c", _BOTH_UIDS], env=self._nonce
            )

    def lost(self) -> list[str]:
        """Kinds of which the process lives no more."""
        return [kind for kind, process in self._made.items() if process.poll() is not None]

    def pids(self, *kinds: str) -> set[int]:
        """Who they are, all or those of some kinds."""
        return {process.pid for kind, process in self._made.items() if not kinds or kind in kinds}

    def close(self) -> None:
        """End them all."""
        for process in self._made.values():
            process.kill()
            process.wait()
        self._open.close()

    def _start(
        self,
        kind: str,
        command: Sequence[str],
        *,
        cwd: Path = Path("/"),
        env: Mapping[str, str] | None = None,
        terminal: bool = False,
        popen: Mapping[str, Any] | None = None,
    ) -> None:
        stdin = subprocess.DEVNULL
        settings = dict(popen or {})
        if terminal:
            ours, stdin = pty.openpty()
            self._open.callback(os.close, ours)
            self._open.callback(os.close, stdin)
            command = ["setsid", "-c", *command]
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={"PATH": os.environ["PATH"], **(env or {})},
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **settings,
        )
        self._made[kind] = process
        # As long as it is still the interpreter that becomes it, it proves nothing.
        wait_for(lambda: _words(process.pid) == list(command)[2 * terminal :], f"{kind} runs")

    def _another_node(self) -> Path:
        """A node of the same source, started by hand in a folder of its own."""
        folder = self._box.soaks[0].parent / "by-hand" / "mule-a"
        shutil.copytree(self._box.soaks[0], folder)
        config = folder / "config.toml"
        [port] = free_ports(1)
        text = config.read_text().replace(str(self._box.ports[0]), str(port))
        config.write_text(text.replace("network = ", "network = 'by hand' # "))
        return folder


def _words(pid: int) -> list[str]:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    # A `#!` program shows as its interpreter and what follows.
    return words[-1:] if words[-1:] == ["./rust-mule"] else words


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Box]]:
    """Yield what gives a box whose soakd holds its runs in some way, two at a time."""
    made: dict[str, Box] = {}
    with ExitStack() as stack:

        def held(by: str) -> Box:
            if by not in made:
                box = Box(tmp_path_factory.mktemp(by))
                stack.callback(box.close)
                (box.folder / "soakd.toml").write_text(
                    f'containment = "{by}"\nmax_running = 2\nrunning_per_user = 2\n'
                )
                box.serve()
                made[by] = box
            return made[by]

        yield held
    assert [box.leftovers() for box in made.values()] == [[]] * len(made)


@pytest.fixture
def shared_box(boxes: Callable[[str], Box], request: pytest.FixtureRequest) -> Box:
    """Return the box that the test wants, which others want as well."""
    return boxes(request.param)


@pytest.fixture
def run(box: Box) -> str:
    """Return a live run."""
    run = inside.start(box, "50", "--set", "stop_grace_s=0.3")
    box.until_rounds(run, 1)
    return run


@pytest.fixture
def strangers(box: Box, run: str) -> Iterator[Strangers]:
    """Yield strangers of each kind around the run; they are ended before the box is looked at."""
    made = Strangers(box, run)
    try:
        made.surround(run)
        yield made
    finally:
        made.close()


def _neighbour(box: Box) -> tuple[str, list[int]]:
    """Another run of the same soakd, of the very same folders and program."""
    run = inside.start(box, "50", **box.other_urls())
    return run, [node["pid"] for node in box.until_rounds(run, 1)["nodes"]]


@pytest.mark.parametrize(
    ("shared_box", "ending"),
    [
        ("auto", "stop"),
        ("evidence", "stop"),
        ("evidence", "crash of the shim"),
        ("evidence", "crash of both"),
    ],
    indirect=["shared_box"],
)
def test_only_what_is_the_runs_goes(box: Box, run: str, strangers: Strangers, ending: str) -> None:
    """Stopped by the ladder, or swept after a crash: those around it live, another run as well."""
    other, others = _neighbour(box)
    pids = [node["pid"] for node in box.status(run)["nodes"]]
    assert strangers.lost() == []
    if ending == "stop":
        inside.stop(box, run)
    else:
        if ending == "crash of both":
            box.leave(signal.SIGKILL)
        os.kill(box.row(run)["shim_pid"], signal.SIGKILL)
        if ending == "crash of both":
            box.serve()
        inside.wait(box, run, status=5)
    assert [pid for pid in pids if alive(pid)] == []
    assert strangers.lost() == []
    assert set(box.processes()) <= {*strangers.pids(), *others, box.row(other)["shim_pid"]}
    assert box.status(other)["state"] == "running"
    assert [node["pid"] for node in box.status(other)["nodes"]] == others
    inside.stop(box, other)
    assert strangers.lost() == []
    swept = [e["data"] for e in box.records(run, "logs/events.ndjson") if e["kind"] == "swept"]
    if swept:
        # Looked at, spared, and named to the owner.
        spared = {item["pid"] for item in swept[0]["spared"]}
        assert strangers.pids(*_NEAR) <= spared
        assert set(others).isdisjoint(spared)
    assert bool(swept) == (ending != "stop" and _has_no_cgroup(box, run))
    strangers.close()


def _has_no_cgroup(box: Box, run: str) -> bool:
    return box.row(run)["cgroup"] is None


@needs_root
@pytest.mark.parametrize(
    ("shared_box", "again"),
    [
        ("auto", "while soakd is away"),
        ("evidence", "while soakd is away"),
        ("evidence", "before a stop"),
    ],
    indirect=["shared_box"],
)
def test_pids_that_went_to_strangers_are_theirs(box: Box, run: str, again: str) -> None:
    """Shim and nodes are gone, other processes bear their pids: soakd ends the run, not those."""
    shim = box.row(run)["shim_pid"]
    pids = [shim, *(node["pid"] for node in box.status(run)["nodes"])]
    if again == "while soakd is away":
        box.leave(signal.SIGKILL)
    else:
        # It cannot look while its shim dies; what it does then it does by what it knew.
        box.daemon.send_signal(signal.SIGSTOP)
    os.kill(shim, signal.SIGKILL)
    made: list[subprocess.Popen[bytes]] = []
    try:
        for pid in pids[1:] if again == "before a stop" else pids:
            wait_for(lambda pid=pid: not alive(pid), f"{pid} is gone")  # type: ignore[misc]
            made.append(start_as(pid, {"PATH": "/usr/bin:/bin"}))
        if again == "while soakd is away":
            box.serve()
        else:
            box.daemon.send_signal(signal.SIGCONT)
            box.call("run.stop", run=run)
        final = inside.wait(box, run, status=5)
        assert final["result"] == "failed"
        assert [node["pid"] for node in final["nodes"]] == [None, None]
        assert [process.poll() for process in made] == [None] * len(made)
    finally:
        for process in made:
            process.kill()
            process.wait()
