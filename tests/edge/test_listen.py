"""Binding the socket: rights, locks, stale files, unsafe folders."""

from __future__ import annotations

import fcntl
import grp
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from soakd.core.errors import HostError
from soakd.edge.listen import adopt_socket, bind_socket

ROOT = os.geteuid() == 0


def mode_of(path: Path) -> int:
    """Return the permission bits."""
    return stat.S_IMODE(path.lstat().st_mode)


def connects(path: Path) -> bool:
    """Return whether somebody listens there."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(os.fspath(path))
        except OSError:
            return False
    return True


def test_user_mode_socket_is_private_and_its_folder_is_made(short_dir: Path) -> None:
    """0600 in a new folder 0700; nothing is left after close."""
    path = short_dir / "soakd" / "soakd.sock"
    listening = bind_socket(path, "user")
    assert mode_of(path) == 0o600
    assert mode_of(path.parent) == 0o700
    assert connects(path)
    listening.close()
    listening.close()
    assert list(path.parent.iterdir()) == []


def test_the_mode_does_not_depend_on_the_umask(short_dir: Path) -> None:
    """No instant exists in which others could connect."""
    before = os.umask(0)
    try:
        listening = bind_socket(short_dir / "s", "user")
    finally:
        os.umask(before)
    assert mode_of(short_dir / "s") == 0o600
    listening.close()


def test_system_mode_without_the_group_warns(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No group soak: 0600 and a sentence for the log."""

    def no_group(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(grp, "getgrnam", no_group)
    listening = bind_socket(short_dir / "s", "system")
    assert mode_of(short_dir / "s") == 0o600
    assert listening.warnings == (
        "there is no group soak: only root can connect (groupadd -r soak)",
    )
    listening.close()


@pytest.mark.skipif(not ROOT, reason="only root gives files away")
def test_system_mode_socket_belongs_to_the_group(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """root:soak 0660."""
    group = grp.struct_group(("soak", "x", 54322, []))
    monkeypatch.setattr(grp, "getgrnam", lambda _name: group)
    listening = bind_socket(short_dir / "s", "system")
    assert mode_of(short_dir / "s") == 0o660
    assert (short_dir / "s").stat().st_gid == 54322
    assert listening.warnings == ()
    listening.close()


def test_a_second_soakd_is_refused_and_the_first_goes_on(short_dir: Path) -> None:
    """The lock decides before anything is unlinked."""
    path = short_dir / "s"
    first = bind_socket(path, "user")
    with pytest.raises(HostError, match="another soakd serves it"):
        bind_socket(path, "user")
    assert connects(path)
    first.close()


def test_a_socket_left_by_a_dead_soakd_is_replaced(short_dir: Path) -> None:
    """After a kill -9 both the socket file and the lock file are still there."""
    path = short_dir / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))
    (short_dir / "s.lock").touch(0o600)
    listening = bind_socket(path, "user")
    assert connects(path)
    listening.close()


def test_a_file_that_is_no_socket_is_never_removed(short_dir: Path) -> None:
    """A slip in --socket must not cost a file; the lock is free afterwards."""
    path = short_dir / "s"
    path.write_text("precious")
    for _ in range(2):
        with pytest.raises(HostError, match="a file that is no socket stands there"):
            bind_socket(path, "user")
    assert path.read_text() == "precious"


def test_close_leaves_a_successors_socket_alone(short_dir: Path) -> None:
    """Somebody has replaced the file meanwhile: it is not ours to remove."""
    path = short_dir / "s"
    listening = bind_socket(path, "user")
    path.unlink()
    path.write_text("theirs")
    listening.close()
    assert path.read_text() == "theirs"


