"""Processes by identity: nobody is waited for, or killed, who is not meant."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from soakd.core.errors import HostError
from soakd.edge.pidfds import MAX_PID, kill, start_ticks, wait_for_end

Child = subprocess.Popen[bytes]
Look = Callable[[int], object]
GUARD_S = 30.0


@pytest.fixture
def child() -> Iterator[Child]:
    """Yield a child that sleeps; it is ended and reaped."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def identity(process: Child) -> tuple[int, int]:
    ticks = start_ticks(process.pid)
    assert ticks is not None
    return process.pid, ticks


async def test_the_wait_ends_with_the_process_though_nobody_reaps_it(child: Child) -> None:
    """A zombie is as good as gone: its parent may never look."""
    known = identity(child)
    ended = trio.Event()

    async def wait() -> None:
        await wait_for_end(*known)
        ended.set()

    with trio.fail_after(GUARD_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert not ended.is_set()
            assert kill(*known)
            await ended.wait()
    assert start_ticks(child.pid) is None


async def test_a_zombie_is_not_waited_for(child: Child) -> None:
    """It was dead before anybody asked, and stays in the table."""
    known = identity(child)
    child.kill()
    await trio.to_thread.run_sync(os.waitid, os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with trio.fail_after(GUARD_S):
        await wait_for_end(*known)
    assert not kill(*known)
    assert child.poll() == -9


_FIRST_THREAD_ENDS = (
    "import ctypes, sys, threading, time;"
    "threading.Thread(target=time.sleep, args=(1000,)).start();"
    "print(flush=True); ctypes.CDLL(None).pthread_exit(None)"
)


async def test_a_process_whose_first_thread_alone_is_dead_is_not_gone() -> None:
    """So looks a node that was killed while another thread of it waits for a disk: it has all."""
    command = [sys.executable, "-c", _FIRST_THREAD_ENDS]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            known = identity(process)
            stat = Path(f"/proc/{process.pid}/stat")
            with trio.fail_after(GUARD_S):
                while b") Z " not in stat.read_bytes():
                    await trio.sleep(0.01)
            assert start_ticks(process.pid) == known[1]
            with trio.move_on_after(0.2) as waiting:
                await wait_for_end(*known)
            assert waiting.cancelled_caught
            assert kill(*known)
            with trio.fail_after(GUARD_S):
                await wait_for_end(*known)
        finally:
            process.kill()


async def test_a_process_that_was_reaped_is_not_waited_for(child: Child) -> None:
    """Its pid may be anybody's by now."""
    known = identity(child)
    child.kill()
    child.wait()
    with trio.fail_after(GUARD_S):
        await wait_for_end(*known)
    assert not kill(*known)


async def test_another_process_of_the_same_pid_is_left_alone(child: Child) -> None:
    """The start ticks tell them apart."""
    pid, ticks = identity(child)
    with trio.fail_after(GUARD_S):
        await wait_for_end(pid, ticks - 1)
    assert not kill(pid, ticks - 1)
    assert start_ticks(pid) == ticks


@pytest.mark.parametrize("pid", [-1, 0, 1, MAX_PID, 1 << 70])
async def test_a_pid_that_cannot_be_a_nodes_is_nobody(pid: int) -> None:
    """Whoever names it is wrong, or lies."""
    assert start_ticks(pid) is None
    with trio.fail_after(GUARD_S):
        await wait_for_end(pid, 7)
    assert not kill(pid, 7)


@pytest.mark.parametrize("look", [start_ticks, lambda pid: kill(pid, 1)])
def test_a_host_out_of_descriptors_is_no_sign_of_an_end(child: Child, look: Look) -> None:
    """A process that cannot be looked at may well live, and hold its port."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(HostError, match=f"cannot look at process {child.pid}: Too many open"):
            look(child.pid)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert start_ticks(child.pid) is not None


@pytest.mark.parametrize("pid", [-1, 0, 1, MAX_PID, 1 << 40])
def test_what_is_no_pid_of_a_node_is_nobody(pid: int) -> None:
    """Numbers come from shims, which are their users'."""
    assert start_ticks(pid) is None
    assert not kill(pid, 7)
