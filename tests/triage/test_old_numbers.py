"""The numbers of the old triage, each confirmed by awk over the same files."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from soakd.triage.triage import triage
from tests.triage import kit

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("wild", [False, True])
@pytest.mark.parametrize("rounds", [1, 299, 300, 301, 900])
def test_a_script_made_tarball_has_the_numbers_that_awk_finds(
    tmp_path: Path, rounds: int, *, wild: bool
) -> None:
    """Whatever its length, around the border of the last 300 rounds too."""
    folder = kit.script_folder(tmp_path / "soak", rounds, wild=wild, seed=rounds)
    tarball = kit.packed(folder, tmp_path / "soak.tar.gz")
    expected = kit.awk_numbers(tarball)
    assert kit.our_numbers(triage(str(tarball))) == expected
    assert kit.our_numbers(triage(str(folder))) == expected


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_the_numbers_do_not_depend_on_how_many_processes_read(
    tmp_path: Path, processes: int
) -> None:
    """Blocks are joined so that no snapshot is counted twice, and none is lost."""
    folder = kit.script_folder(tmp_path / "soak", 1700)
    tarball = kit.packed(folder, tmp_path / "soak.tar.gz")
    document = triage(str(tarball), processes=processes)
    assert kit.our_numbers(document) == kit.awk_numbers(tarball)
    assert document == triage(str(tarball), processes=1)


def test_a_run_of_soakd_gives_the_same_numbers_to_anyone_who_computes_them(
    tmp_path: Path,
) -> None:
    """Our records keep the scripts' formats: a run folder of release 0.1.0."""
    folder = tmp_path / "r1"
    shutil.copytree(kit.RELEASE / "r1", folder)
    (folder / "runner.out").write_text("runner failed\nnothing\n")
    tarball = kit.packed(folder, tmp_path / "r1.tar.gz")
    expected = kit.awk_numbers(tarball)
    assert kit.our_numbers(triage(str(tarball))) == expected
    assert any(line.startswith("successes 3") for line in expected)


def test_damaged_lines_count_as_awk_counts_them(tmp_path: Path) -> None:
    """Torn rows, odd answers, fields of other versions, values that are no numbers."""
    folder = kit.script_folder(tmp_path / "soak", 500)
    dice = random.Random(3)
    tsv = folder / "logs" / "rounds.tsv"
    rows = [_damaged_row(dice, row) for row in tsv.read_text().splitlines()]
    tsv.write_text("\n".join(rows) + "\n2026-11-22T1")
    status = folder / "logs" / "status.ndjson"
    lines = [_damaged_status(dice, line) for line in status.read_text().splitlines()]
    status.write_text("\n".join(lines))
    with (folder / "logs" / "b.out").open("a") as out:
        out.write("Fatal Error: x\nSEGMENTATION fault\nPANIC! now\npanicking\nthread 1 Panicked")
    tarball = kit.packed(folder, tmp_path / "soak.tar.gz")
    document = triage(str(tarball))
    assert kit.our_numbers(document) == kit.awk_numbers(tarball)
    assert document["nodes"]["a"]["unreadable"] > 0
    assert document["old"]["panic_lines"]["b"] == 4


def _damaged_row(dice: random.Random, row: str) -> str:
    fields = row.split("\t")
    match dice.randrange(12):
        case 0:
            return row[: dice.randrange(len(row))]
        case 1:
            return "\t".join([*fields[:5], '{"sources":[{'])
        case 2:
            return "\t".join([*fields[:5], '{"sources":[{"source_id_hex":"zz"}]}', "more"])
        case 3:
            return "\t".join([*fields[:5], "", fields[5]])
        case 4:
            return ""
        case _:
            return row


def _damaged_status(dice: random.Random, line: str) -> str:
    head, body = line[:27], line[27:]
    damaged = (
        head + body[: dice.randrange(len(body))],
        head + body.replace('"live":', '"live": '),
        head + body.replace('"routing":', '"routing":-'),
        head + '{"code":503,"message":"service unavailable"}',
        head,
        head + body.replace('{"up', '{"live":99999,"up'),
        head + body.replace(',"live_10m":', ',"new_field":7,"live_10m":'),
        head + body.replace('"pending":', '"pending":1.'),
    )
    choice = dice.randrange(40)
    return damaged[choice] if choice < len(damaged) else line


def test_what_a_tarball_lacks_is_null_and_nothing_else_changes(tmp_path: Path) -> None:
    """Every file may be missing."""
    folder = kit.script_folder(tmp_path / "soak", 20)
    whole = triage(str(folder))
    for name in ("rounds.tsv", "status.ndjson", "soak.log", "runner.log"):
        part = tmp_path / f"without-{name}"
        shutil.copytree(folder, part)
        (part / "logs" / name).unlink()
        document = triage(str(part))
        assert f"logs/{name}" not in document["source"]["files"]
        assert document["old"]["panic_lines"] == whole["old"]["panic_lines"]
        assert (document["old"]["rounds"] is None) == (name == "rounds.tsv")
        assert (document["old"]["counters"] == {}) == (name == "status.ndjson")
        assert (document["old"]["stop_marker"] is None) == (name == "soak.log")
