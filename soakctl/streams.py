"""stdout and stderr as they may be: closed, full, or left by their readers.

What cannot be told on stderr is lost without a word; a result that cannot be written to stdout is a
failure, which `soakctl.main` tells.
"""

from __future__ import annotations

import os
import sys


def stand_in() -> None:
    """Puts the null device where a standard stream was closed.

    Without it `print` would send notes to stdout for want of a stderr, and the connection to soakd
    would get the number of the stream.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest free number, and so that of the stream.
            null = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(null, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - until the end


def tell(text: str) -> None:
    """Prints on stderr what is not the result."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        # Nobody hears it, which changes nothing of what was done and of the exit status.
        _forget(2)


def leave_stdout() -> None:
    """Sees to it that the interpreter does not write to a broken stdout once more at its end."""
    _forget(sys.stdout.fileno())


def _forget(number: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)
