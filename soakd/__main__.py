"""`soakd`, as a script and as `python -m soakd`: loads the program and runs it."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """Entry point; returns the exit status."""
    # Loading leaves no garbage worth a look, and the looks take an eighth of soakd's start.
    gc.disable()
    from soakd.command_line import main as run  # noqa: PLC0415

    gc.enable()
    return run()


if __name__ == "__main__":
    sys.exit(main())
