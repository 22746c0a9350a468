from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from soakd.core.errors import HostError
from soakd.edge import journal
from soakd.edge.journal import NO_ACL, RunFolder

ROUNDS = "logs/rounds.ndjson"
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")


@pytest.fixture
def state(short_dir: Path) -> Path:
    """A state folder that other users can pass through."""
    short_dir.chmod(0o711)
    return short_dir


@pytest.fixture
def folder(state: Path) -> Iterator[RunFolder]:
    """The folder of run 7, in user mode."""
    folder = RunFolder.create(state, 7, os.geteuid(), system=False)
    yield folder
    folder.close()


def mode_of(path: Path) -> int:
    """Permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def as_nobody(*argv: str | Path) -> subprocess.CompletedProcess[bytes]:
    """Run a program as a user without rights."""
    return subprocess.run(
        argv, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, check=False
    )


def test_a_run_folder_has_its_parts_and_modes(folder: RunFolder, state: Path) -> None:
    """Others pass through runs; the folder is the owner's alone in user mode."""
    assert folder.path == state / "runs" / "r7"
    assert folder.notes == ()
    assert (mode_of(state / "runs"), mode_of(folder.path)) == (0o711, 0o750)
    assert mode_of(folder.shim_dir()) == 0o700


def test_a_run_folder_is_made_once(folder: RunFolder, state: Path) -> None:
    """Records of another run are never mixed in."""
    with pytest.raises(HostError, match=r"cannot make the run folder .*r7: File exists"):
        RunFolder.create(state, 7, os.geteuid(), system=False)


def test_a_missing_run_folder_is_a_host_error(state: Path) -> None:
    """Somebody removed it."""
    for opening in (RunFolder.open, RunFolder.open_for_reading):
        with pytest.raises(HostError, match="No such file"):
            opening(state, 8)


@as_root
def test_the_owner_reads_and_cannot_write(state: Path) -> None:
    """An ACL lets exactly the owner in, also to files made later."""
    folder = RunFolder.create(state, 1, NOBODY, system=True)
    old = os.umask(0o077)
    try:
        folder.append(ROUNDS, b"one\n")
        folder.write_atomic("run.json", b"{}")
        os.close(folder.open_for_child("shim.lock"))
        os.close(folder.open_for_child("logs/a.out"))
    finally:
        os.umask(old)
    assert folder.notes == ()
    assert as_nobody("cat", folder.path / ROUNDS).stdout == b"one\n"
    assert as_nobody("cat", folder.path / "run.json").stdout == b"{}"
    assert as_nobody("ls", folder.path).returncode == 0
    for forbidden in (
        ("touch", folder.path / "x"), ("touch", folder.path / "logs" / "x"),
        ("sh", "-c", f"echo x >> {folder.path / ROUNDS}"), ("rm", folder.path / ROUNDS),
        ("cat", folder.path / "shim.lock"), ("ls", folder.path / "shim"),
    ):  # fmt: skip
        assert as_nobody(*forbidden).returncode != 0, forbidden
    assert not stat.S_IMODE((folder.path / ROUNDS).stat().st_mode) & 0o007
    folder.close()


