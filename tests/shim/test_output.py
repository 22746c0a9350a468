"""The cap on node output: head and tail stay, the disk stays free, the node never waits."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import trio

from soakd.edge.follow import open_follower
from soakd.edge.shim_client import ShimRefused
from soakd.shim import output, protocol, system
from soakd.shim.output import Output, Outputs
from tests.shim import harness
from tests.shim.harness import RunningShim

pytestmark = pytest.mark.safety

MIB = 1024 * 1024
APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def no_holes(*_: int) -> None:
    """A file system that cannot punch."""
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def lines(first: int, count: int) -> bytes:
    """Numbered lines of 64 bytes."""
    return b"".join(b"%063d\n" % n for n in range(first, first + count))


def fill(fd: int, capped: Output, mib: int) -> None:
    """Print and look, a quarter MiB at a time."""
    for n in range(4 * mib):
        os.write(fd, lines(n * 4096, 4096))
        capped.look()


async def read_all(path: Path) -> bytes:
    """What a follower shows of the whole file."""
    found = []
    with open_follower(path) as follower:
        while piece := await follower.read():
            found.append(piece)
    return b"".join(found)


async def test_middle_goes_and_readers_see_how_much(tmp_path: Path) -> None:
    """The first and last lines stay whole, the hole is named, no byte of zeros is shown."""
    fd = os.open(tmp_path / "a.out", APPEND)
    capped = Output(fd, 4 * MIB)
    fill(fd, capped, 40)
    info = os.fstat(fd)
    os.close(fd)
    assert info.st_size == 40 * MIB
    assert info.st_blocks * 512 <= 4 * MIB + 2 * output.ALIGN
    text = await read_all(tmp_path / "a.out")
    assert text.startswith(lines(0, 16384))
    assert text.endswith(lines(40 * 16384 - 16384, 16384))
    assert text.count(f"[{capped.dropped} bytes dropped here]".encode()) == 1
    assert b"\0" not in text


def test_small_output_is_left_alone(tmp_path: Path) -> None:
    """Up to the cap nothing is touched, and the next look comes before the room can be filled."""
    fd = os.open(tmp_path / "a.out", APPEND)
    capped = Output(fd, 256 * MIB)
    os.write(fd, lines(0, 100))
    assert 0.2 < capped.look() <= 0.25
    assert capped.dropped == 0
    assert Output(fd, MIB).look() == output.SOONEST_S
    os.close(fd)
    assert (tmp_path / "a.out").read_bytes() == lines(0, 100)


def test_next_shim_of_the_run_goes_on_behind_the_hole(tmp_path: Path) -> None:
    """What is punched already is neither counted as kept nor reported again."""
    fd = os.open(tmp_path / "a.out", APPEND)
    first = Output(fd, MIB)
    fill(fd, first, 10)
    told: list[dict[str, object]] = []
    outputs = Outputs({"a": fd}, MIB, lambda _, facts: told.append(facts))
    outputs.tell_all(0.0)
    assert told == []
    assert outputs._outputs["a"].dropped == first.dropped
    fill(fd, outputs._outputs["a"], 1)
    outputs.tell_all(1.0)
    assert [item["node"] for item in told] == ["a"]
    assert os.fstat(fd).st_blocks * 512 <= MIB + 2 * output.ALIGN
    os.close(fd)


def test_without_holes_the_file_is_cut_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Head, a line with the number, the last bytes; the writer goes on behind them."""
    monkeypatch.setattr(system, "punch_hole", no_holes)
    path = tmp_path / "a.out"
    fd = os.open(path, APPEND)
    capped = Output(fd, 2 * MIB)
    fill(fd, capped, 20)
    os.write(fd, b"the end\n")
    os.close(fd)
    text = path.read_bytes()
    assert len(text) <= 2 * MIB
    assert text.startswith(lines(0, 8192))
    assert text.endswith(lines(20 * 16384 - 2048, 2048) + b"the end\n")
    assert text.count(b" bytes dropped here]\n") == 1
    marks = f"\n[{capped.dropped} bytes dropped here]\n".encode()
    assert marks in text
    # Every byte is kept or counted; the marks of earlier cuts were dropped too.
    assert 0 <= len(text) - len(marks) - 8 + capped.dropped - 20 * MIB < 1000


def test_file_that_cannot_be_cut_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """An append-only or strange file: one line in runner.out, and no further try."""
    monkeypatch.setattr(system, "punch_hole", no_holes)
    monkeypatch.setattr(os, "ftruncate", no_holes)
    fd = os.open(tmp_path / "a.out", APPEND)
    capped = Output(fd, MIB)
    os.write(fd, bytes(2 * MIB))
    assert capped.look() == output.SOONEST_S
    assert capped.look() == output.LATEST_S
    os.close(fd)
    assert capfd.readouterr().err.count("cannot cap the output of a node") == 1


