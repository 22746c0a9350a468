"""Reading in several processes: nothing counted twice, nothing lost with a process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from soakd.bundle.reader import NotABundle
from soakd.triage import shares
from soakd.triage.shares import ALL, MIN_BYTES, Blocks, ReaderLost, Readers, Share, processes_for
from soakd.triage.triage import triage
from tests.triage import kit


@pytest.mark.parametrize("of", [1, 2, 3, 4])
def test_every_block_belongs_to_one_share(of: int) -> None:
    """And the first share, whose process has more to do, is not the largest."""
    blocks = range(200)
    shares = [[block for block in blocks if Share(number, of).takes(block)] for number in range(of)]
    assert sorted(block for share in shares for block in share) == list(blocks)
    assert all(len(shares[0]) <= len(share) for share in shares)
    assert all(ALL.takes(block) for block in blocks)


def test_small_bundles_are_read_by_one() -> None:
    """A process costs more than a megabyte takes."""
    assert processes_for(MIN_BYTES - 1) == 1
    assert 1 <= processes_for(MIN_BYTES) <= os.cpu_count()  # type: ignore[operator]


def test_a_lost_process_costs_time_and_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it crashes or is killed: everything is read again by one."""
    folder = kit.script_folder(tmp_path / "soak", 500)
    tarball = kit.packed(folder, tmp_path / "soak.tar.gz")
    expected = triage(str(tarball), processes=1)
    real, parent = shares.read_status, os.getpid()

    def crash(*args: object) -> Blocks:
        if os.getpid() != parent:
            raise MemoryError
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(shares, "read_status", crash)
    assert triage(str(tarball), processes=3) == expected


def test_a_process_that_brings_nothing_is_noticed() -> None:
    """Its end alone is no result."""

    def work(share: Share) -> dict[str, Blocks]:
        raise RuntimeError(share)

    with Readers(2, work) as readers, pytest.raises(ReaderLost):
        readers.results()


def test_processes_end_with_a_bundle_that_is_none(tmp_path: Path) -> None:
    """Nothing is left behind by a failure."""
    path = tmp_path / "x.tar.gz"
    path.write_bytes(b"no tarball" * 100)
    with pytest.raises(NotABundle):
        triage(str(path), processes=3)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
