"""The processes of the run: the nodes, and every orphan that comes to us as their subreaper.

A node that ended stays a zombie until its whole group is dead: its pid then still names that
group and nothing else, so that a late SIGKILL to the group cannot hit a stranger.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from soakd.shim import system
from soakd.shim.launch import Launched
from soakd.shim.stderr import Line, LineCutter

READ_BYTES = 64 * 1024
LAST_READS = 16


class Node:
    """One node: a staged folder, then one process after another."""

    def __init__(self, name: str, folder: int, out: int) -> None:
        self.name = name
        self.folder = folder
        self.out = out
        self.pid: int | None = None
        self.ticks: int | None = None
        self.ended: dict[str, int] | None = None
        self.zombie = False
        self.stderr: int | None = None
        self.program: os.stat_result | None = None
        """The staged file that was executed, as it was then."""
        self.script = False
        self._lines = LineCutter(0.0)

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self.pid is not None and self.ended is None

    def started(self, launched: Launched) -> None:
        """Take over a process that executes the staged program."""
        self.pid = launched.pid
        self.ticks = system.start_ticks(launched.pid)
        self.ended = None
        self.stderr = launched.stderr
        self._lines = LineCutter(system.boot_now())

    def describe(self) -> dict[str, object]:
        """The node as `hello` tells it."""
        if self.pid is None:
            return {"state": "staged"}
        facts = {"pid": self.pid, "ticks": self.ticks}
        if self.ended is None:
            return {"state": "running", **facts}
        return {"state": "exited", **facts, **self.ended}

    def read_stderr(self) -> list[Line] | None:
        """Move what is there of stderr to the node's file; its lines, or None at the end.

        A disk that is full must not block the node: what cannot be written is lost.

        Raises:
            BlockingIOError: nothing is there for now.
        """
        if self.stderr is None:
            return None
        data = os.read(self.stderr, READ_BYTES)
        if not data:
            return None
        try:
            os.write(self.out, data)
        except OSError:
            return self._lines.feed(b"(soakd: node output lost, disk full)\n", system.boot_now())
        return self._lines.feed(data, system.boot_now())

    def close_stderr(self) -> list[Line]:
        """Give the pipe back; the lines still held."""
        if self.stderr is not None:
            os.close(self.stderr)
            self.stderr = None
        return self._lines.close()


class Processes:
    """All nodes, and what the ladder needs to know of their descendants.

    Args:
        on_exit: called once per ended node process, when its exit is known.
    """

    def __init__(self, on_exit: Callable[[Node], None]) -> None:
        self.nodes: dict[str, Node] = {}
        self._on_exit = on_exit

    def collect(self) -> None:
        """Note ended nodes and reap every dead child that may be reaped."""
        ours = {node.pid: node for node in self.nodes.values() if node.running or node.zombie}
        for node in ours.values():
            self._check(node)
        for pid in system.children():
            if pid not in ours and system.peek_exit(pid):
                system.reap(pid)

    def _check(self, node: Node) -> None:
        if node.pid is None:
            return
        if node.running:
            ended = system.peek_exit(node.pid)
            if ended is None:
                return
            node.ended = ended
            node.zombie = True
            self._on_exit(node)
        if node.zombie and not system.group_members(node.pid):
            system.reap(node.pid)
            node.zombie = False

    def running(self) -> list[Node]:
        """The nodes whose process lives."""
        return [node for node in self.nodes.values() if node.running]

    def living_children(self) -> list[int]:
        """Our direct children that are not dead: while there is none, no descendant lives."""
        return [pid for pid in system.children() if system.peek_exit(pid) is None]

    def signal_nodes(self, number: signal.Signals) -> list[int]:
        """Signal each living node; the pids reached."""
        pids = [node.pid for node in self.running() if node.pid is not None]
        return [pid for pid in pids if system.send_signal(pid, number)]

    def kill_groups(self) -> list[int]:
        """SIGKILL to the group of each node that is not reaped; the living pids meant by it."""
        killed: list[int] = []
        for node in self.nodes.values():
            if node.pid is None or not (node.running or node.zombie):
                continue
            members = system.group_members(node.pid)
            if members:
                killed += members
                _kill_group(node.pid)
        return killed

    def kill_children(self) -> list[int]:
        """SIGKILL to each living direct child; the pids meant by it."""
        living = self.living_children()
        for pid in living:
            system.send_signal(pid, signal.SIGKILL)
        return living


def _kill_group(pgid: int) -> None:
    try:
        os.killpg(pgid, signal.SIGKILL)
    except OSError:
        # Gone in between, or it took another uid, which no signal of ours reaches: the ladder
        # looks again and names what is left.
        return
