"""Whose is a process? Evidence that it is the run's, and everything that speaks against it.

Design §4. Each piece of evidence is something that the kernel says: the run's nonce in the
environment, the staged program as the executable, or the node folders as working folder or in the
command line. The last is weak, since the owner's own shell stands there too: it only counts for a
process that nobody holds any more. Doubt spares; what is spared is reported.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from soakd.shim import system

NONCE_KEY = b"SOAK_RUN_NONCE="
MAX_ENVIRON = 2 * 1024 * 1024
# The environment of a node is built by soakd and has none of these; who has them comes from a
# login: a `tail -f` left behind by a closed terminal, a server started by hand.
_LOGIN = (b"TERM=", b"SHELL=", b"SSH_", b"XDG_SESSION", b"DISPLAY=", b"WAYLAND_", b"TMUX=", b"STY=")
_DELETED = " (deleted)"


class Order(NamedTuple):
    """Which run it is about: `programs` are (device, inode) of the staged binaries."""

    nodes_root: str
    nonce: str
    started_ticks: int
    programs: frozenset[tuple[int, int]]


class Verdict(NamedTuple):
    """What is known of a process that something connects with the run; `spared` says why not."""

    pid: int
    ticks: int
    evidence: str
    spared: str | None


class Row(NamedTuple):
    """What `/proc/<pid>/stat` says of a living process."""

    parent: int
    terminal: int
    ticks: int


def look(pid: int) -> Row | None:
    """A process as it is now; None when it is dead."""
    fields = system.stat_fields(pid)
    if fields is None or system.is_dead(fields):
        return None
    return Row(parent=int(fields[1]), terminal=int(fields[4]), ticks=int(fields[19]))


class Judge:
    """Judges one process after another.

    Args:
        order: the run.
        reapers: who adopts the orphans of this run.
    """

    def __init__(self, order: Order, reapers: frozenset[int]) -> None:
        self._order = order
        self._reapers = reapers
        self._uid = os.getuid()
        self._roots = tuple({order.nodes_root + "/", os.path.realpath(order.nodes_root) + "/"})
        self._words = tuple(os.fsencode(root) for root in self._roots)
        self._spoken_for = _ancestors(os.getpid())

    def judge(self, pid: int, row: Row, table: dict[int, Row]) -> Verdict | None:
        """The verdict on a process; None when nothing connects it with the run."""
        environ = _environ(pid)
        nonces = {
            word.removeprefix(NONCE_KEY) for word in environ or () if word.startswith(NONCE_KEY)
        }
        spared = self._never(pid, row)
        if self._order.nonce.encode() in nonces:
            return Verdict(pid, row.ticks, "bears the run's nonce", spared)
        if nonces:
            spared = spared or "bears the nonce of another run"
        if self._runs_program(pid):
            return Verdict(pid, row.ticks, "executes the run's program", spared)
        place = self._place(pid)
        if place is None:
            return None
        spared = spared or self._is_no_orphan(pid, row, table) or _is_a_login(environ)
        return Verdict(pid, row.ticks, place, spared)

    def is_older(self, row: Row) -> bool:
        """Whether it was there before the run."""
        return row.ticks < self._order.started_ticks

    def _never(self, pid: int, row: Row) -> str | None:
        if pid in self._spoken_for:
            return "is soakd or its parent"
        if self.is_older(row):
            return "is older than the run"
        uids = _uids(pid)
        if uids != (self._uid, self._uid):
            return "is another user's"
        return None

    def _runs_program(self, pid: int) -> bool:
        path = f"/proc/{pid}/exe"
        try:
            info = os.stat(path)
        except OSError:
            return False
        # An inode is given to another file once its own is removed; the place is not.
        return (info.st_dev, info.st_ino) in self._order.programs and self._inside(_link(path))

    def _place(self, pid: int) -> str | None:
        if self._inside(_link(f"/proc/{pid}/cwd")):
            return "stands in a node folder"
        for word in _read(f"/proc/{pid}/cmdline", MAX_ENVIRON).split(b"\0"):
            value = word.partition(b"=")[2]
            if word.startswith(self._words) or value.startswith(self._words):
                return "names a node folder"
        return None

    def _inside(self, path: str) -> bool:
        return path.removesuffix(_DELETED).startswith(self._roots)

    def _is_no_orphan(self, pid: int, row: Row, table: dict[int, Row]) -> str | None:
        if row.terminal:
            return "has a terminal"
        if row.parent not in self._reapers:
            return f"its parent {row.parent} lives"
        if _holds_terminal(pid, table):
            return "holds a terminal for others"
        return None


def _is_a_login(environ: list[bytes] | None) -> str | None:
    if environ is None:
        return "does not show its environment"
    if any(word.startswith(_LOGIN) for word in environ):
        return "was started from a login"
    return None


def _holds_terminal(pid: int, table: dict[int, Row]) -> bool:
    """Whether a descendant has a terminal: tmux and screen are orphans, but of their owner."""
    wanted, seen = [pid], {pid}
    while wanted:
        parent = wanted.pop()
        for child, row in table.items():
            if row.parent == parent and child not in seen:
                if row.terminal:
                    return True
                seen.add(child)
                wanted.append(child)
    return False


def _ancestors(pid: int) -> frozenset[int]:
    found = set()
    while pid > 0 and pid not in found:
        found.add(pid)
        fields = system.stat_fields(pid)
        pid = 0 if fields is None else int(fields[1])
    return frozenset(found)


def _environ(pid: int) -> list[bytes] | None:
    """The environment; None when it may not be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            return _all(file.fileno(), MAX_ENVIRON).split(b"\0")
    except OSError:
        return None


def _uids(pid: int) -> tuple[int, int] | None:
    """Real and effective uid."""
    for line in _read(f"/proc/{pid}/status", 16 * 1024).split(b"\n"):
        if line.startswith(b"Uid:"):
            words = line.split()
            return int(words[1]), int(words[2])
    return None


def _link(path: str) -> str:
    """Where a link of /proc leads; empty if the process is gone or may not be looked at."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _read(path: str, limit: int) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return _all(file.fileno(), limit)
    except OSError:
        return b""


def _all(fd: int, limit: int) -> bytes:
    # A page at a time is what /proc gives, whatever is asked for.
    data = bytearray()
    while len(data) < limit and (piece := os.read(fd, 64 * 1024)):
        data += piece
    return bytes(data)
