"""The shim's life: harden, announce, wait for begin, hold the nodes, end.

One thread, one selector. Whatever goes wrong in here must not kill the process that holds the
nodes: a verb that fails in an unforeseen way is answered, a loop that does begins the ladder.
"""

from __future__ import annotations

import fcntl
import os
import sys
import traceback

from soakd.shim import protocol, system
from soakd.shim.loop import Shim
from soakd.shim.spec import parse


def harden(lock: int) -> None:
    """Give up what nodes must not have, before anything else is done.

    Raises:
        OSError: the kernel refused, or another shim holds the lock.
    """
    system.lift_oom_score()
    system.prctl(system.PR_SET_NO_NEW_PRIVS, 1)
    system.prctl(system.PR_SET_CHILD_SUBREAPER, 1)
    # Without this a node, having our uid, could take our descriptors by pidfd_getfd.
    system.prctl(system.PR_SET_DUMPABLE, 0)
    os.umask(0o077)
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2:
            try:
                os.set_inheritable(fd, False)
            except OSError:
                # The descriptor of the listing itself is gone by now.
                continue
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def announce() -> None:
    """Tell soakd who we are, then let go of its pipe."""
    ready = {"pid": os.getpid(), "ticks": system.start_ticks("self"), "protocol": protocol.PROTOCOL}
    os.write(1, protocol.encode(ready))
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 1)
    os.close(null)


def main(argv: list[str]) -> int:
    """Run the shim; the exit status."""
    try:
        spec = parse(argv[1])
        harden(spec.lock)
        shim = Shim(spec)
        announce()
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        traceback.print_exc()
        return 1
    return shim.serve()


if __name__ == "__main__":
    sys.exit(main(sys.argv))
