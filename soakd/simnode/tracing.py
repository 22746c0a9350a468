"""Log lines in the shape of the real program: stdout with colours, the file without.

Every line is one write, so that a reader sees whole lines. An undrained stdout pipe blocks the
node, as the real one is blocked.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping

from soakd.simnode.clock import wall
from soakd.simnode.fatal import quoted

TRACE, DEBUG, INFO, WARN, ERROR, OFF = range(6)
_LEVELS = {"trace": TRACE, "debug": DEBUG, "info": INFO, "warn": WARN, "error": ERROR, "off": OFF}
_NAMES = ["TRACE", "DEBUG", " INFO", " WARN", "ERROR"]
_COLOURS = ["35", "34", "32", "33", "31"]
_KEEP_DAYS = 30


def level_of(text: str | None, fallback: str, last: int) -> int:
    """Return the level that a filter gives to our own targets.

    Args:
        text: filter from the environment; None or blank = not set.
        fallback: filter from the configuration.
        last: the level of an invalid filter.
    """
    bare: int | None = None
    own: int | None = None
    for part in (text or "").strip().split(",") if (text or "").strip() else fallback.split(","):
        name, sign, level = part.strip().lower().partition("=")
        if not sign and name in _LEVELS:
            bare = _LEVELS[name]
        elif sign and level in _LEVELS and name.split("::")[0] == "rust_mule":
            own = _LEVELS[level]
        elif not (sign and level in _LEVELS):
            return last
    if own is not None:
        return own
    return ERROR if bare is None else bare


class LogFile:
    """`<stem>.YYYY-MM-DD.<ext>` in a folder: one file per UTC day, appended, old ones deleted."""

    def __init__(self, folder: str, name: str) -> None:
        stem, dot, extension = name.rpartition(".")
        self._folder = folder
        self._stem = stem if dot else name
        self._extension = f".{extension}" if dot else ""
        self._day = ""
        self._fd = -1
        os.makedirs(folder, exist_ok=True)
        self._delete_old()

    def write(self, day: str, line: bytes) -> None:
        """Append a line to the file of this day (YYYY-MM-DD)."""
        if day != self._day:
            if self._fd >= 0:
                os.close(self._fd)
            path = os.path.join(self._folder, f"{self._stem}.{day}{self._extension}")
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self._day = day
        with contextlib.suppress(OSError):  # a full disk does not stop the real node either
            os.write(self._fd, line)

    def _delete_old(self) -> None:
        oldest = time.strftime("%Y-%m-%d", time.gmtime(wall() - _KEEP_DAYS * 86400))
        first, last = f"{self._stem}.", self._extension
        for name in os.listdir(self._folder):
            day = name[len(first) : len(name) - len(last)]
            dated = name == f"{first}{day}{last}" and len(day) == 10 and day.count("-") == 2
            if dated and day < oldest:
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(self._folder, name))


class Tracing:
    """Writes events to stdout and to the file, each with its own level."""

    def __init__(
        self, *, stdout_level: int, file_level: int, colour: bool, file: LogFile | None
    ) -> None:
        self._stdout_level = stdout_level
        self._file_level = file_level if file is not None else OFF
        self._lowest = min(stdout_level, self._file_level)
        self._colour = colour
        self._file = file
        self._second = 0
        self._prefix = ""

    def debug(self, target: str, message: str, /, **fields: object) -> None:
        """Log at DEBUG; `target` is the module path below `rust_mule`."""
        if self._lowest <= DEBUG:
            self._write(DEBUG, target, message, fields)

    def info(self, target: str, message: str, /, **fields: object) -> None:
        """Log at INFO."""
        if self._lowest <= INFO:
            self._write(INFO, target, message, fields)

    def warn(self, target: str, message: str, /, **fields: object) -> None:
        """Log at WARN."""
        self._write(WARN, target, message, fields)

    def error(self, target: str, message: str, /, **fields: object) -> None:
        """Log at ERROR."""
        self._write(ERROR, target, message, fields)

    def raw(self, text: str) -> None:
        """Write a line to stdout whatever the level."""
        _to_stdout(f"{text}\n".encode())

    def _write(self, level: int, target: str, message: str, fields: Mapping[str, object]) -> None:
        moment = wall()
        second = int(moment)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        stamp = f"{self._prefix}{int((moment - second) * 1e6):06d}Z"
        module = f"rust_mule::{target}" if target else "rust_mule"
        plain = f"{stamp} {_NAMES[level]} {module}: {message}"
        tail = "".join([f" {key}={_shown(value)}" for key, value in fields.items()])
        if level >= self._file_level and self._file is not None:
            self._file.write(stamp[:10], f"{plain}{tail}\n".encode())
        if level < self._stdout_level:
            return
        if not self._colour:
            _to_stdout(f"{plain}{tail}\n".encode())
            return
        tail = "".join(
            [f" \x1b[3m{key}\x1b[0m\x1b[2m=\x1b[0m{_shown(value)}" for key, value in fields.items()]
        )
        _to_stdout(
            f"\x1b[2m{stamp}\x1b[0m \x1b[{_COLOURS[level]}m{_NAMES[level]}\x1b[0m "
            f"\x1b[2m{module}\x1b[0m\x1b[2m:\x1b[0m {message}{tail}\n".encode()
        )


def _to_stdout(line: bytes) -> None:
    with contextlib.suppress(OSError):  # a closed stdout does not stop the real node either
        os.write(1, line)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    # A field with `=` in its key or a display value is given as Shown.
    if isinstance(value, Shown):
        return value
    return quoted(value) if isinstance(value, str) else str(value)


class Shown(str):
    """A string that is logged without quotes (Rust's display form)."""

    __slots__ = ()


def short_id(id_hex: str) -> str:
    """Shorten an id to its first and last eight digits, as most events do."""
    return f"{id_hex[:8]}..{id_hex[-8:]}"
