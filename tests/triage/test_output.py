"""Panics, trouble and markers in what nodes and scripts print."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from soakd.triage.lines import MAX_LINE_BYTES, batches, whole
from soakd.triage.output import CONTEXT, MAX_PANICS, Output
from soakd.triage.script_logs import RunnerLog, SoakLog, runner_out
from soakd.triage.tally import Tally
from soakd.triage.triage import triage
from tests.triage import kit

_AT = "2026-11-22T17:00:{:02d}.000000Z"


def _read(text: str, piece: int = 1 << 17) -> Output:
    data = text.encode()
    output = Output()
    output.read(data[at : at + piece] for at in range(0, len(data), piece))
    return output


def _lines(count: int) -> list[str]:
    return [f"{_AT.format(n % 60)}  INFO rust_mule: line {n}" for n in range(count)]


@pytest.mark.parametrize("piece", [7, 100, 1 << 17])
def test_a_panic_stands_once_with_ten_lines_around_it(piece: int) -> None:
    """Wherever pieces end; its repetitions differ in thread and number and are counted."""
    lines = _lines(100)
    for place, thread in ((50, 7), (80, 9)):
        lines[place] = f"thread 'worker' ({thread}) panicked at src/kad/service.rs:12:9:"
        lines[place + 1] = f"index out of bounds: the index is {thread}"
    output = _read("\n".join(lines) + "\n", piece)
    assert (output.lines, output.panic_lines, output.panic_starts) == (100, 2, 2)
    [panic] = output.panics
    assert (panic.count, panic.first_line, panic.last_line) == (2, 51, 81)
    assert panic.at == _AT.format(49)
    assert panic.before == lines[50 - CONTEXT : 50]
    assert panic.after == lines[51 : 51 + CONTEXT]


def test_panics_at_the_ends_of_a_file_have_what_context_there_is() -> None:
    """First and last line, without a newline at the end; two in each other's context."""
    output = _read("thread 'main' panicked at src/a.rs:1:1:\nboom\nFATAL ERROR 5")
    assert [(p.text, p.before, p.after) for p in output.panics] == [
        ("thread 'main' panicked at src/a.rs:1:1:", [], ["boom", "FATAL ERROR 5"]),
        ("FATAL ERROR 5", ["thread 'main' panicked at src/a.rs:1:1:", "boom"], []),
    ]


def test_panic_lines_are_those_that_awk_finds(tmp_path: Path) -> None:
    """All alternatives, in any case, and words that only look alike."""
    words = ("Panicked", "PANIC!", "panic", "thread x panicked", "Fatal  error", "fatal ERROR",
             "Segmentation", "segment", "panicking")  # fmt: skip
    text = "\n".join(f"{n} {word} {n}" for n, word in enumerate(words * 40))
    path = tmp_path / "a.out"
    path.write_text(text)
    program = """tolower($0) ~ /panicked|panic!|thread .* panicked|fatal error|segmentation/ { n++ }
        END { print n }"""
    done = subprocess.run(["awk", program, path], capture_output=True, text=True, check=True)
    assert _read(text).panic_lines == int(done.stdout)


def test_different_panics_are_bounded() -> None:
    """A node that panics everywhere does not fill the memory; all lines are counted."""
    text = "\n".join(f"thread 'x' panicked at src/f{n}.rs:{n}:1:" for n in range(300))
    output = _read(text)
    assert (len(output.panics), output.other_panics) == (MAX_PANICS, 300 - MAX_PANICS)
    assert output.panic_lines == 300


def test_trouble_of_the_log_becomes_a_timeline(tmp_path: Path) -> None:
    """Without events the output tells, with its own times; restarts stand between."""
    folder = kit.script_folder(tmp_path / "soak", 5)
    lines = _lines(9)
    lost = "kad service lost SAM socket; recreating session and continuing error=x"
    lines[3] = f"{_AT.format(3)}  WARN rust_mule::kad: {lost}"
    lines[5] = "thread 'main' panicked at src/a.rs:1:2:"
    (folder / "logs" / "a.out").write_text("\n".join(lines) + "\n")
    timeline = triage(str(folder))["timeline"]
    assert timeline["counts"] == {"panic": 1, "sam_session_lost": 1}
    assert [(entry["at"], entry["kind"]) for entry in timeline["entries"]] == [
        (_AT.format(3), "sam_session_lost"),
        (_AT.format(4), "panic"),
    ]


def test_markers_of_the_scripts() -> None:
    """The last stop; twelve lines of runner.out; what runner.log counts."""
    log = SoakLog()
    log.read([b"1 stop requested\n2 x\n3 stop requ", b"ested\n4 stop\n"])
    assert log.stop_line == "3 stop requested"
    lines = [f"{n} {'killed' if n % 2 else 'nothing'}" for n in range(40)]
    assert runner_out(["\n".join(lines).encode()]) == [f"{n} killed" for n in range(17, 40, 2)]
    runner = RunnerLog()
    runner.read(
        [
            b"\n".join(
                (
                    b"t soak-start duration_secs=7200 deadline_epoch=1",
                    b"t timer remaining_secs=5 round=1",
                    b"t round=1 file=00 size=1",
                    b"t round=1 miss_recheck attempt=1 delay_secs=20 file=00",
                    b"t round=1 miss_recheck_hit attempt=1 file=00",
                    b"t ERROR: broken",
                    b"t deadline reached",
                )
            )
        ]
    )
    assert (runner.begun, runner.late, runner.duration_s) == (1, 1, 7200)
    assert (runner.errors, runner.deadline_reached) == (["t ERROR: broken"], True)


def test_lines_are_cut_as_awk_cuts_them_and_a_huge_one_is_bounded() -> None:
    """An empty last line is none; a line of gigabytes keeps its beginning."""
    assert list(batches([b"a\nb", b"c\n\n", b"d"])) == [[b"a"], [b"bc", b""], [b"d"]]
    assert list(batches([])) == list(batches([b""])) == []
    piece = b"x" * (1 << 20)
    [block, end] = whole([piece] * 40 + [b"\nend\n", b"last"])
    assert len(block) <= MAX_LINE_BYTES + len(piece) + len(b"\nend")
    assert end == b"last"


def test_a_tally_is_exact_beyond_what_memory_holds() -> None:
    """Put aside on disk, by hash: the same counts as in memory."""
    values = [f"{n * n % 977:x}".encode() for n in range(5000)]
    small, large = Tally(max_values=50), Tally()
    for at in range(0, 5000, 100):
        small.add(values[at : at + 100])
        large.add(values[at : at + 100])
    assert small.distinct() == large.distinct() == len(set(values))
    assert small.top(10) == large.top(10)
    small.close()
