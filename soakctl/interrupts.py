"""Ctrl-C, SIGTERM and SIGHUP that arrive only where they may.

`demo` owns processes and a folder: an exception between making one and noting it would leak it, and
so would a second Ctrl-C during the clean-up. So signals are only noted, except inside `allowed()`.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """While entered, signals raise KeyboardInterrupt inside `allowed()`, once; elsewhere they wait.

    After one came they are ignored for good, since the command only has to end.

    Attributes:
        first: the first signal that came, None as long as none did.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self._open = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {
            number: signal.signal(number, self._note)
            for number in _SIGNALS
            # nohup has asked for it
            if not (number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN)
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            # An impatient finger: the first one was answered, and the command is about to end.
            signal.signal(number, handler if self.first is None else signal.SIG_IGN)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Lets a signal interrupt the block; one that came before interrupts at once.

        Raises:
            KeyboardInterrupt: a signal came.
        """
        self._open = True
        try:
            if self.first is not None:
                raise KeyboardInterrupt
            yield
        finally:
            self._open = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.first = self.first or number
        if self._open:
            self._open = False
            raise KeyboardInterrupt