def test_a_lock_file_removed_between_open_and_lock_is_retried(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last owner's close may come exactly then."""
    path = short_dir / "s"
    real = fcntl.flock
    calls: list[int] = []

    def unlink_first(fd: int, operation: int) -> None:
        if not calls:
            (short_dir / "s.lock").unlink()
        calls.append(fd)
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", unlink_first)
    bind_socket(path, "user").close()
    assert len(calls) == 2


def test_a_path_too_long_for_a_socket_says_so(short_dir: Path) -> None:
    """107 bytes is the kernel's limit, and its own message does not tell."""
    with pytest.raises(HostError, match="at most 107 bytes"):
        bind_socket(short_dir / ("x" * 100), "user")


def test_a_folder_that_others_can_write_is_refused(short_dir: Path) -> None:
    """Others could put their own socket there; a sticky folder is fine."""
    short_dir.chmod(0o777)
    with pytest.raises(HostError, match="others can write it"):
        bind_socket(short_dir / "s", "user")
    short_dir.chmod(0o1777)
    bind_socket(short_dir / "s", "user").close()


@pytest.mark.skipif(not ROOT, reason="only root gives files away")
def test_a_folder_of_somebody_else_is_refused(short_dir: Path) -> None:
    """A folder prepared under our name in /tmp, or a link to one, is no place for us."""
    theirs = short_dir / "theirs"
    theirs.mkdir(0o700)
    os.chown(theirs, 54321, 54321)
    with pytest.raises(HostError, match="it belongs to uid 54321"):
        bind_socket(theirs / "s", "user")
    link = short_dir / "link"
    link.symlink_to(theirs)
    with pytest.raises(HostError, match="its target belongs to uid 54321"):
        bind_socket(link / "s", "user")


def test_a_missing_parent_folder_is_named(short_dir: Path) -> None:
    """Only the last folder is made."""
    with pytest.raises(HostError, match="cannot make folder"):
        bind_socket(short_dir / "a" / "b" / "s", "user")


def test_a_lock_that_cannot_be_opened_is_named(short_dir: Path) -> None:
    """A link in place of the lock file is not followed."""
    (short_dir / "s.lock").symlink_to("elsewhere")
    with pytest.raises(HostError, match="cannot lock"):
        bind_socket(short_dir / "s", "user")


def test_a_bind_that_fails_frees_the_lock(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel says is passed on, and the next attempt may succeed."""

    def full(_fd: int, _mode: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fchmod", full)
        with pytest.raises(HostError, match="No space left"):
            bind_socket(short_dir / "s", "user")
    bind_socket(short_dir / "s", "user").close()


# -- a socket that a service manager has bound ----------------------------------------------------


@pytest.fixture
def passed(short_dir: Path) -> Iterator[socket.socket]:
    """A listening socket with a file 0600, as a manager hands it over."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.fspath(short_dir / "s"))
        (short_dir / "s").chmod(0o600)
        sock.listen()
        yield sock


def test_managers_socket_is_served_and_left_to_it(short_dir: Path, passed: socket.socket) -> None:
    """The file stays for the next soakd; while this one serves, no other takes it."""
    listening = adopt_socket(passed.dup(), "user")
    assert (listening.path, listening.warnings) == (short_dir / "s", ())
    with pytest.raises(HostError, match="another soakd serves it"):
        bind_socket(short_dir / "s", "user")
    listening.close()
    listening.close()
    assert [path.name for path in short_dir.iterdir()] == ["s"]
    assert connects(short_dir / "s")


def test_managers_socket_is_closed_when_it_is_refused(
    short_dir: Path, passed: socket.socket
) -> None:
    """Another soakd holds the lock, or the file has gone."""
    first = adopt_socket(passed.dup(), "user")
    ours = passed.dup()
    with pytest.raises(HostError, match="another soakd serves it"):
        adopt_socket(ours, "user")
    assert ours.fileno() == -1
    first.close()
    (short_dir / "s").unlink()
    with pytest.raises(HostError, match=r"cannot serve .*/s: No such file"):
        adopt_socket(passed.dup(), "user")


def test_managers_socket_open_to_all_is_refused(short_dir: Path, passed: socket.socket) -> None:
    """Rights to connect are no more than soakd would have given."""
    (short_dir / "s").chmod(0o666)
    with pytest.raises(HostError, match=r"mode 0666 .*; set SocketMode=0660 and SocketGroup=soak"):
        adopt_socket(passed.dup(), "user")


def test_file_in_the_sockets_place_is_refused(short_dir: Path, passed: socket.socket) -> None:
    """Somebody has put it there."""
    (short_dir / "s").unlink()
    (short_dir / "s").write_text("forged")
    with pytest.raises(HostError, match="it is not the socket that root or soakd's user has"):
        adopt_socket(passed.dup(), "user")


@pytest.mark.skipif(not ROOT, reason="only root gives files away")
def test_managers_socket_must_be_the_groups(
    short_dir: Path, passed: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """root:soak 0660 is right; closed to the group is a warning, open to another a refusal."""
    group = grp.struct_group(("soak", "x", 54322, []))
    monkeypatch.setattr(grp, "getgrnam", lambda _name: group)

    def adopted(gid: int, mode: int) -> tuple[str, ...]:
        os.chown(short_dir / "s", 0, gid)
        (short_dir / "s").chmod(mode)
        listening = adopt_socket(passed.dup(), "system")
        listening.close()
        return listening.warnings

    assert adopted(54322, 0o660) == ()
    for gid, mode in ((0, 0o660), (54322, 0o600)):
        [warning] = adopted(gid, mode)
        assert "members of soak cannot connect: set SocketGroup=soak" in warning
    with pytest.raises(HostError, match="group 54323 let others connect"):
        adopted(54323, 0o660)
    os.chown(short_dir / "s", 54323, 0)
    with pytest.raises(HostError, match="it is not the socket that root or soakd's user has"):
        adopt_socket(passed.dup(), "system")
