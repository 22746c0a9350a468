"""Trouble of nodes becomes events, sentences for `status`, and a cause for the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from trio.testing import MockClock

from soakd.core.errors import HostError, NodeError, SoakError
from soakd.core.trouble import RoundErrors
from soakd.drivers.rust_mule import DRIVER
from soakd.troubles import BURST_LINES, LINES_PER_S, Troubles
from tests.run.kit import VirtualTime

SOURCES = "/kad/sources"
LOST = (
    "2026-11-22T10:00:00.1Z  WARN rust_mule::app: kad service lost SAM socket; recreating session"
)
LOST += " and continuing error=closed"
PANIC = "thread 'kad' panicked at src/kad.rs:1:1:"


class Told:
    """Where events go, and what earlier soakds have told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str | None, dict[str, Any]]] = []
        self.stderr: list[tuple[str, str, int]] = []
        self.errors = RoundErrors()
        self.until: dict[bool, int] = {}

    def event(self, kind: str, node: str | None, data: Mapping[str, Any]) -> None:
        self.events.append((kind, node, dict(data)))

    def told_until(self, _node: str, *, panics: bool) -> int:
        return self.until.get(panics, 0)

    def on_stderr(self, node: str, line: str, at_byte: int) -> None:
        self.stderr.append((node, line, at_byte))

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _, _ in self.events]


@pytest.fixture
def told(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> Told:
    VirtualTime(autojump_clock).install(monkeypatch)
    return Told()


@pytest.fixture
def troubles(told: Told) -> Troubles:
    made = Troubles(told.event, told.on_stderr, DRIVER.words)
    made.known = told
    return made


async def test_trouble_has_a_beginning_an_end_and_a_sentence(
    told: Told, troubles: Troubles
) -> None:
    """Two events however many calls fail; `status` shows it while it lasts."""
    troubles.call_ended("b", SOURCES, None)
    for _ in range(3):
        troubles.call_ended("b", SOURCES, NodeError("api_timeout", "cannot GET x: too late"))
    [sentence] = troubles.sentences("b")
    assert sentence.startswith("node b: its API hangs since 2023-11-14T")
    assert sentence.endswith("(cannot GET x: too late)")
    assert troubles.sentences("a") == []
    troubles.call_ended("b", SOURCES, None)
    assert told.events == [
        ("api_hangs", "b", {"route": SOURCES, "text": "cannot GET x: too late"}),
        (
            "trouble_over",
            "b",
            {"kind": "api_hangs", "route": SOURCES, "calls": 3, "for_s": 0.0},
        ),
    ]
    assert troubles.sentences("b") == []


async def test_node_that_is_gone_has_no_trouble_any_more(told: Told, troubles: Troubles) -> None:
    """Its end says it all."""
    troubles.call_ended("b", SOURCES, NodeError("api_refused", "x"))
    troubles.gone("b")
    assert troubles.sentences("b") == []
    assert told.kinds == ["api_dead"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NodeError("bad_status", "cannot use it"), "api_errors"),
        (HostError("internal", "cannot look"), "host_trouble"),
    ],
)
async def test_failed_round_finds_its_trouble(
    troubles: Troubles, error: SoakError, kind: str
) -> None:
    """By what its call came to, also when other calls failed since."""
    troubles.call_ended("b", SOURCES, error)
    troubles.call_ended("b", "/status", NodeError("api_timeout", "later"))
    assert troubles.round_failed(error.message) == ("b", kind)
    assert troubles.round_failed("node b is down") == (None, None)


async def test_line_of_the_log_is_an_event_with_its_place(told: Told, troubles: Troubles) -> None:
    """Once: what an earlier soakd has told is not told again."""
    told.until = {False: 100}
    troubles.line("a", LOST, 100, is_missed=True)
    troubles.line("a", "2026-11-22T10:00:00.1Z  INFO x: all is well", 150, is_missed=False)
    troubles.line("a", LOST, 200, is_missed=False)
    assert told.events == [("sam_session_lost", "a", {"line": LOST, "at_byte": 200})]
    assert all(troubles.may_matter(text.encode()) for text in (LOST, PANIC))
    assert not troubles.may_matter(b"all is well")


async def test_node_that_prints_trouble_without_end_does_not_fill_the_disk(
    told: Told, troubles: Troubles, autojump_clock: MockClock
) -> None:
    """A few at once, some more as time goes on, and how many there were between."""
    for at_byte in range(1, 1001):
        troubles.line("a", LOST, at_byte, is_missed=False)
    assert len(told.events) == BURST_LINES
    troubles.line("b", LOST, 1, is_missed=False)
    autojump_clock.jump(1.01 / LINES_PER_S)
    troubles.line("a", LOST, 2000, is_missed=False)
    troubles.line("a", LOST, 2001, is_missed=False)
    assert [node for _, node, _ in told.events[BURST_LINES:]] == ["b", "a"]
    facts = {"line": LOST, "at_byte": 2000, "untold": 1000 - BURST_LINES}
    assert told.events[-1] == ("sam_session_lost", "a", facts)


async def test_panic_is_taken_from_the_file_only_if_nobody_heard_it(
    told: Told, troubles: Troubles
) -> None:
    """The shim tells of stderr as it comes; the file fills the time without soakd."""
    told.until = {True: 50}
    troubles.line("a", PANIC, 50, is_missed=True)
    troubles.line("a", PANIC, 90, is_missed=True)
    troubles.line("a", PANIC, 120, is_missed=False)
    assert told.stderr == [("a", PANIC, 90)]


async def test_what_was_not_read_is_said(told: Told, troubles: Troubles) -> None:
    """A flood hides lines; that it may have done so must not be hidden."""
    troubles.skipped("a", 10, 20)
    assert told.events == [("output_not_read", "a", {"from_byte": 10, "to_byte": 20})]
