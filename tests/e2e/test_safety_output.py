"""Nodes that print without end, and readers that are stopped (docs/safety.md, 7)."""

from __future__ import annotations

import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from soakd.shim.output import ALIGN, DEFAULT_BYTES
from tests.e2e import faults, inside
from tests.e2e.box import Box
from tests.e2e.waiting import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.safety]

_MB = 1000 * 1000
_LINE = b"x" * 127 + b"\n"
_KEPT_BYTES = DEFAULT_BYTES + 2 * ALIGN
_FLOOD_GUARD_S = 180.0


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    """A process that does nothing at all for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(lambda: _state(pid) == "T", "it is stopped")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _printed(box: Box, run: str) -> int:
    return (box.run_folder(run) / "logs" / "a.out").stat().st_size


def _health(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/health", timeout=5) as answer:
        found: bytes = answer.read()
        return found


@pytest.mark.parametrize(
    "floods",
    [
        # Through a pipe and the shim a gigabyte takes five times as long.
        pytest.param(
            [("err", 300 * _MB), ("out", 1_000 * _MB)], id="300 MB on stderr, 1 GB on stdout"
        ),
        pytest.param(
            [("out", 10_000 * _MB)], id="10 GB on stdout", marks=pytest.mark.campaign
        ),
        pytest.param(
            [("err", 10_000 * _MB)], id="10 GB on stderr", marks=pytest.mark.campaign
        ),
    ],
)  # fmt: skip
def test_endless_output_leaves_a_capped_file_with_head_tail_and_mark(
    box: Box, floods: list[tuple[str, int]]
) -> None:
    """As fast as the node can, while rounds go on; the disk keeps 256 MiB of it."""
    run = inside.start(box, "300", WAIT_SEARCH="0.5")
    box.until_rounds(run, 1)
    out = box.run_folder(run) / "logs" / "a.out"
    for stream, size in floods:
        before = _printed(box, run)
        began = time.monotonic()
        faults.now(box, run, "a", f"print:{size}:{stream}")
        wait_for(
            lambda end=before + size: _printed(box, run) >= end,  # type: ignore[misc]
            "all is printed",
            _FLOOD_GUARD_S,
        )
        took_s = time.monotonic() - began
        wait_for(lambda: out.stat().st_blocks * 512 <= _KEPT_BYTES, "the middle is dropped")
        print(f"{size / 1e9:g} GB on {stream} in {took_s:.1f} s")  # noqa: T201
        counted = box.status(run)["rounds"]
        after = box.until_rounds(run, counted["total"] + 1)
        assert after["rounds"]["error"] == 0
    shown = box.folder / "shown"
    with shown.open("wb") as file, box.ctl_spawn("logs", run, "--node", "a", stdout=file) as logs:
        assert logs.wait(60) == 0
    text = shown.read_bytes()
    shown.unlink()
    assert text.startswith(b"*** SIMULATION: ")
    assert len(text) <= _KEPT_BYTES + 1000
    assert text.count(b" bytes dropped here]") == 1
    head, _, tail = text.partition(b" bytes dropped here]")
    assert head.count(_LINE) > DEFAULT_BYTES // 4 // len(_LINE) * 0.9
    assert tail.count(_LINE) > DEFAULT_BYTES // 4 // len(_LINE) * 0.9
    inside.stop(box, run)
    dropped = [
        event["data"]["dropped_bytes"]
        for event in box.records(run, "logs/events.ndjson")
        if event["kind"] == "output_cut"
    ]
    assert dropped[-1] >= sum(size for _, size in floods) - _KEPT_BYTES
    assert f"[{dropped[-1]} bytes dropped here]".encode() in text


def test_a_node_prints_on_while_soakd_is_stopped(box: Box) -> None:
    """The shim empties the pipe whether anybody listens or not; rounds go on afterwards."""
    run = inside.start(box, "100")
    box.until_rounds(run, 1)
    before = _printed(box, run)
    with _stopped(box.daemon.pid):
        faults.now(box, run, "a", "print:50M:err", "print:50M:out")
        wait_for(lambda: _printed(box, run) >= before + 100 * _MB, "all is printed")
        assert _health(box.ports[0]) == b'{"ok":true}'
    done = box.status(run)["rounds"]["total"]
    assert box.until_rounds(run, done + 1)["rounds"]["miss"] == 0
    inside.stop(box, run)


def test_a_node_prints_on_while_its_shim_is_stopped(box: Box) -> None:
    """stdout is a file; what it says on stderr waits in a pipe of a megabyte. Nothing is lost."""
    run = inside.start(box, "100")
    box.until_rounds(run, 1)
    before = _printed(box, run)
    with _stopped(box.row(run)["shim_pid"]):
        faults.now(box, run, "a", "print:300M:out", "print:1000k:err")
        wait_for(lambda: _printed(box, run) >= before + 300 * _MB, "all of stdout is printed")
        done = box.status(run)["rounds"]["total"]
        box.until_rounds(run, done + 1)
        assert _health(box.ports[0]) == b'{"ok":true}'
    wait_for(lambda: _printed(box, run) >= before + 301 * _MB, "stderr follows")
    out = box.run_folder(run) / "logs" / "a.out"
    wait_for(lambda: out.stat().st_blocks * 512 <= _KEPT_BYTES, "the middle is dropped")
    inside.stop(box, run)
