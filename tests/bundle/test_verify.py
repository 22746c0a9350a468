"""Tests of soakd.bundle.verify."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from soakd.bundle.verify import problem_of
from soakd.bundle.writer import MANIFEST

ROW = b"row\n"


def entry(name: str, data: bytes, **other: Any) -> dict[str, Any]:
    """Return what a manifest says of a member."""
    return {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()} | other


def write(path: Path, members: list[tuple[str, bytes]]) -> str:
    """Write a tarball, names twice if they are asked for twice."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(path)


def manifest(*entries: dict[str, Any]) -> tuple[str, bytes]:
    """Return a manifest as a member."""
    return MANIFEST, json.dumps({"members": entries}).encode()


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([("a", ROW), manifest(entry("a", ROW))], None),
        ([manifest()], None),
        ([("a", ROW), manifest(entry("a", b"other"))], "a is not what the manifest says"),
        ([("a", ROW), manifest(entry("a", ROW, size=5))], "a is not what the manifest says"),
        ([("a", ROW), manifest()], "a is not what the manifest says"),
        ([manifest(entry("a", ROW))], "a is not what the manifest says"),
        ([("a", ROW), ("a", ROW), manifest(entry("a", ROW))], "a is there twice"),
        ([manifest(entry("a", ROW)), ("a", ROW)], "a stands behind the manifest"),
        ([("a", ROW)], "it has no readable manifest"),
        ([(MANIFEST, b"[7]")], "it has no readable manifest"),
        ([("a", b"PRIV=" + b"k" * 400)], "a has a private key in it"),
    ],
)
def test_a_bundle_is_what_its_manifest_says_or_has_a_problem(
    tmp_path: Path, members: list[tuple[str, bytes]], why: str | None
) -> None:
    """Every member, its size, its hash, and nothing else."""
    assert problem_of(write(tmp_path / "x.tar.gz", members)) == why


def test_a_torn_bundle_has_a_problem(tmp_path: Path) -> None:
    """At any place; also what is no archive at all."""
    whole = Path(write(tmp_path / "x", [("a", ROW * 1000), manifest(entry("a", ROW * 1000))]))
    data = whole.read_bytes()
    for length in (0, 5, 40, len(data) // 2):
        whole.write_bytes(data[:length])
        assert problem_of(str(whole)) is not None, length
    assert "cannot open" in (problem_of(str(tmp_path / "gone")) or "")


def test_a_log_of_zeros_is_no_problem(tmp_path: Path) -> None:
    """It compresses a thousandfold, and comes from our own soakd."""
    zeros = bytes(80 << 20)
    path = write(tmp_path / "x", [("a", zeros), manifest(entry("a", zeros))])
    assert len(gzip.compress(zeros[: 1 << 20])) < 2000
    assert problem_of(path) is None
