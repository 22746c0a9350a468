from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from soakd.edge import telemetry


def ticks_of(pid: int) -> int:
    """Start time of a process in clock ticks since boot."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def test_our_own_process_can_be_sampled() -> None:
    """Four numbers that are plausible."""
    sample = telemetry.sample(os.getpid(), ticks_of(os.getpid()))
    assert sample is not None
    assert 1 << 20 < sample.rss_bytes < 1 << 32
    assert abs(sample.cpu_s - sum(os.times()[:2])) < 1
    assert sample.threads >= 1
    assert sample.fds is not None
    assert abs(sample.fds - len(os.listdir("/proc/self/fd"))) <= 2
    assert list(sample.to_dict()) == ["rss_bytes", "cpu_s", "threads", "fds"]


def test_another_process_with_the_pid_is_not_sampled() -> None:
    """Pids are used again."""
    assert telemetry.sample(os.getpid(), ticks_of(os.getpid()) + 1) is None


def test_a_zombie_and_a_reaped_process_are_gone() -> None:
    """A node that ended uses nothing."""
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as child:
        ticks = ticks_of(child.pid)
        assert telemetry.sample(child.pid, ticks) is not None
        assert child.stdin is not None
        child.stdin.write(b"\n")
        child.stdin.flush()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert telemetry.sample(child.pid, ticks) is None
    assert telemetry.sample(child.pid, ticks) is None


def test_descriptors_are_counted_one_by_one_on_old_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Linux 6.2 the folder's size is 0; without the right to look there is no number."""
    (tmp_path / "0").touch()
    (tmp_path / "1").touch()
    stat = os.stat_result((0,) * 10)
    monkeypatch.setattr(Path, "stat", lambda _self: stat)
    assert telemetry._count_fds(tmp_path) == 2
    assert telemetry._count_fds(tmp_path / "none") is None
