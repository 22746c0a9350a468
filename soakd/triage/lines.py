"""Cuts the pieces of a member into lines, as awk does, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

MAX_LINE_BYTES = 1 << 23
"""Longest line that is kept whole: a row of rounds.tsv holds three bodies of 1 MiB at most."""


def whole(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield text that begins and ends between two lines, without the last line's end.

    The last line of all need not have had an end. Of a line beyond `MAX_LINE_BYTES` only the
    beginning is kept. There is one text for each piece that holds the end of a line.
    """
    rest: list[bytes] = []
    kept = 0
    for piece in pieces:
        end = piece.rfind(b"\n")
        if end < 0:
            if kept < MAX_LINE_BYTES:
                rest.append(piece)
                kept += len(piece)
            continue
        yield b"".join((*rest, memoryview(piece)[:end]))
        tail = piece[end + 1 :]
        rest, kept = [tail] if tail else [], len(tail)
    if any(rest):
        yield b"".join(rest)


def batches(pieces: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield lists of lines without their ends."""
    for block in whole(pieces):
        yield block.split(b"\n")


def text(line: bytes, max_chars: int = 500) -> str:
    """Return a line for people and JSON: whatever is no UTF-8 is replaced."""
    return line[: 4 * max_chars].decode("utf-8", "replace")[:max_chars]
