"""The log: one line of JSON per event, whatever is in it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from soakd import log


@pytest.fixture
def stream() -> Iterator[io.BytesIO]:
    """Set logging up on memory, and back to nothing afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    output = io.BytesIO()
    log.configure(stream=output)
    yield output
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.BytesIO) -> list[dict[str, Any]]:
    """Return what was logged."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_with_time_level_and_fields(stream: io.BytesIO) -> None:
    """Fields bound around it are in it."""
    with log.bind(run_id=7):
        log.get_logger().info("node_ready", node="a")
    log.get_logger().debug("too_fine")
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "node_ready", "level": "info", "node": "a", "run_id": 7}


def test_values_cannot_forge_lines_or_move_the_terminal(stream: io.BytesIO) -> None:
    """Users and nodes choose texts; the file stays ASCII, one line each."""
    log.get_logger().warning("x", text='\n{"event":"forged"}\x1b[2J\x9b\udcff', other=object())
    assert stream.getvalue().count(b"\n") == 1
    assert all(32 <= byte < 127 for byte in stream.getvalue()[:-1])


def test_long_texts_are_cut(stream: io.BytesIO) -> None:
    """Their length is often a user's choice."""
    log.get_logger().info("x", text="y" * 10_000)
    assert lines(stream)[0]["text"] == "y" * 2048 + "… (10000 characters)"


def test_tracebacks_are_a_field(stream: io.BytesIO) -> None:
    """A failing request shows where, in the same line."""
    try:
        raise KeyError("lost")
    except KeyError:
        log.get_logger().exception("request_failed")
    assert "KeyError: 'lost'" in lines(stream)[0]["exception"]


def test_libraries_log_in_the_same_form(stream: io.BytesIO) -> None:
    """Trio tells of a full descriptor table through stdlib logging."""
    logging.getLogger("trio.serve_listeners").error("accept failed: %s", "EMFILE")
    line = lines(stream)[0]
    assert (line["event"], line["logger"], line["text"]) == (
        "library",
        "trio.serve_listeners",
        "accept failed: EMFILE",
    )
