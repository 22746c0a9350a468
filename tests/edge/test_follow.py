"""Reading and following real files."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest
import trio

from soakd.core.errors import HostError
from soakd.edge import follow
from soakd.edge.follow import PIECE_BYTES, Follower, open_follower

FALLOC_FL_PUNCH_HOLE_KEEP_SIZE = 0x3


async def rest(follower: Follower) -> bytes:
    """Read to the present end."""
    pieces = []
    while piece := await follower.read():
        assert len(piece) <= PIECE_BYTES
        pieces.append(piece)
    return b"".join(pieces)


async def test_a_file_is_read_in_pieces(tmp_path: Path) -> None:
    """Long files do not become one frame."""
    path = tmp_path / "log"
    data = os.urandom(3 * PIECE_BYTES + 5)
    path.write_bytes(data)
    with open_follower(path) as follower:
        assert await rest(follower) == data
        assert await follower.read() == b""


async def test_growth_wakes_the_reader(tmp_path: Path) -> None:
    """Inotify tells of each append, also of one made before the wait began."""
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    with open_follower(path) as follower, path.open("ab", buffering=0) as writer:
        assert await rest(follower) == b"one\n"
        writer.write(b"two\n")
        with trio.fail_after(5):
            await follower.wait_changed()
        assert await rest(follower) == b"two\n"
        async with trio.open_nursery() as nursery:
            woken = trio.Event()

            async def wait() -> None:
                await follower.wait_changed()
                woken.set()

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert not woken.is_set()
            writer.write(b"three\n")
            with trio.fail_after(5):
                await woken.wait()
        assert await rest(follower) == b"three\n"


@pytest.mark.parametrize(
    ("text", "lines", "expected"),
    [
        (b"", 5, b""),
        (b"a\nb\nc\n", 0, b""),
        (b"a\nb\nc\n", 1, b"c\n"),
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\nb\nc\n", 3, b"a\nb\nc\n"),
        (b"a\nb\nc\n", 99, b"a\nb\nc\n"),
        (b"\n\n\n", 2, b"\n\n"),
        (b"no newline at all", 1, b"no newline at all"),
    ],
)
async def test_tail_starts_at_the_last_lines(
    tmp_path: Path, text: bytes, lines: int, expected: bytes
) -> None:
    """As tail(1) counts: an unfinished last line is a line."""
    path = tmp_path / "log"
    path.write_bytes(text)
    with open_follower(path) as follower:
        await follower.seek_tail(lines)
        assert await rest(follower) == expected


async def test_tail_looks_back_over_many_blocks(tmp_path: Path) -> None:
    """Lines longer than a block, and many of them, are found."""
    path = tmp_path / "log"
    lines = [bytes([65 + i]) * (PIECE_BYTES // 2 + i) + b"\n" for i in range(9)]
    path.write_bytes(b"".join(lines))
    for count in range(1, 10):
        with open_follower(path) as follower:
            await follower.seek_tail(count)
            assert await rest(follower) == b"".join(lines[-count:])


async def test_tail_gives_up_looking_at_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log without line ends is not read from end to begin."""
    monkeypatch.setattr(follow, "_MAX_TAIL_BYTES", PIECE_BYTES)
    path = tmp_path / "log"
    path.write_bytes(b"x" * (3 * PIECE_BYTES))
    with open_follower(path) as follower:
        await follower.seek_tail(1)
        assert len(await rest(follower)) == PIECE_BYTES


def punch(path: Path, offset: int, length: int) -> None:
    """Punch a hole as the log cap does, or skip where the file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(path, os.O_RDWR)
    try:
        result = libc.fallocate(
            fd,
            FALLOC_FL_PUNCH_HOLE_KEEP_SIZE,
            ctypes.c_longlong(offset),
            ctypes.c_longlong(length),
        )
    finally:
        os.close(fd)
    if result != 0:
        pytest.skip("this file system punches no holes")


async def test_a_punched_middle_is_named_instead_of_read(tmp_path: Path) -> None:
    """Readers see how much is missing, not zeros."""
    path = tmp_path / "log"
    page = 4096
    path.write_bytes(b"a" * (4 * page) + b"b" * (4 * page))
    punch(path, 2 * page, 4 * page)
    with open_follower(path) as follower:
        seen = await rest(follower)
    assert seen == (
        b"a" * (2 * page) + f"\n[{4 * page} bytes dropped here]\n".encode() + b"b" * (2 * page)
    )


async def test_a_file_that_ends_in_a_hole_ends_with_the_mark(tmp_path: Path) -> None:
    """No data behind the offset is not an error."""
    path = tmp_path / "log"
    path.write_bytes(b"a" * 4096)
    os.truncate(path, 4096 + 65536)
    with open_follower(path) as follower:
        assert await rest(follower) == b"a" * 4096 + b"\n[65536 bytes dropped here]\n"


async def test_a_file_that_was_cut_is_followed_from_its_new_end(tmp_path: Path) -> None:
    """A node can truncate its own log; the reader says so and goes on."""
    path = tmp_path / "log"
    path.write_bytes(b"long text\n")
    with open_follower(path) as follower:
        await rest(follower)
        os.truncate(path, 0)
        assert await rest(follower) == b"\n[the file was cut here]\n"
        path.write_bytes(b"new\n")
        assert await rest(follower) == b"new\n"


async def test_other_read_errors_are_not_hidden() -> None:
    """Only "no data behind the offset" is expected of a seek."""
    reader, writer = os.pipe()
    with pytest.raises(OSError, match="Illegal seek"):
        follow._seek(reader, 0, os.SEEK_DATA, 0)
    os.close(reader)
    os.close(writer)


def test_links_fifos_and_missing_files_are_refused(tmp_path: Path) -> None:
    """Only regular files are opened, and a FIFO does not block."""
    (tmp_path / "link").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(HostError, match="cannot read link"), open_follower(tmp_path / "link"):
        pass
    with pytest.raises(HostError, match="no regular file"), open_follower(tmp_path / "fifo"):
        pass
    with pytest.raises(FileNotFoundError), open_follower(tmp_path / "none"):
        pass


class BrokenLibc:
    """inotify calls that fail as they do when the host's limits are reached."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def inotify_init1(self, _flags: int) -> int:
        ctypes.set_errno(errno.EMFILE)
        return self.fd

    def inotify_add_watch(self, _fd: int, _path: bytes, _mask: int) -> int:
        ctypes.set_errno(errno.ENOSPC)
        return -1


def test_a_host_out_of_inotify_says_what_to_raise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limits are per uid, and an admin must know which one."""
    path = tmp_path / "log"
    path.touch()
    monkeypatch.setattr(follow, "_libc", BrokenLibc(-1))
    with pytest.raises(HostError, match="max_user_instances"), open_follower(path):
        pass
    spare = os.open("/dev/null", os.O_RDONLY)
    monkeypatch.setattr(follow, "_libc", BrokenLibc(spare))
    with pytest.raises(HostError, match="cannot follow log: No space"), open_follower(path):
        pass
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(spare)
