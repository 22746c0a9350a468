"""Frames, stderr lines, parameters, journal and the ladder's times, without any process."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from soakd.shim import params, protocol, system
from soakd.shim.errors import VerbError
from soakd.shim.journal import Journal
from soakd.shim.ladder import Ladder
from soakd.shim.processes import Processes
from soakd.shim.stderr import BURST, LineCutter


def test_frames_survive_every_split() -> None:
    """Fed byte by byte or at once, the same messages come out."""
    messages: list[dict[str, object]] = [{"id": 1, "text": "ü\n"}, {"event": "x", "n": [1.5, None]}]
    stream = b"".join(protocol.encode(m) for m in messages)
    decoder = protocol.Decoder()
    assert decoder.feed(stream) == messages
    assert [m for i in range(len(stream)) for m in decoder.feed(stream[i : i + 1])] == messages


@pytest.mark.parametrize(
    "line",
    [b"", b"[]", b"1", b"{", b"\xff", b"[" * 60_000, b'{"a":NaN}', b'{"a":' + b"9" * 5000 + b"}"],
    ids=["empty", "list", "number", "open", "binary", "deep", "nan", "digits"],
)
def test_what_is_no_object_is_a_frame_error(line: bytes) -> None:
    """Nothing else than one JSON object per line gets through."""
    with pytest.raises(protocol.FrameError):
        protocol.Decoder().feed(line + b"\n")


def test_frames_are_bounded_in_both_directions() -> None:
    """A line without an end is refused before it grows, and none is sent that would be."""
    decoder = protocol.Decoder()
    decoder.feed(b"x" * protocol.MAX_FRAME_BYTES)
    with pytest.raises(protocol.FrameError, match="longer than"):
        decoder.feed(b"x")
    with pytest.raises(protocol.FrameError, match="cannot send"):
        protocol.encode({"a": "x" * protocol.MAX_FRAME_BYTES})


def test_largest_piece_fits_a_frame() -> None:
    """32 KiB in base64 with its surroundings is one frame."""
    data = "A" * (protocol.MAX_PIECE_BYTES * 4 // 3 + 4)
    assert protocol.encode({"id": 1 << 60, "verb": "replace", "path": "p" * 4096, "data": data})


def test_hello_is_checked() -> None:
    """Wrong event, wrong protocol and missing fields each have a sentence."""
    hello: dict[str, object] = {
        "event": "hello", "protocol": 1, "run": "r1", "nonce": "x", "pid": 1, "ticks": 2,
        "begun": True, "latest_end_boot_s": 1.5, "nodes": {}, "stopping": None, "journal_seq": 0,
    }  # fmt: skip
    assert protocol.hello_problem(hello) is None
    assert "no hello" in str(protocol.hello_problem({}))
    assert "protocol 2" in str(protocol.hello_problem(hello | {"protocol": 2}))
    assert "lacks pid, nodes" in str(protocol.hello_problem(hello | {"pid": "1", "nodes": []}))


def test_stderr_lines_are_cut_and_completed() -> None:
    """Long lines are cut and marked, the rest of them skipped; a last part without end counts."""
    cutter = LineCutter(0.0)
    assert [tuple(line) for line in cutter.feed(b"one\ntw", 0.0)] == [("one", False, 0)]
    assert [line.text for line in cutter.feed(b"o\n\xff\n", 0.0)] == ["two", "�"]
    assert cutter.feed(b"x" * 10_000, 0.0) == []
    [long] = cutter.feed(b"y\n", 0.0)
    assert (len(long.text), long.cut) == (protocol.MAX_LINE_BYTES, True)
    cutter.feed(b"last", 0.0)
    assert [line.text for line in cutter.close()] == ["last"]
    assert cutter.close() == []


def test_stderr_rate_is_bounded_and_recovers() -> None:
    """After a burst lines are counted; the next one that gets through says how many."""
    cutter = LineCutter(0.0)
    assert len(cutter.feed(b"x\n" * (BURST + 7), 0.0)) == BURST
    [line] = cutter.feed(b"y\n", 0.06)
    assert (line.text, line.dropped) == ("y", 7)
    assert cutter.feed(b"z\n", 0.06) == []
    assert [(line.text, line.dropped) for line in cutter.close()] == [("", 1)]


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        (params.text, "x", [1, None, "a\0b"]),
        (params.number, 1.5, ["1", True, -1, float("nan"), float("inf")]),
        (params.whole, 1, [1.0, True, -1, 1 << 63]),
        (params.texts, ["a"], ["a", [1], ["a\0"], None]),
        (params.table, {"A": "b"}, [[], {"A": 1}, {"A=": "b"}, {"": "b"}, {"A": "\0"}]),
        (params.limits, {"CORE": 0}, [[], {"CORE": "0"}, {"CORE": True}]),
    ],
    ids=["text", "number", "whole", "texts", "table", "limits"],
)
def test_parameters_are_typed(read: object, good: object, bad: list[object]) -> None:
    """Each kind takes its own and refuses the rest by name."""
    assert callable(read)
    assert read({"p": good}, "p") == good
    for value in bad:
        with pytest.raises(VerbError, match="parameter p"):
            read({"p": value}, "p")


def test_journal_lines_are_numbered_and_whole(tmp_path: Path) -> None:
    """Each fact is one line with number and both clocks."""
    fd = os.open(tmp_path / "j", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    journal = Journal(fd)
    written = [journal.record("begun", {}), journal.record("ended", {"status": 0})]
    os.close(fd)
    assert [json.loads(line) for line in (tmp_path / "j").read_text().splitlines()] == written
    assert [(w["seq"], w["event"]) for w in written] == [(1, "begun"), (2, "ended")]


def test_journal_on_a_full_disk_leaves_no_torn_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The half line is taken back, the fact goes to stderr, the shim lives."""
    fd = os.open(tmp_path / "j", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    journal = Journal(fd)
    journal.record("begun", {})
    whole = (tmp_path / "j").read_bytes()
    write = os.write
    half = fd
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:10] if fd == half else data))
    journal.record("rung", {"rung": "sigint"})
    monkeypatch.undo()
    os.close(fd)
    assert (tmp_path / "j").read_bytes() == whole
    assert "No space left" in capfd.readouterr().err


