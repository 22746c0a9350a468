"""soak.log, runner.log and runner.out: what the scripts' markers say."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable

from soakd.triage.lines import batches, text

RUNNER_OUT_LINES = 12
MAX_ERRORS = 20
_STOP = b"stop requested"
_RUNNER_OUT = re.compile(rb"started|stop requested|failed|error|panic|killed|terminated")
_BEGUN = re.compile(rb" round=(\d{1,15}) file=")
_START = re.compile(rb" soak-start duration_secs=(\d{1,12})")


class SoakLog:
    """What soak.log says; only soakd writes more than the line of a stop there.

    Attributes:
        stop_line: the last line with `stop requested`.
        running_at: when rounds began, `ending_at` when they ended; empty if unknown.
    """

    def __init__(self) -> None:
        self.stop_line: str | None = None
        self.running_at = ""
        self.ending_at = ""

    def read(self, pieces: Iterable[bytes]) -> None:
        """Take the whole file."""
        for lines in batches(pieces):
            for line in lines:
                if _STOP in line:
                    self.stop_line = text(line)
                elif line.endswith(b" run state running"):
                    self.running_at = self.running_at or text(line.split(b" ", 1)[0], 40)
                elif line.endswith((b" run state stopping", b" run state finished")):
                    self.ending_at = self.ending_at or text(line.split(b" ", 1)[0], 40)


def runner_out(pieces: Iterable[bytes]) -> list[str]:
    """Return the last twelve lines of runner.out that tell of an end or an error."""
    found: deque[bytes] = deque(maxlen=RUNNER_OUT_LINES)
    for lines in batches(pieces):
        found.extend(line for line in lines if _RUNNER_OUT.search(line))
    return [text(line) for line in found]


class RunnerLog:
    """What runner.log says of rounds and of the run.

    Attributes:
        begun: rounds of which the marker of their begin stands there; `last_begun` the highest.
        late: hits on a recheck.
        duration_s: how long rounds were to start; None if unknown or without end.
        deadline_reached: the run came to its end by the clock.
        errors: the first lines with `ERROR: `.
    """

    def __init__(self) -> None:
        self.begun = 0
        self.late = 0
        self.duration_s: int | None = None
        self.started_at = ""
        self.deadline_reached = False
        self.stop_seen = False
        self.errors: list[str] = []

    def read(self, pieces: Iterable[bytes]) -> None:
        """Take the whole file."""
        for lines in batches(pieces):
            for line in lines:
                self._line(line)

    def _line(self, line: bytes) -> None:
        if b" round=" in line:
            self.begun += _BEGUN.search(line) is not None
            self.late += b" miss_recheck_hit " in line
        elif (start := _START.search(line)) is not None:
            self.duration_s = int(start[1])
            self.started_at = text(line.split(b" ", 1)[0], 40)
        elif b" deadline reached" in line:
            self.deadline_reached = True
        elif b"stop requested" in line or b"stop marker detected" in line:
            self.stop_seen = True
        elif b" ERROR: " in line and len(self.errors) < MAX_ERRORS:
            self.errors.append(text(line))
