"""Free space: what the file system says to others than root."""

from __future__ import annotations

import shutil
from pathlib import Path

from soakd.edge.disk import free_bytes


def test_free_space_is_what_a_writer_would_find(tmp_path: Path) -> None:
    """As the standard library has it, give or take what others write meanwhile."""
    assert abs(free_bytes(tmp_path) - shutil.disk_usage(tmp_path).free) < 1 << 30
