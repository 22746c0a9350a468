"""Structured logging of the daemon: one place that sets it up, one way to get a logger.

Events are short constants ("node_ready"), data are fields; `run_id`, `node` and `peer_uid` are
bound once per task (`bind`), which follows trio tasks. Rounds and status never come here: they are
records. One JSON line per event: values from users and nodes cannot forge a line or a terminal
sequence.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, BinaryIO, Protocol


@contextmanager
def _without(package: str) -> Iterator[None]:
    """Let an import believe that a package is not installed."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # the import system's own word for it
    try:
        yield
    finally:
        del sys.modules[package]


# structlog takes rich, soakctl's, for coloured tracebacks that nobody gets here: a fifth of the
# time in which soakd starts, and megabytes.
with _without("rich"):
    import structlog

_MAX_VALUE_CHARS = 2048


class Logger(Protocol):
    """What callers use of a structlog logger."""

    def debug(self, event: str, **fields: object) -> object:
        """Say something only a developer wants to know."""

    def info(self, event: str, **fields: object) -> object:
        """Say what happened."""

    def warning(self, event: str, **fields: object) -> object:
        """Say what an admin should look at some day."""

    def error(self, event: str, **fields: object) -> object:
        """Say what went wrong."""

    def exception(self, event: str, **fields: object) -> object:
        """Say what went wrong, with the traceback of the exception being handled."""


def configure(*, stream: BinaryIO | None = None, level: int = logging.INFO) -> None:
    """Set logging up for this process; called once, by the daemon's entry.

    Args:
        stream: unbuffered or line-flushed binary file; default is stderr. A pipe that nobody reads
            would block the event loop, so a daemon in the background logs to a file.
        level: the lowest `logging` level that is written.
    """
    target = stream if stream is not None else sys.stderr.buffer
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _cut_texts,
            structlog.processors.JSONRenderer(serializer=_dump),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(file=target),
        cache_logger_on_first_use=True,
    )
    # Libraries (trio's accept loop out of descriptors) speak through stdlib logging.
    logging.basicConfig(level=logging.WARNING, handlers=[_Forward()], force=True)


def get_logger() -> Logger:
    """Return a logger; cheap, usable at import time, set up on first use."""
    logger: Logger = structlog.get_logger()
    return logger


def bind(**fields: object) -> AbstractContextManager[None]:
    """Bind fields to what this task, and tasks it starts, log inside the `with` block."""
    return structlog.contextvars.bound_contextvars(**fields)


class _Forward(logging.Handler):
    """Carries stdlib records over, so that the log has one format."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        log: Any = structlog.get_logger()
        log.log(
            record.levelno,
            "library",
            logger=record.name,
            text=record.getMessage(),
            exc_info=record.exc_info,
        )


def _cut_texts(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Cut long texts: their length is often chosen by a user."""
    for key, value in event.items():
        if isinstance(value, str) and len(value) > _MAX_VALUE_CHARS and key != "exception":
            event[key] = value[:_MAX_VALUE_CHARS] + f"… ({len(value)} characters)"
    return event


def _dump(event: object, **_options: object) -> bytes:
    # ensure_ascii also escapes C1 control characters and lone surrogates.
    return json.dumps(event, default=repr, ensure_ascii=True).encode("ascii")
