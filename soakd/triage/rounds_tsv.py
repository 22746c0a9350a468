"""rounds.tsv: the numbers of the old triage, and what a script's rounds say about outcomes.

A success is a row whose sixth field contains `"sources":[{`, whoever wrote the row. All numbers
of the old triage are over lines.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from soakd.core.estimates import LagOne, Streak
from soakd.core.series import epoch_of
from soakd.triage.lines import batches, text
from soakd.triage.tally import Tally

RECENT = 300
TOP = 10
MIN_PAUSE_S = 300
"""Shorter intervals are rounds."""
MAX_PAUSES = 200
_SUCCESS = b'"sources":[{'
_EMPTY = b'"sources":[]'
_SOURCE_ID = b'"source_id_hex":"'
_COLUMNS = 6
_MAX_INTERVALS = 100_000
_TWO_DIGITS = {b"%02d" % number: number for number in range(60)}

Hear = Callable[[str, str], None]
"""Takes the outcome of a row and its time: `hit`, `miss` or `error`."""


class RoundsTsv:
    """What stands in one rounds.tsv.

    Attributes:
        misses: rows with a valid answer without sources.
        errors: rows without a valid answer.
        hits: successes and misses in their order.
        miss_streak: of misses; errors neither end nor lengthen it.
        intervals: whole seconds between the times of neighbouring rows, with their number.
        pauses: the longest of them: seconds, time before, time after.
    """

    def __init__(self, hear: Hear | None = None) -> None:
        self.rows = 0
        self.successes = 0
        self.first: tuple[int, bytes, bytes] | None = None
        self.last: tuple[int, bytes, bytes] | None = None
        self.longest_failures = 0
        self.misses = 0
        self.errors = 0
        self.hits = LagOne()
        self.miss_streak = Streak()
        self.first_epoch: float | None = None
        self.last_epoch = 0.0
        self.intervals: Counter[int] = Counter()
        self.pauses: list[tuple[int, str, str]] = []
        self._failures = 0
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._files = Tally()
        self._sources = Tally()
        self._hear = hear
        self._clock = _Clock()
        self._first_time = b""
        self._time = b""

    def read(self, pieces: Iterable[bytes]) -> None:
        """Take the whole file."""
        for lines in batches(pieces):
            files: list[bytes] = []
            sources: list[bytes] = []
            for line in lines:
                self._row(line.split(b"\t", _COLUMNS), files, sources)
            self._files.add(files)
            self._sources.add(sources)

    def _row(self, fields: list[bytes], files: list[bytes], sources: list[bytes]) -> None:
        self.rows += 1
        final = fields[5] if len(fields) >= _COLUMNS else b""
        is_success = _SUCCESS in final
        self._recent.append(is_success)
        if fields[0] != self._time:
            self._take_time(fields[0])
        if is_success:
            self.successes += 1
            self._failures = 0
            self.hits.add(True)
            self.miss_streak.add(False)
            self.last = (self.rows, fields[1], fields[0])
            self.first = self.first or self.last
            files.append(fields[2])
            at = final.find(_SOURCE_ID)
            if at >= 0:
                begin = at + len(_SOURCE_ID)
                sources.append(final[begin : final.find(b'"', begin)])
        else:
            self._failure(is_miss=_EMPTY in final)
        if self._hear is not None:
            outcome = "hit" if is_success else "miss" if _EMPTY in final else "error"
            self._hear(outcome, text(fields[0], 40))

    def _failure(self, *, is_miss: bool) -> None:
        self._failures += 1
        self.longest_failures = max(self.longest_failures, self._failures)
        if is_miss:
            self.misses += 1
            self.hits.add(False)
            self.miss_streak.add(True)
        else:
            self.errors += 1

    def _take_time(self, time: bytes) -> None:
        """Keep the intervals between rows: where they are long, nobody measured."""
        epoch = self._clock.epoch_of(time)
        if epoch is None:
            return
        if self.first_epoch is None:
            self.first_epoch, self._first_time = epoch, time
        else:
            seconds = int(epoch - self.last_epoch)
            if len(self.intervals) < _MAX_INTERVALS:
                self.intervals[seconds] += 1
            if seconds >= MIN_PAUSE_S:
                pause = (seconds, text(self._time, 40), text(time, 40))
                self.pauses = sorted([*self.pauses, pause])[-MAX_PAUSES:]
        self.last_epoch, self._time = epoch, time

    def old_numbers(self) -> dict[str, Any]:
        """Return what the old triage said of this file; successes in percent of all rows."""
        return {
            "total": self.rows,
            "successes": self.successes,
            "success_percent": 100 * self.successes / self.rows if self.rows else None,
            "first_success": _place(self.first),
            "last_success": _place(self.last),
            "longest_failure_streak": self.longest_failures,
            "recent_rows": len(self._recent),
            "recent_successes": sum(self._recent),
            "unique_files": self._files.distinct(),
            "top_sources": [
                {"source_id": text(name, 64), "rows": rows} for name, rows in self._sources.top(TOP)
            ],
        }

    @property
    def span(self) -> tuple[str, str]:
        """The times of the first and the last row that have one; empty if none has."""
        return text(self._first_time, 40), text(self._time, 40)

    def close(self) -> None:
        """Give back what was put aside on disk."""
        self._files.close()
        self._sources.close()


class _Clock:
    """Reads the scripts' times; those of one hour differ in four digits."""

    def __init__(self) -> None:
        self._hour = b""
        self._zone = b""
        self._epoch: float | None = None

    def epoch_of(self, time: bytes) -> float | None:
        """Return seconds since 1970, None if it is no time."""
        hour, zone = time[:13], time[19:]
        if hour != self._hour or zone != self._zone:
            self._hour, self._zone = hour, zone
            self._epoch = epoch_of(text(hour + b":00:00" + zone, 40))
        minute, second = _TWO_DIGITS.get(time[14:16]), _TWO_DIGITS.get(time[17:19])
        if self._epoch is None or minute is None or second is None or time[13:17:3] != b"::":
            return epoch_of(text(time, 40))
        return self._epoch + minute * 60 + second


def _place(row: tuple[int, bytes, bytes] | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {"line": row[0], "round": text(row[1], 20), "at": text(row[2], 40)}
