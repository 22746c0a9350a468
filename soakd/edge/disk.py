"""Free disk space, as an unprivileged writer would find it."""

from __future__ import annotations

import os
from pathlib import Path


def free_bytes(folder: Path) -> int:
    """Bytes that can still be written below a folder of ours."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
