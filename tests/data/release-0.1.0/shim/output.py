"""The cap on a node's output: over it the middle of the file goes, head and tail stay.

The node holds the file itself (stdout is no pipe), so nothing here can slow it down or stop it:
the shim looks at the size, the sooner the less room is left, and punches a hole. The file keeps
its apparent size and its offsets, readers see where the hole is. Where a file system cannot do
that, the file is cut behind its head and goes on with a line that says how much is gone, and with
the last bytes that were there: every writer appends, so the next line follows them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from soakd.shim import system

DEFAULT_BYTES = 256 * 1024 * 1024
MIN_BYTES = 1024 * 1024
ALIGN = 64 * 1024
"""Holes begin and end here: only whole blocks are given back, the rest would read as zeros."""
FASTEST = 1024 * 1024 * 1024
"""Bytes per second for which the next look comes before the room is filled."""
SOONEST_S = 0.005
LATEST_S = 1.0
REPORT_EVERY_S = 60.0
COPIED_TAIL = 256 * 1024
"""How much of the tail survives where no hole can be punched; it passes through our memory."""


class Output:
    """The output file of one node, held by the descriptor that the node appends to."""

    def __init__(self, fd: int, max_bytes: int) -> None:
        self._fd = fd
        self._max = max_bytes
        self._head = _aligned(max_bytes // 4)
        self._hole_end = _data_from(fd, self._head)
        self._is_stuck = False
        self.dropped = self._hole_end - self._head

    def look(self) -> float:
        """Cut if it is due; in how many seconds to look again."""
        if self._is_stuck:
            return LATEST_S
        size = os.fstat(self._fd).st_size
        if size < self._hole_end:
            # Somebody shortened the file; a node can, it holds it.
            self._hole_end = max(self._head, _aligned(size))
        if self._kept(size) > self._max:
            self._cut(size)
            size = os.fstat(self._fd).st_size
        room = self._max - self._kept(size)
        return min(LATEST_S, max(SOONEST_S, room / FASTEST))

    def _kept(self, size: int) -> int:
        return size - (self._hole_end - self._head)

    def _cut(self, size: int) -> None:
        end = _aligned(size - self._max // 2)
        try:
            system.punch_hole(self._fd, self._hole_end, end - self._hole_end)
        except OSError:
            # No such thing on this file system, or a disk so full that no extent can be split.
            self._shorten()
            return
        self.dropped += end - self._hole_end
        self._hole_end = end

    def _shorten(self) -> None:
        tail = self._last_bytes()
        size = os.fstat(self._fd).st_size
        try:
            os.ftruncate(self._fd, self._head)
            self.dropped += max(0, size - self._hole_end - len(tail))
            self._hole_end = self._head
            os.write(self._fd, f"\n[{self.dropped} bytes dropped here]\n".encode("ascii") + tail)
        except OSError as exc:
            self._is_stuck = True
            system.complain(f"cannot cap the output of a node: {exc.strerror}\n")

    def _last_bytes(self) -> bytes:
        # Our descriptor may only append. Where the submitter may read the file, so may we.
        try:
            fd = os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            return os.pread(fd, COPIED_TAIL, max(self._head, os.fstat(fd).st_size - COPIED_TAIL))
        except OSError:
            return b""
        finally:
            os.close(fd)


class Outputs:
    """The outputs of all nodes, from `begin` to the end.

    Args:
        out: the descriptors by node.
        max_bytes: what each file may keep.
        report: called with an event name and its facts, at most once a minute and node.
    """

    def __init__(
        self,
        out: Mapping[str, int],
        max_bytes: int,
        report: Callable[[str, dict[str, object]], None],
    ) -> None:
        self._outputs = {name: Output(fd, max_bytes) for name, fd in out.items()}
        self._report = report
        # What an earlier shim of the run has dropped it has also reported.
        self._reported = {name: output.dropped for name, output in self._outputs.items()}
        self._report_from_s = dict.fromkeys(self._outputs, 0.0)
        self.due_s = 0.0

    def look(self, now_s: float) -> None:
        """Look at the files whose time has come, and tell what was dropped."""
        if now_s < self.due_s:
            return
        waits = [output.look() for output in self._outputs.values()]
        self.due_s = now_s + min(waits, default=LATEST_S)
        for name in self._outputs:
            if now_s >= self._report_from_s[name]:
                self._tell(name, now_s)

    def tell_all(self, now_s: float) -> None:
        """Tell what is not told yet, whenever the last time was: something has ended."""
        self.due_s = 0.0
        self.look(now_s)
        for name in self._outputs:
            self._tell(name, now_s)

    def _tell(self, name: str, now_s: float) -> None:
        dropped = self._outputs[name].dropped
        if dropped > self._reported[name]:
            self._reported[name] = dropped
            self._report_from_s[name] = now_s + REPORT_EVERY_S
            self._report("output_cut", {"node": name, "dropped_bytes": dropped})


def _aligned(offset: int) -> int:
    return offset // ALIGN * ALIGN


def _data_from(fd: int, offset: int) -> int:
    """Where data begins at or behind `offset`: behind the hole of an earlier shim of the run."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError:
        # The file ends before it, ends in a hole, or has no notion of holes.
        return offset