def test_children_are_found_without_the_kernel_option() -> None:
    """Where /proc/self/task/*/children is missing, a scan finds the same."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
    try:
        assert pid in system.children()
        assert pid in system._children_by_scan(os.getpid())
        assert system.peek_exit(pid) is None
        assert system.send_signal(pid, signal.SIGKILL)
        while system.peek_exit(pid) is None:
            os.sched_yield()
        assert system.peek_exit(pid) == {"signal": 9}
    finally:
        system.reap(pid)
    assert system.peek_exit(pid) == {}
    assert not system.send_signal(pid, 0)
    assert system.start_ticks(pid) is None
    system.reap(pid)


def test_refused_prctl_is_an_error() -> None:
    """The kernel's word is not swallowed."""
    with pytest.raises(OSError, match="Invalid argument"):
        system.prctl(9999, 0)


class StubbornProcesses(Processes):
    """Processes that only go when the wanted signal comes; nothing is real."""

    def __init__(self, fatal: str) -> None:
        super().__init__(lambda _: None)
        self.fatal = fatal
        self.alive = True

    def collect(self) -> None:
        """Nothing to collect."""

    def running(self) -> list:  # type: ignore[type-arg]
        """One node while alive."""
        return [object()] if self.alive else []

    def _met(self, what: str) -> list[int]:
        pids = [7] if self.alive else []
        self.alive = self.alive and self.fatal != what
        return pids

    def signal_nodes(self, number: signal.Signals) -> list[int]:
        """SIGINT or SIGTERM to the one node."""
        return self._met(number.name)

    def kill_groups(self) -> list[int]:
        """SIGKILL to the one group."""
        return self._met("group")

    def kill_children(self) -> list[int]:
        """SIGKILL to the one child."""
        return self._met("children")

    def living_children(self) -> list[int]:
        """The one child while alive."""
        return [7] if self.alive else []


def walk(fatal: str, grace_s: float = 10.0) -> list[tuple[float, object]]:
    """The rungs of a ladder with their times, from the first to `stopped`."""
    told: list[tuple[float, object]] = []
    now = 0.0
    ladder = Ladder(
        StubbornProcesses(fatal),
        grace_s,
        lambda event, facts: told.append((round(now, 1), facts.get("rung", facts.get("left")))),
    )
    ladder.start("test", now)
    ladder.start("again", now)
    assert ladder.active
    while ladder.left is None:
        before = len(told)
        due = ladder.step(now)
        # In life SIGCHLD wakes the loop, which steps at once.
        if len(told) == before and due is not None:
            now = max(now, due)
    assert ladder.reason == "test"
    assert not ladder.active
    return told


def test_ladder_keeps_the_times_of_the_design() -> None:
    """SIGINT every two seconds for ten, SIGTERM three, SIGKILL, sweep, at most ten."""
    ints = [(t, "sigint") for t in (0.0, 2.0, 4.0, 6.0, 8.0)]
    assert walk("SIGINT") == [(0.0, "sigint"), (0.0, [])]
    assert walk("SIGTERM") == [*ints, (10.0, "sigterm"), (10.0, [])]
    assert walk("group") == [*ints, (10.0, "sigterm"), (13.0, "sigkill"), (13.0, [])]
    swept = [*ints, (10.0, "sigterm"), (13.0, "sigkill"), (14.0, "sweep"), (14.0, [])]
    assert walk("children") == swept
    assert walk("SIGTERM", 0.0) == [(0.0, "sigint"), (0.0, "sigterm"), (0.0, [])]


@pytest.mark.slow
def test_ladder_names_what_it_could_not_kill_and_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What survives everything is left by pid; once it is gone, that is told too."""
    monkeypatch.setattr("soakd.shim.ladder.SLICE_S", 0.0)
    monkeypatch.setattr("soakd.shim.ladder.PASS_S", 1.0)
    told: list[tuple[float, object]] = []
    now = 0.0
    processes = StubbornProcesses("nothing")
    ladder = Ladder(processes, 0.0, lambda _, facts: told.append((now, facts.get("left"))))
    ladder.start("test", now)
    while ladder.left is None:
        now = max(now, ladder.step(now) or now)
    assert told[-1] == (3.0 + 1.0 + 10.0, [7])
    assert ladder.step(now - 1) == now
    processes.fatal = "children"
    assert ladder.step(now) is None
    assert told[-1] == (now, [])
    assert ladder.clear
    assert ladder.step(now + 9) is None
