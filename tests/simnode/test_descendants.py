"""Processes that a faulty node leaves behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from soakd.simnode import install
from tests.simnode.simnodes import MakeNode, SimNode, status_field, tell, wait_until

SYSTEM_PYTHON = Path("/usr/bin/python3")


@pytest.fixture
def pids() -> Iterator[Callable[[SimNode], list[int]]]:
    """Read the pids of a node's descendants from its log; none of them outlives the test."""
    found: list[int] = []

    def read(node: SimNode) -> list[int]:
        wait_until(lambda: "pids=" in node.out())
        found.extend(int(pid) for pid in re.findall(r'pids="(.*?)"', node.out())[-1].split())
        return found

    yield read
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def proc(pid: int, name: str) -> bytes:
    """Read a file of a process."""
    return Path(f"/proc/{pid}/{name}").read_bytes()


def working_folder(pid: int) -> Path:
    """Read where it stands."""
    return Path(f"/proc/{pid}/cwd").readlink()


def is_gone(pid: int) -> bool:
    """Say whether it runs no more."""
    return not Path(f"/proc/{pid}").exists() or status_field(pid, "State").startswith("Z")


def test_fork(node: SimNode, pids: Callable[[SimNode], list[int]]) -> None:
    """Children of the node, with its folder, name and environment, but without its lock."""
    tell(node, "fork:3")
    children = pids(node)
    assert node.process is not None
    assert len(children) == 3
    for pid in children:
        assert status_field(pid, "PPid") == str(node.process.pid)
        assert proc(pid, "environ") == proc(node.process.pid, "environ")
        assert working_folder(pid) == node.folder
    node.kill()
    assert not any(is_gone(pid) for pid in children)
    node.run()
    wait_until(node.ready)


def test_daemon(node: SimNode, pids: Callable[[SimNode], list[int]]) -> None:
    """A grandchild in a session of its own, of whom the node knows nothing."""
    tell(node, "daemon")
    (pid,) = pids(node)
    assert node.process is not None
    assert status_field(pid, "PPid") != str(node.process.pid)
    assert os.getsid(pid) not in (pid, os.getsid(node.process.pid))
    node.kill()
    assert not is_gone(pid)


def test_daemon_with_all_options(node: SimNode, pids: Callable[[SimNode], list[int]]) -> None:
    """Empty environment, other folder, deaf, and the API's port still open."""
    tell(node, "daemon:2,noenv,chdir,deaf,listen")
    daemons = pids(node)
    for pid in daemons:
        wait_until(lambda pid=pid: proc(pid, "environ") == b"")  # type: ignore[misc]
        assert working_folder(pid) == Path("/")
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    node.kill()
    with socket.create_connection(("127.0.0.1", node.port), timeout=5):
        pass
    time.sleep(0.1)
    assert not any(is_gone(pid) for pid in daemons)


@pytest.mark.skipif(not SYSTEM_PYTHON.exists(), reason="the system has no Python")
def test_the_system_python_misbehaves_too(
    make_node: MakeNode, pids: Callable[[SimNode], list[int]]
) -> None:
    """What it loads with the first order comes from the archive and the library as well."""
    node = make_node(faults=["ignore@start:HUP"])
    text = (node.folder / "config.toml").read_text()
    install(node.folder, python=str(SYSTEM_PYTHON), port=node.port, session_name="s")
    (node.folder / "config.toml").write_text(text)
    node.run(installed=True)
    wait_until(node.ready)
    tell(node, "daemon:noenv,deaf", "gzip-bomb:/health", "rotate-token", "print:1k:err")
    assert not is_gone(pids(node)[0])
    assert node.call("GET", "/status")[0] == 200
    tell(node, "die:SEGV")
    assert node.wait() == -signal.SIGSEGV
