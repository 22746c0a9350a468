"""Reads what nodes print, as it grows, for the few lines that tell of trouble (contract §8).

The output goes into a file that only the node's processes write; here it is read, never waited
for, so a node cannot be blocked by it. A line's place in the file is its evidence, and what lets a
later soakd go on exactly where this one stopped. A flood is not read in full: what was not looked
at is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import trio

from soakd.edge.follow import Follower, open_follower

PAUSE_S = 0.5
"""Lines that come together are read together."""
FLOOD_BYTES = 4 * 1024 * 1024
"""More than this at once is not read but for its end."""
FLOOD_END_BYTES = 256 * 1024
MAX_LINE_BYTES = 8 * 1024


class Reader(Protocol):
    """Who knows what lines mean."""

    def may_matter(self, piece: bytes) -> bool:
        """Whether a piece of output is worth cutting into lines; cheap."""

    def line(self, node: str, text: str, at_byte: int, *, is_missed: bool) -> None:
        """Takes one line that ends at a byte of the node's output.

        `is_missed`: it was written before this soakd watched.
        """

    def skipped(self, node: str, from_byte: int, to_byte: int) -> None:
        """So much was not looked at."""


class NodeLog:
    """The output of one node, read up to `offset`."""

    def __init__(self, node: str, follower: Follower, offset: int, reader: Reader) -> None:
        """Reads on from `offset`, a place between two lines."""
        self._node = node
        self._follower = follower
        self._offset = offset
        self._reader = reader
        self._part = b""
        self._missed_until = follower.size()

    async def read(self) -> None:
        """Reads to the present end; what is printed meanwhile is for the next time."""
        self._skip_flood()
        end = self._follower.size()
        while True:
            begin, piece = await self._follower.read_data(self._offset)
            if begin != self._offset:
                # A hole, or a file that was shortened, cuts the line that stood there.
                self._part = b""
            self._offset = begin + len(piece)
            if not piece:
                return
            self._take(piece)
            if self._offset >= end:
                return

    async def wait_changed(self) -> None:
        """Waits until something was written."""
        await self._follower.wait_changed()

    def _skip_flood(self) -> None:
        size = self._follower.size()
        is_missed = self._offset < self._missed_until
        if is_missed or size - self._offset <= FLOOD_BYTES:
            # What a soakd missed is read in full: it is bounded by the cap of the file.
            return
        self._reader.skipped(self._node, self._offset, size - FLOOD_END_BYTES)
        self._offset, self._part = size - FLOOD_END_BYTES, b""

    def _take(self, piece: bytes) -> None:
        text = self._part + piece
        last = text.rfind(b"\n") + 1
        whole, self._part = text[:last], text[last:][:MAX_LINE_BYTES]
        if not self._reader.may_matter(whole):
            return
        at_byte = self._offset - (len(text) - last) - len(whole)
        for line in whole.split(b"\n")[:-1]:
            at_byte += len(line) + 1
            shown = line[:MAX_LINE_BYTES].decode("utf-8", "backslashreplace")
            is_missed = at_byte <= self._missed_until
            self._reader.line(self._node, shown, at_byte, is_missed=is_missed)


class LogWatch:
    """The outputs of all nodes of a run."""

    def __init__(self, reader: Reader) -> None:
        """Watches nothing yet."""
        self._reader = reader
        self._logs: dict[str, NodeLog] = {}
        self._turn = trio.Lock()
        self._files = ExitStack()

    def open(self, paths: Iterable[tuple[str, Path, int]]) -> None:
        """Opens outputs, each with its node and the place up to which it is known.

        Raises:
            HostError: one cannot be watched.
        """
        for node, path, offset in paths:
            follower = self._files.enter_context(open_follower(path))
            self._logs[node] = NodeLog(node, follower, offset, self._reader)

    def close(self) -> None:
        """Closes all."""
        self._logs.clear()
        self._files.close()

    async def catch_up(self) -> None:
        """Reads everything that is there now."""
        async with self._turn:
            for log in list(self._logs.values()):
                await log.read()

    async def run(self) -> None:
        """Reads what comes until cancelled."""
        async with trio.open_nursery() as nursery:
            for log in self._logs.values():
                nursery.start_soon(self._follow, log)

    async def _follow(self, log: NodeLog) -> None:
        while True:
            async with self._turn:
                await log.read()
            await log.wait_changed()
            await trio.sleep(PAUSE_S)


def matcher(marks: Iterable[bytes]) -> Callable[[bytes], bool]:
    """Makes a `may_matter` that looks for any of these marks."""
    wanted = tuple(marks)

    def may_matter(piece: bytes) -> bool:
        return any(mark in piece for mark in wanted)

    return may_matter
