"""What of a file goes into its member: everything, or the parts around a punched-out middle.

The shim punches the middle out of a node's output when it grows too long. Read plainly, the hole
is gigabytes of zeros; here it becomes one line that says how much was dropped.
"""

from __future__ import annotations

import errno
import os
from typing import TypeAlias

Piece: TypeAlias = tuple[int, int] | bytes
"""A range of the file (from, to), or text that stands for a hole."""


def whole(size: int) -> list[Piece]:
    """The file as it is, up to `size` bytes."""
    return [(0, size)] if size else []


def around_holes(descriptor: int, size: int) -> list[Piece]:
    """The parts that hold data, with a mark for each hole between and before them."""
    pieces: list[Piece] = []
    at = 0
    while at < size:
        data = min(_seek(descriptor, at, os.SEEK_DATA, size), size)
        if data > at:
            pieces.append(b"\n[%d bytes dropped here]\n" % (data - at))
        at = min(_seek(descriptor, data, os.SEEK_HOLE, size), size) if data < size else size
        if at > data:
            pieces.append((data, at))
    return pieces


def length(pieces: list[Piece]) -> int:
    """Bytes of the member."""
    return sum(len(piece) if isinstance(piece, bytes) else piece[1] - piece[0] for piece in pieces)


def dropped(pieces: list[Piece], size: int) -> int:
    """Bytes of the file that no piece holds."""
    return size - sum(piece[1] - piece[0] for piece in pieces if not isinstance(piece, bytes))


def _seek(descriptor: int, offset: int, whence: int, size: int) -> int:
    position = os.lseek(descriptor, 0, os.SEEK_CUR)
    try:
        return os.lseek(descriptor, offset, whence)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size
        # A file system that knows no holes: all of it is data.
        return offset if whence == os.SEEK_DATA else size
    finally:
        os.lseek(descriptor, position, os.SEEK_SET)