def test_tail_that_may_not_be_read_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an ACL the submitter cannot read: the head and the line stay."""
    monkeypatch.setattr(system, "punch_hole", no_holes)
    fd = os.open(tmp_path / "a.out", APPEND)
    capped = Output(fd, MIB)
    os.write(fd, lines(0, 32768))
    monkeypatch.setattr(os, "open", no_holes)
    capped.look()
    os.close(fd)
    text = (tmp_path / "a.out").read_bytes()
    dropped = 2 * MIB - MIB // 4
    assert text == lines(0, 4096) + f"\n[{dropped} bytes dropped here]\n".encode()


def test_node_that_shortens_its_own_output_is_survived(tmp_path: Path) -> None:
    """It holds the file; what it cuts off is its own loss, the cap goes on."""
    fd = os.open(tmp_path / "a.out", APPEND)
    capped = Output(fd, MIB)
    fill(fd, capped, 8)
    os.ftruncate(fd, 10)
    capped.look()
    fill(fd, capped, 8)
    assert os.fstat(fd).st_blocks * 512 <= MIB + 2 * output.ALIGN
    os.close(fd)


def test_reports_are_rare_and_complete(tmp_path: Path) -> None:
    """At once, then once a minute, and the rest at the end; never before the next look is due."""
    fd = os.open(tmp_path / "a.out", APPEND)
    told: list[tuple[str, dict[str, object]]] = []
    outputs = Outputs({"a": fd}, MIB, lambda event, facts: told.append((event, facts)))
    for second in range(100):
        os.write(fd, lines(0, 16384))
        outputs.look(float(second + 1))
        outputs.look(float(second + 1))
    assert len(told) == 2
    outputs.tell_all(101.0)
    outputs.tell_all(101.0)
    assert [event for event, _ in told] == ["output_cut"] * 3
    assert told[-1][1] == {"node": "a", "dropped_bytes": outputs._outputs["a"].dropped}
    os.close(fd)


@pytest.mark.slow
async def test_flooding_node_leaves_the_disk_free(shim: RunningShim) -> None:
    """Half a GB as fast as can be: bounded blocks, head and tail, journalled, exit seen."""
    peak = 0

    async def sample() -> None:
        nonlocal peak
        while True:
            peak = max(peak, (shim.folder / "a.out").stat().st_blocks * 512)
            await trio.sleep(0.001)

    await shim.begin(out_max_bytes=16 * MIB)
    script = "echo first\ndd if=/dev/zero bs=1M count=500 2>/dev/null\necho last"
    await shim.stage(harness.program(shim.folder / "s", script))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sample)
        await shim.launch()
        assert (await shim.wait_for("node_exited"))["code"] == 0
        nursery.cancel_scope.cancel()
    info = (shim.folder / "a.out").stat()
    assert info.st_size == 500 * MIB + 11
    assert info.st_blocks * 512 <= 16 * MIB + 2 * output.ALIGN
    # What comes in between two looks, on a machine that does something else meanwhile.
    assert peak < 400 * MIB
    text = await read_all(shim.folder / "a.out")
    assert text.startswith(b"first\n")
    assert text.endswith(b"\0last\n")
    cuts = [e for e in shim.journal if e["event"] == "output_cut"]
    assert 1 <= len(cuts) <= 2
    assert f"[{cuts[-1]['dropped_bytes']} bytes dropped here]".encode() in text


@pytest.mark.slow
@pytest.mark.unmeasured
async def test_node_never_waits_for_soakd_to_read(shim: RunningShim) -> None:
    """Thirty MB on stderr while soakd reads nothing: the node ends, its file is capped."""
    await shim.begin(out_max_bytes=MIB)
    script = "yes 'a line of a node' | head -c 30000000 >&2"
    await shim.stage(harness.program(shim.folder / "s", script))
    deaf = await harness.connect(shim)
    await shim.spawned.stdin.aclose()
    send = deaf._stream.send_all
    launch = {"node": "a", "argv": ["./rust-mule"], "env": {"PATH": os.environ["PATH"]}}
    request = {"id": 1, "verb": "launch", **launch, "rlimits": {}}
    await send(protocol.encode(request))
    with trio.move_on_after(harness.GUARD_S):
        while not any(e["event"] == "node_exited" for e in shim.journal):
            await trio.sleep(0.01)
    info = (shim.folder / "a.out").stat()
    assert shim.journal[-1]["event"] == "node_exited", (info, await deaf._stream.receive_some())
    assert info.st_size == 30_000_000
    assert info.st_blocks * 512 <= MIB + 2 * output.ALIGN
    await deaf.aclose()


@pytest.mark.slow
async def test_cap_is_256_mib_unless_said_otherwise(shim: RunningShim) -> None:
    """`begin` of an older soakd names none; nonsense is refused."""
    with pytest.raises(ShimRefused, match="out_max_bytes"):
        await shim.begin(out_max_bytes="much")
    await shim.begin()
    await shim.stage(
        harness.program(shim.folder / "s", "dd if=/dev/zero bs=1M count=300 2>/dev/null")
    )
    await shim.launch()
    await shim.wait_for("node_exited")
    assert (shim.folder / "a.out").stat().st_blocks * 512 <= 256 * MIB
    assert (await shim.wait_for("output_cut"))["dropped_bytes"] >= 300 * MIB - 256 * MIB
