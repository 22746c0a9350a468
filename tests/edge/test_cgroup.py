from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from soakd.core.errors import HostError
from soakd.edge import cgroup
from soakd.edge.cgroup import Cgroup

V2 = cgroup.own_folder()
real = pytest.mark.skipif(
    V2 is None or not os.access(V2, os.W_OK), reason="no writable cgroup v2 on this host"
)


@pytest.fixture
def group() -> Iterator[Cgroup]:
    """A real cgroup, empty."""
    group = Cgroup.create(f"soakd-test-{os.getpid()}")
    assert group is not None
    yield group
    group.kill()
    for pid in group.pids():
        os.waitpid(pid, 0)
    assert group.remove()


def procfs(folder: Path, membership: str, mountinfo: str) -> Path:
    """A /proc that tells of one layout."""
    (folder / "self").mkdir()
    (folder / "self" / "cgroup").write_text(membership)
    (folder / "self" / "mountinfo").write_text(mountinfo)
    return folder


@pytest.mark.parametrize(
    ("membership", "mount", "below"),
    [
        ("0::/a/b\n", "{}", "a/b"),
        ("12:pids:/v1\n0::/a/b\n", "{}", "a/b"),
        ("0::/\n", "{}", ""),
        ("0::/a/b\n", "{}\\040x", None),
        ("0::/../b\n", "{}", None),
        ("12:pids:/v1\n", "{}", None),
        ("0::/gone\n", "{}", None),
    ],
)
def test_ones_own_cgroup_is_found_in_every_layout(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    membership: str,
    mount: str,
    below: str | None,
) -> None:
    """Unified, hybrid, at the root; not outside of the namespace and not in v1."""
    (tmp_path / "mnt" / "a" / "b").mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    line = f"36 25 0:32 / {mount.format(tmp_path / 'mnt')} rw - cgroup2 cgroup2 rw\n"
    v1 = "35 25 0:31 / /v1 rw - cgroup cgroup rw,pids\n"
    monkeypatch.setattr(cgroup, "_PROC", procfs(tmp_path / "proc", membership, v1 + line))
    assert cgroup.own_folder() == (None if below is None else tmp_path / "mnt" / below)


def test_a_mount_point_with_a_blank_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel escapes it in octal."""
    (tmp_path / "m t").mkdir()
    line = f"36 25 0:32 / {tmp_path}/m\\040t rw - cgroup2 cgroup2 rw\n"
    monkeypatch.setattr(cgroup, "_PROC", procfs(tmp_path, "0::/\n", line))
    assert cgroup.own_folder() == tmp_path / "m t"


def test_without_cgroups_none_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is contained by evidence then."""
    monkeypatch.setattr(cgroup, "_PROC", tmp_path)
    assert Cgroup.create("soak-1") is None
    monkeypatch.setattr(cgroup, "own_folder", lambda: tmp_path / "gone")
    assert Cgroup.create("soak-1") is None
    monkeypatch.setattr(cgroup, "own_folder", lambda: tmp_path)
    assert Cgroup.create("soak-1") is None, "a folder without cgroup.procs is no cgroup"
    assert not (tmp_path / "soak-1").exists()


def test_a_cgroup_that_is_gone_is_empty(tmp_path: Path) -> None:
    """Another boot, or somebody removed it."""
    gone = Cgroup(tmp_path / "gone")
    assert gone.pids() == ()
    gone.kill()
    assert gone.remove()
    with pytest.raises(HostError, match="cannot put pid 1 into"):
        gone.attach(1)


async def test_waiting_for_a_cgroup_that_is_gone_ends_at_once(tmp_path: Path) -> None:
    """Nobody is left in it."""
    assert await Cgroup(tmp_path / "gone").wait_empty(60)


def spawn(script: str) -> subprocess.Popen[bytes]:
    """A shell of our own, waiting at its first `read`."""
    return subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE)


@real
async def test_all_members_are_killed_at_once(group: Cgroup) -> None:
    """Children that left their session included."""
    with spawn("read go; setsid sleep 20 & sleep 20 & wait") as shell:
        assert shell.stdin is not None
        group.attach(shell.pid)
        assert group.pids() == (shell.pid,)
        assert not group.remove(), "a process is left"
        assert not await group.wait_empty(0.01)
        shell.stdin.write(b"\n")
        shell.stdin.flush()
        group.kill()
        assert await group.wait_empty(10)
        assert shell.wait() == -9
    assert group.pids() == ()


