"""What one process of the host uses, read from ``/proc`` at 10 microseconds a sample.

No psutil here: its `oneshot` costs five times as much for these few numbers.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Sample:
    """Resources of one process at one moment.

    `cpu_s` is user and system time since its start, children excluded; `fds` is None where soakd
    may not look.
    """

    rss_bytes: int
    cpu_s: float
    threads: int
    fds: int | None

    def to_dict(self) -> dict[str, float | int | None]:
        """As it stands in ``resources.ndjson``."""
        return asdict(self)


def sample(pid: int, ticks: int) -> Sample | None:
    """Sample process `pid`, which started `ticks` after boot; None when that process is gone.

    A zombie, and another process that got the pid, count as gone.
    """
    folder = Path("/proc") / str(pid)
    try:
        # The name in brackets may itself hold blanks and brackets.
        fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if int(fields[19]) != ticks or fields[0] in b"ZXx":
        return None
    return Sample(
        rss_bytes=int(fields[21]) * _PAGE_BYTES,
        cpu_s=round((int(fields[11]) + int(fields[12])) * _TICK_S, 2),
        threads=int(fields[17]),
        fds=_count_fds(folder / "fd"),
    )


def _count_fds(folder: Path) -> int | None:
    try:
        # The size is the count since Linux 6.2, needs no right to look inside, and is 0 before.
        return folder.stat().st_size or sum(1 for _ in folder.iterdir())
    except OSError:
        return None
