"""Start a shim: bound socket, code, descriptors, credentials, until it reports that it listens."""

from __future__ import annotations

import json
import os
import socket as stdlib_socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from soakd.core.errors import HostError
from soakd.edge.shim_client.identity import process_ticks, short_path
from soakd.edge.shim_client.python import shim_zip

READY_TIMEOUT_S = 10.0
ABANDON_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """Whom a shim becomes: all three together, since the uid alone would keep root's groups."""

    uid: int
    gid: int
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ShimFds:
    """Descriptors handed to a shim. They stay the caller's, who closes them after the spawn.

    The lock above all: the shim's lock is only free at its death once soakd's copy is closed.
    """

    journal: int
    lock: int
    out: Mapping[str, int]
    runner_out: int

    def close(self) -> None:
        """Close soakd's copies."""
        for fd in (self.journal, self.lock, *self.out.values(), self.runner_out):
            os.close(fd)


@dataclass(frozen=True, slots=True)
class SpawnedShim:
    """A shim that listens and has touched nothing yet.

    Closing `stdin` before `begin` makes it exit without effect; after `begin` it is ignored.
    Whoever has this object waits for `process`.
    """

    pid: int
    ticks: int
    process: trio.Process
    stdin: trio.abc.SendStream

    async def abandon(self) -> None:
        """Have a shim that was not sent `begin` exit, and reap it; bounded, also when cancelled."""
        await _put_down(self.process)


async def spawn_shim(  # noqa: PLR0913 - the contract with the run task, all by keyword
    *,
    python: str,
    run: str,
    nonce: str,
    shim_dir: Path,
    n: int,
    credentials: Credentials | None,
    fds: ShimFds,
    env: Mapping[str, str],
) -> SpawnedShim:
    """Start the n-th shim of a run and wait until it listens. It has no effect before `begin`.

    Args:
        python: from `find_shim_python`.
        run: the run's id such as `r7`.
        nonce: the run's label.
        shim_dir: the run's `shim` folder, soakd's own; `<n>.sock` is bound in it.
        n: which shim of this run.
        credentials: whom it becomes; None keeps soakd's own.
        fds: stay the caller's to close.
        env: its whole environment.

    Raises:
        HostError: it could not be started; nothing is left of it but the socket file.
    """
    program = shim_zip(python)
    bound = _bind(shim_dir, n)
    code = os.memfd_create("soak-shim", os.MFD_CLOEXEC)
    try:
        with open(code, "wb", closefd=False) as file:  # noqa: ASYNC230 - memory, not a disk
            file.write(program)
        spec = {
            "run": run,
            "nonce": nonce,
            "soakd_uid": os.geteuid(),
            "fds": {
                "socket": bound.fileno(),
                "journal": fds.journal,
                "lock": fds.lock,
                "out": dict(fds.out),
            },
        }
        argv = [python, "-I", "-S", "-X", "utf8", f"/proc/self/fd/{code}", json.dumps(spec)]
        inherited = (code, bound.fileno(), fds.journal, fds.lock, *fds.out.values())
        process = await _open(argv, inherited, credentials, fds.runner_out, env)
    finally:
        os.close(code)
        bound.close()
    try:
        return await _await_ready(process)
    except BaseException:
        await _put_down(process)
        raise


def _bind(shim_dir: Path, n: int) -> stdlib_socket.socket:
    sock = stdlib_socket.socket(stdlib_socket.AF_UNIX, stdlib_socket.SOCK_STREAM)
    try:
        # The kernel takes the file's mode from the socket's: no umask, no moment of openness.
        os.fchmod(sock.fileno(), 0o600)
        with short_path(shim_dir) as path:
            sock.bind(f"{path}/{n}.sock")
    except OSError as exc:
        sock.close()
        raise HostError(
            "internal", f"cannot bind {shim_dir}/{n}.sock: {exc.strerror or exc}"
        ) from exc
    return sock


async def _open(
    argv: list[str],
    inherited: tuple[int, ...],
    credentials: Credentials | None,
    runner_out: int,
    env: Mapping[str, str],
) -> trio.Process:
    who: dict[str, Any] = {}
    if credentials is not None:
        who = {
            "user": credentials.uid,
            "group": credentials.gid,
            "extra_groups": list(credentials.groups),
        }
    try:
        return await trio.lowlevel.open_process(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=runner_out,
            pass_fds=inherited,
            start_new_session=True,
            cwd="/",
            env=dict(env),
            **who,
        )
    except OSError as exc:
        raise HostError("internal", f"cannot start the shim {argv[0]}: {exc.strerror}") from exc


async def _await_ready(process: trio.Process) -> SpawnedShim:
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        raise AssertionError("the shim was started with pipes")
    line = b""
    with trio.move_on_after(READY_TIMEOUT_S):
        while not line.endswith(b"\n") and len(line) < 1024:
            data = await stdout.receive_some(1024)
            if not data:
                break
            line += data
    # Only its being there counts: who it is, the kernel says.
    ticks = process_ticks(process.pid) if line.endswith(b"\n") else None
    if ticks is None:
        raise HostError("internal", "cannot start the shim: it did not report; see runner.out")
    await stdout.aclose()
    return SpawnedShim(process.pid, ticks, process, stdin)


async def _put_down(process: trio.Process) -> None:
    with trio.CancelScope(shield=True):
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                await stream.aclose()
        with trio.move_on_after(ABANDON_TIMEOUT_S):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
