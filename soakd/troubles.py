"""What is wrong with the nodes of a live run: told by their calls, and by what they print.

Every trouble becomes an event with its evidence; what failed rounds failed of is counted for the
verdict's sentence. Decides nothing about the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from soakd.core import trouble
from soakd.core.errors import SoakError
from soakd.drivers.driver import Words
from soakd.edge.clock import boot_now, rfc3339, wall_now
from soakd.log_watch import matcher

MAX_LINE_CHARS = 500
MAX_TEXT_CHARS = 300
BURST_LINES = 50
LINES_PER_S = 0.1
"""A node that prints the same trouble without end must not fill the disk with events of it."""

Tell = Callable[[str, str | None, Mapping[str, Any]], None]
"""Takes the kind of an event, the node, and its data."""


class Known(Protocol):
    """What earlier soakds have told of the run's nodes."""

    errors: trouble.RoundErrors

    def told_until(self, node: str, *, panics: bool) -> int:
        """Up to which byte of its output the lines of a node are told."""


class _Allowance:
    """How often a node's lines of one kind are told."""

    def __init__(self) -> None:
        self._lines = float(BURST_LINES)
        self._refilled_s = boot_now()
        self._untold = 0

    def take(self) -> dict[str, int] | None:
        """Uses up one line: what to add to its event, None if it is not told."""
        now_s = boot_now()
        gain = (now_s - self._refilled_s) * LINES_PER_S
        self._lines, self._refilled_s = min(float(BURST_LINES), self._lines + gain), now_s
        if self._lines < 1:
            self._untold += 1
            return None
        self._lines -= 1
        untold, self._untold = self._untold, 0
        return {"untold": untold} if untold else {}


class Troubles:
    """The troubles of one run; satisfies `log_watch.Reader`."""

    def __init__(
        self, tell: Tell, on_stderr: Callable[[str, str, int], None], words: Words
    ) -> None:
        """Knows nothing yet; `known` must be set before anything is heard.

        Args:
            tell: takes events.
            on_stderr: takes a line of stderr that was missed, with the byte where it ends.
            words: what the lines of these nodes mean.
        """
        self.known: Known | None = None
        self.may_matter = matcher(words.marks)
        self._log_trouble = words.log_trouble
        self._tell = tell
        self._on_stderr = on_stderr
        self._open: dict[str, trouble.Troubles] = {}
        self._failures: dict[tuple[str, str], tuple[str, trouble.Kind]] = {}
        self._allowed: dict[tuple[str, str], _Allowance] = {}

    # -- calls ---------------------------------------------------------------------------------

    def call_ended(self, node: str, route: str, error: SoakError | None) -> None:
        """Takes what a call to a ready node came to."""
        open_now = self._open.get(node, ())
        if error is None:
            if not open_now:
                return
            change = trouble.answered(open_now, route)
        else:
            text = error.message[:MAX_TEXT_CHARS]
            self._failures[node, route] = (error.message, trouble.kind_of(error.code))
            change = trouble.failed(open_now, route, error.code, text, boot_now())
        self._open[node] = change.troubles
        for episode in change.over:
            for_s = round(boot_now() - episode.since_s, 3)
            facts = {"kind": episode.kind, "route": episode.route, "calls": episode.calls}
            self._tell("trouble_over", node, facts | {"for_s": for_s})
        if change.begun is not None:
            begun = change.begun
            self._tell(begun.kind, node, {"route": begun.route, "text": begun.text})

    def round_failed(self, text: str) -> tuple[str | None, trouble.Kind | None]:
        """Node and kind of the trouble that made a round an error of this text; None: unknown."""
        for (node, _route), (message, kind) in self._failures.items():
            if message == text:
                return node, kind
        return None, None

    def sentences(self, node: str) -> list[str]:
        """The open troubles of a node, for `status`."""
        offset_s = wall_now() - boot_now()
        return [
            trouble.sentence(node, episode, rfc3339(offset_s + episode.since_s))
            for episode in self._open.get(node, ())
        ]

    def gone(self, node: str) -> None:
        """The node's process has ended: what was wrong with its API is over with it."""
        self._open.pop(node, None)

    # -- what nodes print ----------------------------------------------------------------------

    def line(self, node: str, text: str, at_byte: int, *, is_missed: bool) -> None:
        """Takes a line of a node's output; of stderr only what nobody was there to hear."""
        assert self.known is not None, "a line was read before the records were opened"
        kind = self._log_trouble(text)
        if kind is not None:
            if at_byte > self.known.told_until(node, panics=False):
                self.tell_line(kind, node, text, at_byte)
        elif is_missed and at_byte > self.known.told_until(node, panics=True):
            self._on_stderr(node, text, at_byte)

    def tell_line(self, kind: str, node: str, text: str, at_byte: int) -> None:
        """Makes an event of a line, if not too many of its kind came before.

        Args:
            kind: of the event.
            node: a node of the run.
            text: the line.
            at_byte: where it ends in the node's output.
        """
        self._tell_some(kind, node, {"line": text[:MAX_LINE_CHARS], "at_byte": at_byte})

    def skipped(self, node: str, from_byte: int, to_byte: int) -> None:
        """Says that the node printed faster than anybody reads."""
        self._tell_some("output_not_read", node, {"from_byte": from_byte, "to_byte": to_byte})

    def _tell_some(self, kind: str, node: str, data: Mapping[str, Any]) -> None:
        more = self._allowed.setdefault((node, kind), _Allowance()).take()
        if more is not None:
            self._tell(kind, node, {**data, **more})
