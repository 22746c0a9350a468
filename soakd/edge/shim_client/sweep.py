"""After a dead shim, where no cgroup held its processes: a fresh shim finds and kills the rest."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from soakd.core.errors import HostError
from soakd.edge.shim_client.connection import ShimLost, ShimRefused, connect_shim
from soakd.edge.shim_client.identity import shim_lock_is_free, short_path
from soakd.edge.shim_client.spawn import Credentials, ShimFds, spawn_shim
from soakd.shim import protocol

SWEEPER_N = 0
"""The sweeper's socket is `0.sock`: the run's shims count from 1, and none is written down."""
LOCK_TIMEOUT_S = 3.0
SLACK_S = 5.0
MAX_JOURNAL_BYTES = 16 * 1024 * 1024
_POLL_S = 0.05
_ENV = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class SweepOrder:
    """Which run is swept.

    Args:
        nodes_root: the folder of its node folders, as `begin` returned it.
        nonce: the dead shim's, which its nodes bear.
        started_ticks: the start of the run's first shim; nothing older is touched.
        programs: (device, inode) of each staged binary, from `staged_programs`.
    """

    nodes_root: str
    nonce: str
    started_ticks: int
    programs: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Swept:
    """What came of it: (pid, why) of those spared, and who could not be killed."""

    killed: tuple[int, ...]
    spared: tuple[tuple[int, str], ...]
    left: tuple[int, ...]


async def sweep_run(  # noqa: PLR0913 - the contract with the run, as in `spawn_shim`
    order: SweepOrder,
    *,
    python: str,
    run: str,
    shim_dir: Path,
    lock_path: Path,
    credentials: Credentials | None,
    fds: ShimFds,
) -> Swept:
    """Kill what a dead shim left behind, at most for `protocol.SWEEP_S` and some seconds.

    Args:
        order: the run.
        python: from `find_shim_python`.
        run: the run's id such as `r7`.
        shim_dir: the run's `shim` folder.
        lock_path: the run's `shim.lock`; while a shim holds it, nothing is swept.
        credentials: whose the run is; None keeps soakd's own.
        fds: stay the caller's to close; `out` may be empty.

    Raises:
        HostError: a shim of the run still lives, or the sweeper could not do its work.
    """
    await _await_lock(lock_path)
    uid = os.geteuid() if credentials is None else credentials.uid
    _remove_socket(shim_dir)
    sweeper = await spawn_shim(
        python=python,
        run=run,
        nonce=secrets.token_hex(16),
        shim_dir=shim_dir,
        n=SWEEPER_N,
        credentials=credentials,
        fds=fds,
        env=_ENV,
    )
    try:
        answer = await _ask(order, shim_dir, uid, sweeper.pid)
    except (ShimLost, ShimRefused) as error:
        raise HostError("internal", f"cannot sweep after run {run}: {error}") from error
    finally:
        await sweeper.abandon()
        _remove_socket(shim_dir)
    return swept_from(answer)


def staged_programs(journal: bytes) -> tuple[tuple[int, int], ...]:
    """The programs of all nodes that the shims of a run launched, by their `shim.ndjson`.

    A torn or strange line says nothing; the newest 16 MiB are enough.
    """
    found: dict[tuple[int, int], None] = {}
    for line in journal[-MAX_JOURNAL_BYTES:].split(b"\n"):
        with suppress(protocol.FrameError):
            match protocol.decode(line) if line.startswith(b"{") else None:
                case {"event": "node_started", "program": {"dev": int(dev), "ino": int(ino)}}:
                    found[dev, ino] = None
                case _:
                    continue
    return tuple(found)


def swept_from(answer: Mapping[str, Any]) -> Swept:
    """The shim's answer, which is a user's input: what is malformed in it is left out."""
    spared = answer.get("spared")
    pairs = [
        (item["pid"], item["why"])
        for item in (spared if isinstance(spared, list) else ())
        if isinstance(item, dict)
        and isinstance(item.get("pid"), int)
        and isinstance(item.get("why"), str)
    ]
    return Swept(_pids(answer.get("killed")), tuple(pairs), _pids(answer.get("left")))


def _pids(value: object) -> tuple[int, ...]:
    return tuple(pid for pid in value if isinstance(pid, int)) if isinstance(value, list) else ()


async def _ask(order: SweepOrder, shim_dir: Path, uid: int, pid: int) -> dict[str, Any]:
    connection = await connect_shim(shim_dir, SWEEPER_N, uid, pid)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.pump)
            try:
                # Nobody reads its events: what it says stands in the answer.
                connection.events.close()
                return await connection.call(
                    "sweep",
                    timeout_s=protocol.SWEEP_S + SLACK_S,
                    nodes_root=order.nodes_root,
                    nonce=order.nonce,
                    started_ticks=order.started_ticks,
                    programs=[{"dev": dev, "ino": ino} for dev, ino in order.programs],
                )
            finally:
                nursery.cancel_scope.cancel()
    except ExceptionGroup as group:
        # The pump raises nothing of its own: the call's error is the only one.
        raise group.exceptions[0] from None
    finally:
        await connection.aclose()


async def _await_lock(path: Path) -> None:
    with trio.move_on_after(LOCK_TIMEOUT_S):
        # A flock cannot be awaited; a dying shim lets go within milliseconds.
        while not shim_lock_is_free(path):  # noqa: ASYNC110
            await trio.sleep(_POLL_S)
        return
    raise HostError("refused", "cannot sweep: a shim of the run still lives")


def _remove_socket(shim_dir: Path) -> None:
    with short_path(shim_dir) as path, suppress(FileNotFoundError):
        Path(f"{path}/{SWEEPER_N}.sock").unlink()
