"""Ports for a test's servers: free ones, and none that a test in another worker may choose."""

from __future__ import annotations

import itertools
import os
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

# Below the range from which the kernel takes ports for outgoing connections, and below the demo's.
_ALL = range(10_000, 19_900)


def _deal() -> Iterator[int]:
    """This worker's part of them, shuffled: none is chosen twice before it is in use."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    # A worker that replaces a crashed one has a number beyond the count.
    place = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % workers
    share = len(_ALL) // workers
    own = _ALL[place * share : (place + 1) * share]
    return itertools.cycle(random.SystemRandom().sample(own, share))


_PORTS = _deal()


def free_ports(count: int) -> list[int]:
    """TCP ports that are free on both loopback addresses."""
    return list(itertools.islice(filter(is_free, _PORTS), count))


def is_free(port: int) -> bool:
    """Whether a node could listen on the port."""
    try:
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
                probe.listen(1)
    except OSError:
        return False
    return True


def free_udp_range(count: int) -> int:
    """The first of so many free UDP ports in a row."""
    for first in _PORTS:
        with suppress(OSError), ExitStack() as stack:
            for port in range(first, first + count):
                sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                sock.bind(("127.0.0.1", port))
            return first
    raise AssertionError("ports are dealt without end")
