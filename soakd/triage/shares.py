"""Shares the reading of status files out to processes: they are nine tenths of a bundle.

Every process reads the whole bundle, which is cheap, and takes the blocks of its share. Blocks are
parts of a file between two lines, the same for all of them; what they come to is joined in their
order. A process that is lost costs time, not numbers: then everything is read again by one.

This is loaded first, and alone: the other processes read while the first one still loads the rest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, NamedTuple, Self

from soakd.bundle.reader import PIECE_BYTES, Bundle, Member
from soakd.triage.lines import whole
from soakd.triage.names import STATUS_FILES, Names
from soakd.triage.status import Status

BLOCK_TEXTS = 8
"""Texts of about 128 KiB in one block, at least."""
MAX_BLOCKS = 64
"""Of a file that holds what it announces; what each comes to is kept until all are joined."""
_TIMES_MORE = 2
"""So many blocks are for each of the others where the first process, which reads all other files,
takes one."""
MAX_PROCESSES = 4
MIN_BYTES = 1 << 20
"""In a smaller bundle there is not enough to share."""

Blocks = dict[int, Status]
"""Blocks of one file by their number."""


class Share(NamedTuple):
    """Some blocks of every file; the first share is smaller, its process reads all else too."""

    number: int
    of: int

    def takes(self, block: int) -> bool:
        """Whether a block belongs to this share."""
        place = block % (_TIMES_MORE * (self.of - 1) + 1)
        return self.number == -(-place // _TIMES_MORE)


ALL = Share(0, 1)


class ReaderLost(Exception):
    """A process did not bring its share."""


Work = Callable[[Share], dict[str, Blocks]]
"""Reads one share, by file."""


def read_members(
    bundle: Bundle, share: Share, take: Callable[[str, Member], None] | None = None
) -> tuple[dict[str, Blocks], dict[str, int]]:
    """Read a share of the status files of a bundle.

    Args:
        bundle: is read to its end.
        share: which blocks.
        take: is given every other record, by its name.

    Returns:
        The blocks by file, and the size of every record that stands in the bundle.

    Raises:
        NotABundle: the path is neither bundle nor folder.
    """
    names = Names(bundle.note)
    blocks: dict[str, Blocks] = {}
    for member in bundle.members():
        name = names.record(member.name, member.size)
        if name in STATUS_FILES:
            blocks[name] = read_status(member.pieces, share, member.size)
        elif name is not None and take is not None:
            take(name, member)
    return blocks, names.found


def read_status(pieces: Iterable[bytes], share: Share, size: int) -> Blocks:
    """Read the blocks of one status file that belong to a share.

    Args:
        pieces: of the whole file.
        share: which blocks.
        size: of the file, as announced: the longer it is, the longer are its blocks.
    """
    texts = max(BLOCK_TEXTS, size // (PIECE_BYTES * MAX_BLOCKS) + 1)
    blocks: Blocks = {}
    latest: Status | None = None
    for number, text in enumerate(whole(pieces)):
        block = number // texts if share.of > 1 else 0
        if not share.takes(block):
            continue
        status = blocks.get(block)
        if status is None:
            latest = status = blocks[block] = Status(latest)
        status.add(text)
    for status in blocks.values():
        status.finish()
    return blocks


def joined(parts: Iterable[Blocks]) -> Status:
    """Put the blocks of all shares of a file together."""
    blocks: Blocks = {}
    for part in parts:
        blocks |= part
    whole_file = Status()
    for number in sorted(blocks):
        whole_file.join(blocks[number])
    return whole_file


class Readers:
    """Processes that read shares; leave the context to be rid of them in any case."""

    def __init__(self, count: int, work: Work) -> None:
        """Starts them.

        Args:
            count: shares, one's own among them; 1 starts nothing.
            work: reads one share, by file; runs in the other process.
        """
        self.own = Share(0, count)
        self._pipes: list[int] = []
        self._pids: list[int] = []
        for number in range(1, count):
            self._start(Share(number, count), work)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pipe in self._pipes:
            os.close(pipe)
        for pid in self._pids:
            # Its pipe is closed: it ends as soon as it writes.
            os.waitpid(pid, 0)

    def results(self) -> list[dict[str, Blocks]]:
        """Wait for what they have read.

        Raises:
            ReaderLost: one ended without a result.
        """
        found = []
        for pipe in self._pipes:
            parts = []
            while data := os.read(pipe, 1 << 20):
                parts.append(data)
            try:
                found.append(_decoded(json.loads(b"".join(parts))))
            except ValueError as error:
                raise ReaderLost("a process that read a part of the bundle was lost") from error
        return found

    def _start(self, share: Share, work: Work) -> None:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            # Whatever happens, nothing of the parent's may run here.
            try:
                os.close(reader)
                with os.fdopen(writer, "wb") as pipe:
                    pipe.write(json.dumps(_encoded(work(share))).encode())
            finally:
                os._exit(0)
        os.close(writer)
        self._pipes.append(reader)
        self._pids.append(pid)


def processes_for(size: int) -> int:
    """Return how many processes should read a bundle of so many bytes."""
    if size < MIN_BYTES:
        return 1
    return min(MAX_PROCESSES, len(os.sched_getaffinity(0)))


def _encoded(files: dict[str, Blocks]) -> dict[str, Any]:
    return {
        name: {str(number): status.dump() for number, status in blocks.items()}
        for name, blocks in files.items()
    }


def _decoded(files: dict[str, Any]) -> dict[str, Blocks]:
    return {
        name: {int(number): Status.load(status) for number, status in blocks.items()}
        for name, blocks in files.items()
    }
