"""A node's output with its middle punched out becomes a short member that says so."""

from __future__ import annotations

import os
from pathlib import Path

from soakd.bundle import pieces


def test_a_hole_becomes_one_line_that_says_how_much_is_missing(tmp_path: Path) -> None:
    """Head and tail stand byte for byte, the gigabyte between them does not."""
    path = tmp_path / "a.out"
    with path.open("wb") as file:
        file.write(b"h" * 65536)
        file.seek(1 << 30)
        file.write(b"t" * 65536)
    fd = os.open(path, os.O_RDONLY)
    try:
        parts = pieces.around_holes(fd, path.stat().st_size)
        missing = (1 << 30) - 65536
        assert parts == [
            (0, 65536),
            b"\n[%d bytes dropped here]\n" % missing,
            (1 << 30, (1 << 30) + 65536),
        ]
        assert pieces.dropped(parts, path.stat().st_size) == missing
        assert pieces.length(parts) == 2 * 65536 + len(b"\n[%d bytes dropped here]\n" % missing)
    finally:
        os.close(fd)


def test_a_file_without_holes_is_one_piece_and_its_position_stays(tmp_path: Path) -> None:
    """The descriptor is shared with soakd: its offset must not move."""
    path = tmp_path / "log"
    path.write_bytes(b"x" * 100)
    fd = os.open(path, os.O_RDONLY)
    try:
        os.lseek(fd, 7, os.SEEK_SET)
        assert pieces.around_holes(fd, 100) == pieces.whole(100) == [(0, 100)]
        assert os.lseek(fd, 0, os.SEEK_CUR) == 7
    finally:
        os.close(fd)


def test_an_empty_file_has_no_piece(tmp_path: Path) -> None:
    """Nothing is packed, nothing is missing."""
    path = tmp_path / "empty"
    path.touch()
    fd = os.open(path, os.O_RDONLY)
    try:
        assert pieces.around_holes(fd, 0) == pieces.whole(0) == []
        assert pieces.dropped([], 0) == 0
    finally:
        os.close(fd)
