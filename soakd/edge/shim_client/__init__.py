"""soakd's side of the shim: find a Python for it, start it, talk to it.

Decides nothing about a run. Every byte that a shim sends is a user's input: frames are bounded by
`soakd.shim.protocol`, identities come from the kernel (SO_PEERCRED, /proc), never from what the
shim says of itself.
"""

from __future__ import annotations

from soakd.edge.shim_client.connection import (
    ShimConnection,
    ShimLost,
    ShimRefused,
    connect_shim,
)
from soakd.edge.shim_client.identity import ShimIdentity, process_ticks, shim_lock_is_free
from soakd.edge.shim_client.last_words import LastWords, NodeEnd, last_words, read_last_words
from soakd.edge.shim_client.python import build_zip, find_shim_python, shim_zip
from soakd.edge.shim_client.spawn import Credentials, ShimFds, SpawnedShim, spawn_shim
from soakd.edge.shim_client.sweep import SweepOrder, Swept, staged_programs, sweep_run
from soakd.shim.protocol import RUN_ROOT_MARKER, RUNGS

__all__ = [
    "RUNGS",
    "RUN_ROOT_MARKER",
    "Credentials",
    "LastWords",
    "NodeEnd",
    "ShimConnection",
    "ShimFds",
    "ShimIdentity",
    "ShimLost",
    "ShimRefused",
    "SpawnedShim",
    "SweepOrder",
    "Swept",
    "build_zip",
    "connect_shim",
    "find_shim_python",
    "last_words",
    "process_ticks",
    "read_last_words",
    "shim_lock_is_free",
    "shim_zip",
    "spawn_shim",
    "staged_programs",
    "sweep_run",
]