@real
async def test_members_are_killed_one_by_one_before_linux_5_14(
    group: Cgroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no cgroup.kill there."""
    write = Path.write_text

    def without_kill(path: Path, text: str) -> int:
        if path.name == "cgroup.kill":
            raise FileNotFoundError
        return write(path, text)

    monkeypatch.setattr(Path, "write_text", without_kill)
    with spawn("read go") as child:
        group.attach(child.pid)
        group.kill()
        assert await group.wait_empty(10)
        assert child.wait() == -9


@real
async def test_the_last_exit_ends_the_wait(group: Cgroup) -> None:
    """By the kernel's event, not by looking again and again."""
    with spawn("read go") as child:
        group.attach(child.pid)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(group.wait_empty, 60)
            await trio.testing.wait_all_tasks_blocked()
            assert child.stdin is not None
            child.stdin.close()


@real
def test_a_cgroup_of_an_earlier_soakd_is_opened_with_those_below(group: Cgroup) -> None:
    """A restarted soakd finds its run's processes wherever the nodes put them."""
    (group.path / "inner").mkdir()
    with spawn("read go") as child:
        Cgroup(group.path / "inner").attach(child.pid)
        again = Cgroup(group.path)
        assert again.pids() == (child.pid,)
        again.kill()
        child.wait()
    assert again.remove()
    assert not group.path.exists()


@real
def test_a_name_is_used_once_at_a_time(group: Cgroup) -> None:
    """Killing one run must not kill another; an empty leftover harms nobody."""
    assert Cgroup.create(group.path.name) is not None
    with spawn("read go") as child:
        group.attach(child.pid)
        with pytest.raises(HostError, match=rf"holds the processes \({child.pid},\)"):
            Cgroup.create(group.path.name)
        group.kill()


def test_a_member_that_left_is_not_signalled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pid may be somebody else's by now."""
    signalled: list[object] = []
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *args: signalled.append(args))
    Cgroup(tmp_path)._kill_one(os.getpid())
    assert signalled == []


def test_a_cgroup_that_cannot_be_removed_is_a_host_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless a process is left in it, which is for the caller to judge."""

    def refuse(_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "rmdir", refuse)
    with pytest.raises(HostError, match=r"cannot remove .*: Operation not permitted"):
        Cgroup(tmp_path).remove()


def test_a_subtree_that_vanishes_meanwhile_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node may remove its own."""
    group = Cgroup(tmp_path / "g")
    group.path.mkdir()
    monkeypatch.setattr(group, "_tree", lambda: [group.path, group.path / "gone"])
    assert group.remove()


def test_scope_is_left_to_systemd(tmp_path: Path) -> None:
    """It removes the cgroup itself when that is empty; until then it counts as not removed."""
    scope = Cgroup(tmp_path / "soak-r1.scope")
    assert scope.remove()
    scope.path.mkdir()
    (scope.path / "cgroup.procs").write_text("4711\n")
    assert not scope.remove()
    (scope.path / "cgroup.procs").write_text("")
    assert scope.remove()
    assert scope.path.exists()


@real
async def test_cgroup_removed_while_it_is_looked_at_is_empty(
    group: Cgroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd removes a scope's at any moment: the kernel then says ENODEV."""
    inner = Cgroup(group.path / "soak-r1.scope")
    inner.path.mkdir()
    fd = os.open(inner.path / "cgroup.events", os.O_RDONLY)
    inner.path.rmdir()
    with pytest.raises(OSError, match="No such device"):
        os.pread(fd, 256, 0)
    assert not cgroup._populated(fd)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        cgroup._populated(fd)


def test_refused_kill_is_told(tmp_path: Path) -> None:
    """Only a cgroup that is gone needs no killing."""
    (tmp_path / "cgroup.kill").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        Cgroup(tmp_path).kill()


@real
def test_cgroup_of_another_process_is_found(group: Cgroup) -> None:
    """As the kernel has it; of one that is gone there is none."""
    with spawn("read go") as child:
        group.attach(child.pid)
        assert cgroup.folder_of(child.pid) == group.path
        group.kill()
    assert cgroup.folder_of(child.pid) is None
