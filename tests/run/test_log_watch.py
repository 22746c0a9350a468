"""What nodes print is read as it grows: every line once, with its place, floods excepted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from soakd import log_watch
from soakd.log_watch import LogWatch, matcher
from soakd.shim import system

MARK = b"trouble"


class Heard:
    """A reader that keeps what it is given."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, int, bool]] = []
        self.skips: list[tuple[str, int, int]] = []
        self.may_matter = matcher([MARK])

    def line(self, node: str, text: str, at_byte: int, *, is_missed: bool) -> None:
        if MARK.decode() in text:
            self.lines.append((node, text, at_byte, is_missed))

    def skipped(self, node: str, from_byte: int, to_byte: int) -> None:
        self.skips.append((node, from_byte, to_byte))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "a.out"
    path.touch()
    return path


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def watch(heard: Heard) -> Iterator[LogWatch]:
    made = LogWatch(heard)
    yield made
    made.close()


def add(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


async def test_lines_come_once_with_their_place(out: Path, heard: Heard, watch: LogWatch) -> None:
    """A line in two pieces is one line; what is between does not matter."""
    watch.open([("a", out, 0)])
    add(out, b"x\ntrouble 1\ntrou")
    await watch.catch_up()
    add(out, b"ble 2\nrest")
    await watch.catch_up()
    await watch.catch_up()
    assert heard.lines == [("a", "trouble 1", 12, False), ("a", "trouble 2", 22, False)]
    data = out.read_bytes()
    assert [data[:end].endswith(b"\n") for _, _, end, _ in heard.lines] == [True, True]


async def test_lines_from_before_are_missed_ones(out: Path, heard: Heard, watch: LogWatch) -> None:
    """Read in full, from any place between two lines."""
    add(out, b"trouble 1\ntrouble 2\n")
    watch.open([("a", out, 10)])
    add(out, b"trouble 3\n")
    await watch.catch_up()
    assert heard.lines == [("a", "trouble 2", 20, True), ("a", "trouble 3", 30, False)]


async def test_a_node_that_never_stops_printing_does_not_hold_up_the_others(
    out: Path, watch: LogWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading ends where the file ended when it began."""
    add(out, b"x\n")
    watch.open([("a", out, 0)])
    real = log_watch.NodeLog._take

    def take(log: log_watch.NodeLog, piece: bytes) -> None:
        real(log, piece)
        add(out, b"y\n")

    monkeypatch.setattr(log_watch.NodeLog, "_take", take)
    with trio.fail_after(5):
        await watch.catch_up()
    assert out.stat().st_size == 4


async def test_lines_are_heard_as_they_come(out: Path, heard: Heard, watch: LogWatch) -> None:
    """Woken by the file, not by a clock."""
    watch.open([("a", out, 0)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        await trio.sleep(0.05)
        add(out, b"trouble\n")
        with trio.fail_after(10):
            while not heard.lines:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_flood_is_not_read_but_for_its_end_and_says_so(
    out: Path, heard: Heard, watch: LogWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is silent: the bytes that nobody looked at are named."""
    monkeypatch.setattr(log_watch, "FLOOD_BYTES", 1000)
    monkeypatch.setattr(log_watch, "FLOOD_END_BYTES", 100)
    watch.open([("a", out, 0)])
    add(out, b"trouble early\n" + b"y\n" * 1000 + b"trouble late\n")
    await watch.catch_up()
    size = out.stat().st_size
    assert heard.skips == [("a", 0, size - 100)]
    assert heard.lines == [("a", "trouble late", size, False)]


async def test_hole_and_endless_line_cost_no_memory_and_no_place(
    out: Path, heard: Heard, watch: LogWatch
) -> None:
    """The capped middle of a file is stepped over; places behind it stay right."""
    align = 64 * 1024
    add(out, b"trouble 1\n" + b"z" * (8 * align) + b"\ntrouble 2\n")
    fd = os.open(out, os.O_RDWR)
    system.punch_hole(fd, align, 5 * align)
    os.close(fd)
    watch.open([("a", out, 0)])
    await watch.catch_up()
    assert [(text, at) for _, text, at, _ in heard.lines] == [
        ("trouble 1", 10),
        ("trouble 2", out.stat().st_size),
    ]


async def test_output_that_its_node_cuts_is_read_on(
    out: Path, heard: Heard, watch: LogWatch
) -> None:
    """A node holds its own output and can shorten it."""
    watch.open([("a", out, 0)])
    add(out, b"x" * 100 + b"\ntrou")
    await watch.catch_up()
    os.truncate(out, 0)
    await watch.catch_up()
    add(out, b"trouble\n")
    await watch.catch_up()
    assert heard.lines == [("a", "trouble", 8, False)]
