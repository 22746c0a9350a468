"""Counts how often each value occurs, exactly, in bounded memory.

The number of different values is not bounded: one file id per round, for months. Beyond a number
of them they are put aside on disk, in buckets by hash, and each bucket is counted by itself.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from heapq import nsmallest
from typing import IO

MAX_VALUES = 50_000
"""Different values held in memory; with 32 characters each about 8 MB."""
_BUCKETS = 64
_MAX_VALUE_BYTES = 256


class Tally:
    """The number of occurrences of each value; a value longer than 256 bytes is cut there."""

    def __init__(self, max_values: int = MAX_VALUES) -> None:
        self._max_values = max_values
        self._counts: Counter[bytes] = Counter()
        self._buckets: list[IO[bytes]] = []

    def add(self, values: Iterable[bytes]) -> None:
        """Count some values."""
        self._counts.update(values)
        if len(self._counts) > self._max_values:
            self._put_aside()

    def close(self) -> None:
        """Forget everything, on disk too."""
        for bucket in self._buckets:
            bucket.close()
        self._buckets = []

    def distinct(self) -> int:
        """Return the number of different values."""
        return sum(map(len, self._parts()))

    def top(self, count: int) -> list[tuple[bytes, int]]:
        """Return the most frequent values, of equally frequent ones the smallest first."""
        best: list[tuple[bytes, int]] = []
        for part in self._parts():
            best = nsmallest(count, [*best, *part.items()], key=lambda item: (-item[1], item[0]))
        return best

    def _put_aside(self) -> None:
        if not self._buckets:
            # Hardly ever needed, and it takes ten milliseconds to load.
            import tempfile  # noqa: PLC0415

            self._buckets = [tempfile.TemporaryFile() for _ in range(_BUCKETS)]  # noqa: SIM115
        for value, count in self._counts.items():
            cut = value[:_MAX_VALUE_BYTES].replace(b"\n", b" ")
            self._buckets[zlib.crc32(cut) % _BUCKETS].write(b"%d %b\n" % (count, cut))
        self._counts.clear()

    def _parts(self) -> Iterator[Counter[bytes]]:
        """The counts in parts that share no value."""
        if not self._buckets:
            yield self._counts
            return
        self._put_aside()
        for bucket in self._buckets:
            bucket.seek(0)
            part: Counter[bytes] = Counter()
            for line in bucket:
                count, _, value = line[:-1].partition(b" ")
                part[value] += int(count)
            yield part