@as_root
def test_without_acls_the_owner_only_passes_through(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder says so, and the owner still reaches their nodes."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "no")

    monkeypatch.setattr(os, "setxattr", refuse)
    folder = RunFolder.create(state, 1, NOBODY, system=True)
    nodes = folder.make_nodes(NOBODY, NOBODY)
    assert folder.notes == (NO_ACL,)
    assert mode_of(folder.path) == 0o711
    assert as_nobody("ls", folder.path).returncode != 0
    assert as_nobody("touch", nodes / "mine").returncode == 0
    folder.close()


@as_root
def test_nodes_belong_to_the_submitter_alone(state: Path) -> None:
    """And programs in there make files as their umask says, not as our ACL does."""
    folder = RunFolder.create(state, 1, NOBODY, system=True)
    nodes = folder.make_nodes(NOBODY, NOBODY)
    assert folder.make_nodes(NOBODY, NOBODY) == nodes
    status = nodes.stat()
    assert (status.st_uid, status.st_gid, mode_of(nodes)) == (NOBODY, NOBODY, 0o700)
    assert as_nobody("sh", "-c", f"umask 077; mkdir {nodes}/a; echo > {nodes}/a/f").returncode == 0
    assert mode_of(nodes / "a" / "f") == 0o600
    assert os.listxattr(nodes / "a" / "f") == []
    folder.close()


def test_a_failing_acl_leaves_nothing_open(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An I/O error is not taken for a missing feature."""

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "setxattr", fail)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(HostError, match="Input/output error"):
        RunFolder.create(state, 1, NOBODY, system=True)
    assert set(os.listdir("/proc/self/fd")) == before


def test_lines_are_appended_and_read_back(folder: RunFolder) -> None:
    """Reading gives whole lines from any offset."""
    assert folder.size(ROUNDS) == 0
    folder.append(ROUNDS, b"one\n")
    offset = folder.size(ROUNDS)
    folder.append(ROUNDS, b"two\nthree\n")
    folder.sync(ROUNDS)
    assert (offset, folder.size(ROUNDS)) == (4, 14)
    assert list(folder.read_lines(ROUNDS)) == [b"one", b"two", b"three"]
    assert list(folder.read_lines(ROUNDS, offset)) == [b"two", b"three"]
    assert list(folder.read_lines("logs/none")) == []


def test_a_line_under_way_is_not_read(folder: RunFolder, state: Path) -> None:
    """A reader beside the writer sees whole lines only, and repairs nothing."""
    folder.append(ROUNDS, b"one\n")
    with (folder.path / ROUNDS).open("ab") as file:
        file.write(b'{"half')
    reader = RunFolder.open_for_reading(state, 7)
    assert list(reader.read_lines(ROUNDS)) == [b"one"]
    assert reader.size(ROUNDS) == 10
    reader.close()


def test_a_record_without_its_newline_is_our_mistake(folder: RunFolder) -> None:
    """It would be taken for a torn one."""
    with pytest.raises(AssertionError, match="newline"):
        folder.append(ROUNDS, b"one")


def test_a_reader_writes_nothing(folder: RunFolder, state: Path) -> None:
    """Only one object at a time is the writer."""
    reader = RunFolder.open_for_reading(state, 7)
    for write in (
        lambda: reader.append(ROUNDS, b"x\n"), lambda: reader.write_atomic("x", b""),
        lambda: reader.remove("x"), lambda: reader.open_for_child("x"),
        lambda: reader.make_nodes(0, 0),
    ):  # fmt: skip
        with pytest.raises(AssertionError, match="opened for reading"):
            write()
    reader.close()
    reader.close()


@pytest.mark.parametrize("limit", [1000, 900])
def test_a_line_that_does_not_fit_leaves_no_trace(folder: RunFolder, limit: int) -> None:
    """A full disk tears no record: the part that fitted is taken back."""
    folder.append(ROUNDS, b"x" * 899 + b"\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(HostError, match=rf"cannot append to .*{ROUNDS}"):
            folder.append(ROUNDS, b"y" * 299 + b"\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert folder.size(ROUNDS) == 900
    folder.append(ROUNDS, b"z\n")
    assert list(folder.read_lines(ROUNDS))[-1] == b"z"


def test_lines_of_another_writer_are_never_cut_off(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shim may have appended to runner.out behind the part that fitted."""
    write = os.write

    def short_then_shim(fd: int, data: bytes) -> int:
        written = write(fd, data[:2])
        end = os.lseek(fd, 0, os.SEEK_CUR)
        write(fd, b"shim\n")
        os.lseek(fd, end, os.SEEK_SET)
        return written

    monkeypatch.setattr(os, "write", short_then_shim)
    with pytest.raises(HostError, match="No space left"):
        folder.append("logs/runner.out", b"line\n")
    assert (folder.path / "logs" / "runner.out").read_bytes() == b"lishim\n"


def test_a_full_disk_is_told_apart(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring stops with a cause that names what to do."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(HostError, match="No space left on device; free disk space") as caught:
        folder.append(ROUNDS, b"one\n")
    assert caught.value.details == {"disk_full": True}


def test_a_file_is_replaced_whole(folder: RunFolder) -> None:
    """No temporary file stays."""
    folder.write_atomic("runner.state", b"running\n")
    folder.write_atomic("runner.state", b"done\n")
    assert (folder.path / "runner.state").read_bytes() == b"done\n"
    assert not (folder.path / "runner.state.tmp").exists()


def test_a_replacement_that_does_not_fit_keeps_the_old(folder: RunFolder) -> None:
    """A full disk costs the new content only."""
    folder.write_atomic("run.json", b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(HostError, match="cannot write"):
            folder.write_atomic("run.json", b"n" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (folder.path / "run.json").read_bytes() == b"old"
    assert sorted(p.name for p in folder.path.iterdir()) == ["logs", "run.json", "shim"]


def test_a_leftover_of_a_crash_is_overwritten(folder: RunFolder) -> None:
    """A longer temporary file must not shine through."""
    (folder.path / "run.json.tmp").write_bytes(b"x" * 100)
    folder.write_atomic("run.json", b"{}")
    assert (folder.path / "run.json").read_bytes() == b"{}"


def test_removing_is_idempotent(folder: RunFolder) -> None:
    """A pid file may be gone already."""
    folder.write_atomic("logs/a.pid", b"1\n")
    folder.remove("logs/a.pid")
    folder.remove("logs/a.pid")
    assert not folder.exists("logs/a.pid")


def test_a_childs_descriptor_appends_and_is_not_inherited(folder: RunFolder) -> None:
    """It is passed on purpose or not at all, and can hold a lock."""
    fd = folder.open_for_child("shim.lock")
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    assert flags & os.O_APPEND
    assert not os.get_inheritable(fd)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)
    assert mode_of(folder.path / "shim.lock") == 0o600


def test_links_are_not_followed(folder: RunFolder) -> None:
    """Whatever stands there, only files of the folder are opened."""
    (folder.path / "logs" / "soak.log").symlink_to("/etc/passwd")
    with pytest.raises(HostError, match="cannot append"):
        folder.append("logs/soak.log", b"x\n")
    with pytest.raises(HostError, match="cannot open"):
        folder.open_for_child("logs/soak.log")
    with pytest.raises(HostError, match="cannot open"):
        folder.open_file("logs/soak.log")
    assert not folder.exists("logs/soak.log")


def test_opening_a_missing_file_is_not_a_failure_of_the_host(folder: RunFolder) -> None:
    """Logs may not be there yet."""
    with pytest.raises(FileNotFoundError):
        folder.open_file("logs/a.out")
    folder.append("logs/soak.log", b"x\n")
    fd = folder.open_file("logs/soak.log")
    assert os.read(fd, 10) == b"x\n"
    os.close(fd)


@pytest.mark.parametrize(
    ("data", "whole", "torn"),
    [
        (b"", b"", None),
        (b"one\ntwo\n", b"one\ntwo\n", None),
        (b'one\n{"tw', b"one\n", b'{"tw\n'),
        (b'{"on', b"", b'{"on\n'),
        (b"one\n" + b"y" * 200_000, b"one\n", b"y" * 200_000 + b"\n"),
    ],
    ids=["empty", "whole", "torn", "only torn", "long"],
)
def test_a_torn_last_line_is_set_aside(
    folder: RunFolder, state: Path, data: bytes, whole: bytes, torn: bytes | None
) -> None:
    """SIGKILL tears lines at page borders; nothing is thrown away."""
    (folder.path / ROUNDS).write_bytes(data)
    (folder.path / "logs" / "a.out").write_bytes(b"a node's half line")
    again = RunFolder.open(state, 7)
    again.append(ROUNDS, b"next\n")
    assert (folder.path / ROUNDS).read_bytes() == whole + b"next\n"
    aside = folder.path / f"{ROUNDS}.torn"
    assert (aside.read_bytes() if aside.exists() else None) == torn
    assert (folder.path / "logs" / "a.out").read_bytes() == b"a node's half line"
    again.close()


def test_torn_lines_of_several_crashes_are_kept(folder: RunFolder, state: Path) -> None:
    """One line each, in their order."""
    for part in (b"first", b"second"):
        with (folder.path / ROUNDS).open("ab") as file:
            file.write(part)
        RunFolder.open(state, 7).close()
    assert (folder.path / f"{ROUNDS}.torn").read_bytes() == b"first\nsecond\n"


def test_a_failed_repair_leaves_nothing_open(
    folder: RunFolder, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the records as they were."""
    (folder.path / ROUNDS).write_bytes(b"one\nha")

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "ftruncate", fail)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(HostError, match="cannot repair"):
        RunFolder.open(state, 7)
    assert set(os.listdir("/proc/self/fd")) == before
    assert (folder.path / ROUNDS).read_bytes() == b"one\nha"


def test_the_records_are_the_files_soakd_alone_appends_to() -> None:
    """A file the shim writes must never be truncated by us."""
    assert not {"shim.ndjson", "logs/a.out", "logs/b.out", "runner.out"} & set(journal.RECORDS)
    assert "logs/runner.out" not in journal.RECORDS
