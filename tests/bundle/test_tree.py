"""Tests of soakd.bundle.tree."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from soakd.bundle.tree import open_regular, walk


def found(root: Path, depth: int = 8) -> dict[str, str | None]:
    """Return path -> problem for a whole walk."""
    return {entry.path: entry.problem for entry in walk(str(root), depth)}


def test_files_come_in_the_order_of_names(tmp_path: Path) -> None:
    """A bundle of the same folder is the same bundle."""
    (tmp_path / "b").mkdir()
    for name in ("c", "b/z", "b/a", "a"):
        (tmp_path / name).touch()
    assert list(found(tmp_path)) == ["a", "b/a", "b/z", "c"]


def test_only_regular_files_are_taken(tmp_path: Path) -> None:
    """Links, FIFOs and sockets are named with the reason; nothing waits for a FIFO's writer."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "loop").symlink_to(".")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        here = os.open(tmp_path, os.O_RDONLY)
        sock.bind(f"/proc/self/fd/{here}/sock")
        os.close(here)
    assert found(tmp_path) == {
        "fifo": "not a regular file",
        "file": None,
        "link": "symbolic link",
        "loop": "symbolic link",
        "sock": "not a regular file",
    }
    targets = {entry.path: entry.target for entry in walk(str(tmp_path), 8)}
    assert targets["link"] == "/etc/passwd"


def test_walk_does_not_start_at_a_link_or_at_nothing(tmp_path: Path) -> None:
    """A root that is not a folder is one entry with a reason."""
    (tmp_path / "link").symlink_to("/etc")
    assert list(found(tmp_path / "link")) == [""]
    assert found(tmp_path / "missing") == {"": "No such file or directory"}


def test_what_lies_too_deep_is_named(tmp_path: Path) -> None:
    """A chain of folders without end costs a bounded number of descriptors."""
    deep = tmp_path / "1" / "2" / "3"
    deep.mkdir(parents=True)
    (deep / "file").touch()
    assert found(tmp_path, 2) == {"1/2/3": "too deep"}
    assert found(tmp_path, 3) == {"1/2/3/file": None}


def test_folder_replaced_by_a_link_during_the_walk_is_not_entered(tmp_path: Path) -> None:
    """The descriptor decides, not the name that was there a moment ago."""
    (tmp_path / "a").touch()
    inner = tmp_path / "b"
    inner.mkdir()
    (inner / "mine").touch()
    steps = walk(str(tmp_path), 8)
    assert next(steps).path == "a"
    (inner / "mine").unlink()
    inner.rmdir()
    inner.symlink_to("/etc")
    assert [(entry.path, entry.problem) for entry in steps] == [("b", "symbolic link")]


def test_file_that_vanished_is_named(tmp_path: Path) -> None:
    """Folders change while they are read."""
    for name in ("a", "b"):
        (tmp_path / name).touch()
    steps = walk(str(tmp_path), 8)
    next(steps)
    (tmp_path / "b").unlink()
    assert [entry.problem for entry in steps] == ["No such file or directory"]


def test_open_regular_refuses_what_is_not(tmp_path: Path) -> None:
    """A FIFO is refused at once; a link only unless it is to be followed."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(OSError, match="not a regular file"), open_regular(str(tmp_path / "fifo")):
        pass
    with pytest.raises(OSError, match="symbolic"), open_regular(str(tmp_path / "link")):
        pass
    with open_regular(str(tmp_path / "link"), follow=True) as descriptor:
        assert os.read(descriptor, 9) == b"x"
