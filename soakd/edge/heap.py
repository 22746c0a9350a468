"""How the C library keeps large blocks of memory: called once, when soakd starts.

glibc gives blocks of 128 KiB and more pages of their own and hands these back when the block is
freed, but forgets that as soon as the first such block was freed: from then on blocks of its size
come from the heap. A node that sends megabytes again and again, refused each time, would so cut
soakd's heap into holes (16 MB within seconds, measured).
"""

from __future__ import annotations

import ctypes
from typing import Final

_M_MMAP_THRESHOLD: Final = -3
LARGE_BYTES: Final = 128 << 10


def return_large_blocks() -> bool:
    """Have every block of 128 KiB and more handed back when it is freed, for good.

    Returns:
        False where the C library has no such setting; there it needs none.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES))
