"""The live line of `watch` and `demo` on a terminal: news scrolls above, the last line is now.

Imported only when a line is drawn: rich is dear to import.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text

from soakctl.news import News
from soakctl.render import OUTCOMES, duration, rate, safe
from soakctl.session import Session
from soakctl.shapes import Event, Status

_BAR_CELLS = 16
_NODE_STYLES = {
    "ready": "green", "running": "green", "attached": "green", "exited": "red", "failed": "red",
}  # fmt: skip
_OUTCOME_STYLES = {"hit": "green", "late": "yellow", "miss": "yellow", "error": "red"}


class LiveLine:
    """Redraws on every event and every tick; no thread of its own."""

    def __init__(self, session: Session) -> None:
        self._news = News(colours=session.colours())
        console = Console(highlight=False, markup=False, no_color=not session.colours())
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._heard_at = time.monotonic()
        self._started = False

    def begin(self, status: Status) -> None:
        """Prints the headline and draws the line."""
        self._say(self._news.begin(status))
        if not self._started:
            with _uninterrupted():
                self._live.start()
                self._started = True
        self._redraw(heard=True)

    def show(self, event: Event) -> None:
        """Prints what the event adds above the line."""
        self._say(self._news.of(event))
        self._redraw(heard=True)

    def tick(self) -> None:
        """Counts down between two events."""
        self._redraw(heard=False)

    def close(self) -> None:
        """Takes the line away; what scrolled above it stays."""
        if self._started:
            with _uninterrupted():
                self._started = False
                self._live.stop()

    def _say(self, lines: list[str]) -> None:
        for line in lines:
            self._live.console.print(Text.from_ansi(f"{time.strftime('%H:%M:%S')}  {line}"))

    def _redraw(self, *, heard: bool) -> None:
        now = time.monotonic()
        if heard:
            self._heard_at = now
        text = live_text(self._news.status, since_heard_s=now - self._heard_at)
        text.truncate(self._live.console.width - 1, overflow="ellipsis")
        self._live.update(text, refresh=True)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Lets Ctrl-C wait: a line that is half drawn, or half taken away, cannot be undone."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def live_text(status: Status, *, since_heard_s: float) -> Text:
    """Gives the line: run, state, progress, remaining time, round and phase, rates, nodes.

    Args:
        status: the last status heard.
        since_heard_s: how long ago that was; the remaining time is counted down by it.
    """
    text = Text(f"{safe(status.get('id', '?'))} {safe(status.get('state', '?'))}", style="bold")
    if status.get("state") == "running":
        _append_progress(text, status, since_heard_s)
    if status.get("phase"):
        text.append(f" · {_round(status)}{safe(status['phase'])}", style="cyan")
    if status.get("reason"):
        text.append(f" · waits for {safe(status['reason'])}", style="yellow")
    _append_rounds(text, status)
    for node in status.get("nodes") or ():
        text.append(f" · {safe(node.get('name'))} ")
        state = safe(node.get("state"))
        text.append(state, style=_NODE_STYLES.get(state, "yellow"))
    return text


def _append_progress(text: Text, status: Status, since_heard_s: float) -> None:
    remaining_s = status.get("remaining_s")
    left_s = max(0.0, (remaining_s or 0.0) - since_heard_s)
    share = _share(status, left_s)
    if share is not None:
        full = round(share * _BAR_CELLS)
        text.append(" ")
        text.append("━" * full, style="green")
        # Another character, since colours may be off.
        text.append("─" * (_BAR_CELLS - full), style="dim")
        text.append(f" {100 * share:.0f} %")
    if remaining_s is not None:
        text.append(f" {duration(left_s)} left")


def _round(status: Status) -> str:
    return f"round {status['round']} " if status.get("round") else ""


def _append_rounds(text: Text, status: Status) -> None:
    rounds = status.get("rounds") or {}
    if not rounds.get("total"):
        return
    text.append(" ·")
    for name in OUTCOMES:
        if rounds.get(name):
            text.append(f" {rounds[name]} {name}", style=_OUTCOME_STYLES.get(name, ""))
    text.append(f" · {rate(status.get('hit_rate'))} hit")


def _share(status: Status, left_s: float) -> float | None:
    """Gives the share that is over: of the duration, else of the rounds, else None."""
    if status.get("duration_s"):
        done = 1 - left_s / float(status["duration_s"])
    elif status.get("rounds_wanted"):
        done = (status.get("rounds") or {}).get("total", 0) / float(status["rounds_wanted"])
    else:
        return None
    return min(1.0, max(0.0, done))
