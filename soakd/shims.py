"""Starts what works for a run with its submitter's uid: its shim, and the sweep after a dead one.

Both get descriptors of soakd's own records, never paths.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import trio

from soakd.edge.journal import RunFolder
from soakd.edge.peers import Account
from soakd.edge.shim_client import (
    ShimFds,
    SpawnedShim,
    SweepOrder,
    Swept,
    spawn_shim,
    staged_programs,
    sweep_run,
)
from soakd.host import Host


@dataclass(frozen=True, slots=True)
class Post:
    """Where and as whom the shims of a run work.

    Attributes:
        run: its id, such as `r7`.
        nonce: what labels the run's processes in their environment.
    """

    run: str
    folder: RunFolder
    account: Account
    nonce: str


async def spawn(host: Host, post: Post, n: int, nodes: Iterable[str]) -> SpawnedShim:
    """Spawns shim number `n`, which touches nothing before `begin`.

    Raises:
        HostError: it could not be started.
    """
    with _fds(post.folder, nodes) as fds:
        return await spawn_shim(
            python=host.shim_python,
            run=post.run,
            nonce=post.nonce,
            shim_dir=post.folder.shim_dir(),
            n=n,
            credentials=host.credentials(post.account),
            fds=fds,
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "SOAK_RUN_NONCE": post.nonce},
        )


async def sweep(host: Host, post: Post, ticks: int, root: str) -> Swept:
    """Ends by evidence what a dead shim has left behind.

    Args:
        host: the daemon's ground.
        post: the dead shim's.
        ticks: its start; nothing older is touched.
        root: where the node folders are.

    Raises:
        HostError: the sweep could not be started or did not answer.
    """
    folder = post.folder
    with _fds(folder, ()) as fds:
        # Opened above, so it is there, though perhaps empty.
        journal = await trio.to_thread.run_sync((folder.path / "shim.ndjson").read_bytes)
        return await sweep_run(
            SweepOrder(root, post.nonce, ticks, staged_programs(journal)),
            python=host.shim_python,
            run=post.run,
            shim_dir=folder.shim_dir(),
            lock_path=folder.path / "shim.lock",
            credentials=host.credentials(post.account),
            fds=fds,
        )


@contextmanager
def _fds(folder: RunFolder, nodes: Iterable[str]) -> Iterator[ShimFds]:
    with ExitStack() as files:

        def opened(name: str) -> int:
            fd = folder.open_for_child(name)
            files.callback(os.close, fd)
            return fd

        yield ShimFds(
            journal=opened("shim.ndjson"),
            lock=opened("shim.lock"),
            out={node: opened(f"logs/{node}.out") for node in nodes},
            runner_out=opened("logs/runner.out"),
        )
