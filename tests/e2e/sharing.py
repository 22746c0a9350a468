"""Plays the transcript of docs/sharing.md: users of one box wait, extend and stop.

`python -m tests.e2e.sharing` (as root) prints it; a test plays it and holds the document to it.
Everything is real: root's soakd, users with their own uids, simulated nodes. Only names are made
shorter, and the ports are shown as the default ones.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.e2e.accounts import ALICE, BOB, CAROL, MALLORY, SharedBox, User
from tests.e2e.host import node_python
from tests.e2e.waiting import STOP_GUARD_S, wait_for

SETTING = (
    "export A_SRC=~/mule-a B_SRC=~/mule-b",
    "export WAIT_PUBLISH=0.5 WAIT_SEARCH=0.5 WAIT_BETWEEN=0.2 READ_EVERY=0",
)
"""What all have in their shell; the waits only make the simulated rounds short."""
_CHANGING = (
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "TIME"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", "TIME"),
    (r"\d{8}T\d{6}Z", "TIME"),
    (r"\bpid \d+", "pid N"),
    (r"\b(SIG\w+ to) [\d ]*\d", r"\1 N"),
    (r"\b\d+(\.\d+)? (ms|s|min|h|d)\b( \d+ (s|min|h)\b)*", "SPAN"),
    (r"\b\d+: \d+ hit", "ROUNDS"),
    (r"\d+(\.\d+)? % of \d+", "RATE"),
    (r"^r\d+ running · .*$", "RUNNING"),
    (r" +", " "),
    (r"TIME \d+ RATE", "TIME N RATE"),
)


class Play:
    """A box with users; `lines` is what was typed and what came of it."""

    def __init__(self, box: SharedBox) -> None:
        """Gives alice and bob node folders, and all a `soakctl` in their PATH."""
        self.lines: list[str] = []
        self._box = box
        programs = box.folder / "bin"
        programs.mkdir()
        soakctl = programs / "soakctl"
        soakctl.write_text(f'#!/bin/sh\nexec {node_python()} -m soakctl "$@"\n')
        soakctl.chmod(0o755)
        self._path = f"{programs}:{os.environ['PATH']}"
        for user in (ALICE, BOB):
            box.soaks = [box.home(user) / "mule-a", box.home(user) / "mule-b"]
            box.install(outcomes=["hit"], status_every_secs=1.0)
            for folder in box.soaks:
                for path in (folder, *folder.rglob("*")):
                    os.chown(path, user.uid, user.uid)

    def types(self, user: User, command: str, status: int = 0) -> None:
        """Let a user type a command, which must end with this exit status."""
        env = {
            "PATH": self._path,
            "SOAKD_SOCKET": str(self._box.socket),
            "PYTHONPATH": str(self._box.library),
            "HOME": str(self._box.home(user)),
            "A_URL": f"127.0.0.1:{self._box.ports[0]}",
            "B_URL": f"127.0.0.1:{self._box.ports[1]}",
            "LANG": "C.UTF-8",
        }
        done = subprocess.run(
            ["sh", "-c", "\n".join((*SETTING, command))],
            cwd=self._box.home(user),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=STOP_GUARD_S,
            **user.popen(),
        )
        assert done.returncode == status, f"{user.name}$ {command}: {done}"
        name = user.name.removesuffix("-e2e")
        self.lines += [f"{name}$ {command}", *self._shown(done.stdout).splitlines(), ""]

    def says(self, text: str) -> None:
        """Put a remark between commands."""
        self.lines += [f"# {text}"]

    def until(self, holds: Callable[[], object], what: str) -> None:
        """Wait before the next command."""
        wait_for(holds, what)

    def rounds(self, run: str) -> int:
        """How many rounds a run has recorded."""
        return int(self._box.status(run)["rounds"]["total"])

    def state(self, run: str) -> str:
        """The state of a run."""
        return str(self._box.status(run)["state"])

    def _shown(self, text: str) -> str:
        for shown, port in zip(("17835", "17836"), self._box.ports, strict=False):
            text = text.replace(str(port), shown)
        text = text.replace(str(self._box.socket), "/run/soakd/soakd.sock")
        text = text.replace(str(self._box.folder / "home"), "/home")
        # In a column the name's width stays.
        return re.sub("-e2e(?=  )", "    ", text).replace("-e2e", "")


def prepare(box: SharedBox) -> None:
    """Sets the box up, before its soakd is started."""
    (box.folder / "soakd.toml").write_text("queued_per_user = 1\n")


def play(box: SharedBox) -> list[str]:
    """Plays it all; the lines of the transcript."""
    scene = Play(box)
    scene.types(ALICE, "soakctl start 1h --label nightly")
    scene.until(lambda: scene.rounds("r1") >= 2, "rounds of r1")
    scene.types(BOB, "soakctl start --rounds 2 --label bisect")
    scene.types(BOB, "soakctl queue")
    scene.says("More than one may not wait on this box:")
    scene.types(BOB, "soakctl start 30m --label another", status=75)
    scene.says("Not bob's to end, and nothing but its outside to be seen:")
    scene.types(BOB, "soakctl stop r1", status=77)
    scene.says("Bob was promised a start, so alice cannot go on for longer:")
    scene.types(ALICE, "soakctl extend r1 30m", status=75)
    scene.says("They talk. Bob steps back for a while.")
    scene.types(BOB, "soakctl hold r2")
    scene.types(ALICE, "soakctl extend r1 30m")
    scene.types(BOB, "soakctl release r2")
    scene.says("Carol is an admin; her folders are not ready, and she is told how to name them:")
    scene.types(CAROL, "soakctl start 10m", status=78)
    scene.says("Mallory is nobody's colleague:")
    scene.types(MALLORY, "soakctl status", status=77)
    scene.says("Alice has seen enough. Her slot goes to bob at once.")
    scene.types(ALICE, "soakctl stop r1")
    scene.types(BOB, "soakctl wait r2")
    scene.types(BOB, "soakctl collect r2 -o bisect.tar.gz")
    scene.types(ALICE, "soakctl list --all")
    return scene.lines


def comparable(lines: list[str]) -> list[str]:
    """What must be the same each time it is played."""
    found = []
    for line in lines:
        text = line.rstrip()
        for pattern, word in _CHANGING:
            text = re.sub(pattern, word, text)
        found.append(text.rstrip())
    return found


def played() -> Iterator[str]:
    """Plays it in a box of its own."""
    with tempfile.TemporaryDirectory(prefix="soakd-t-", ignore_cleanup_errors=True) as folder:
        box = SharedBox(Path(folder))
        try:
            prepare(box)
            box.serve(wrapper=box.wrapper)
            yield from play(box)
        finally:
            box.close()


if __name__ == "__main__":
    print("\n".join(played()))  # noqa: T201
