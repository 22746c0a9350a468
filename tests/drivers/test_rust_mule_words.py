"""The driver's ear: what a node's lines mean."""

from __future__ import annotations

import time

import pytest

from soakd.drivers.rust_mule_words import (
    FAILURES,
    LOG_TROUBLE,
    MARKS,
    explain_failure,
    is_fatal,
    is_panic,
    log_trouble,
)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Error: App(SingleInstance(AlreadyRunning(..)))", "holds its lock"),
        ('Error: App(Sam(Io { op: "connect 127.0.0.1:7656"', "SAM bridge cannot be reached"),
        ("Error: LoadConfig(ParseToml(..", "not valid TOML"),
        ("Error: SomethingNew", None),
        ("all is well", None),
    ],
)
def test_failed_start_is_explained(line: str, words: str | None) -> None:
    """The one stderr line of the node, in words that help."""
    meaning = explain_failure(line)
    assert meaning is None if words is None else words in (meaning or "")


def test_every_known_failure_is_a_fatal_line() -> None:
    """What can be explained is also noticed."""
    assert all(is_fatal(prefix) for prefix, _ in FAILURES)
    assert not is_fatal("WARN Error: x")


def test_only_a_panic_of_the_main_thread_ends_the_process() -> None:
    """One of another thread is no explanation of a later end."""
    assert is_fatal("thread 'main' panicked at src/main.rs:1:2:")
    assert is_fatal("thread 'main' (4711) panicked at src/main.rs:1:2:")
    assert not is_fatal("thread 'kad' panicked at src/kad.rs:1:2:")


def test_panics_are_told_from_talk_about_panics() -> None:
    """With and without the thread id of newer Rust."""
    assert is_panic("thread 'main' panicked at src/main.rs:1:2:")
    assert is_panic("thread 'kad' (4711) panicked at src/kad.rs:1:2:")
    assert not is_panic("the main thread panicked at nothing")


def test_long_lines_are_searched_in_no_time() -> None:
    """stderr is the node's: 64 KiB made to be slow must not hold the daemon up."""
    line = "thread '" * 8000
    begun = time.perf_counter()
    assert not is_panic(line)
    assert time.perf_counter() - begun < 0.1


@pytest.mark.parametrize(("message", "kind"), LOG_TROUBLE)
@pytest.mark.parametrize(
    "head",
    [
        "2026-11-22T10:00:00.123456Z  WARN rust_mule::app: ",
        "2026-11-22T10:00:00.123456Z ERROR rust_mule::kad::service: ",
        "\x1b[2m2026-11-22T10:00:00.123456Z\x1b[0m \x1b[33m WARN\x1b[0m \x1b[2mapi\x1b[0m: ",
    ],
)
def test_trouble_in_the_log_is_recognised(head: str, message: str, kind: str) -> None:
    """By level and the beginning of the message, coloured or not."""
    line = f"{head}{message} error=x"
    assert log_trouble(line) == kind
    assert any(mark in line.encode() for mark in MARKS)


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-22T10:00:00.123456Z  INFO app: api server stopped",
        '2026-11-22T10:00:00.123456Z  WARN app: heard "api server stopped"',
        "api server stopped",
        "",
        "Z" * 100_000,
    ],
)
def test_talk_about_trouble_is_none(line: str) -> None:
    """Another level, a quotation, a bare text, a long line."""
    assert log_trouble(line) is None
