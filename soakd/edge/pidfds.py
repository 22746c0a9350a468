"""Waiting for the end of a process that is nobody's child here, without polling."""

from __future__ import annotations

import os

import trio


async def wait_for_end(pid: int) -> None:
    """Waits until the process that has this pid now is gone; returns at once if there is none.

    A zombie counts as gone: it holds no port and no file.
    """
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(fd)
    finally:
        os.close(fd)
