"""The displays that need nothing but print: plain lines, JSON lines, the rungs of a stop."""

from __future__ import annotations

import time

from soakctl.news import News
from soakctl.session import Session
from soakctl.shapes import Event, Status
from soakctl.status_text import rung_text
from soakctl.watching import Display, Silent


def display_for(session: Session) -> Display:
    """Picks how to follow a run: JSON lines, a live line on a terminal, plain lines elsewhere."""
    if session.json:
        return JsonLines(session)
    if session.is_live():
        from soakctl.live import LiveLine

        return LiveLine(session)
    return PlainLines(session)


class PlainLines(Silent):
    """One line per thing that happened, with the local time of day: for pipes and log files."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._news = News(colours=session.colours())

    def begin(self, status: Status) -> None:
        """Prints the headline."""
        self._print(self._news.begin(status))

    def show(self, event: Event) -> None:
        """Prints what the event adds."""
        self._print(self._news.of(event))

    def _print(self, lines: list[str]) -> None:
        for line in lines:
            self._session.say(f"{time.strftime('%H:%M:%S')}  {line}")


class JsonLines(Silent):
    """Every event as one line of JSON, as it came."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def show(self, event: Event) -> None:
        """Prints the event."""
        self._session.emit(event)


class Rungs(Silent):
    """Each rung of the stop ladder, once."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._last = ""

    def show(self, event: Event) -> None:
        """Prints a rung that was not printed yet."""
        if event.get("kind") != "rung" or self._session.json:
            return
        text = rung_text(event.get("data") or {})
        if text != self._last:
            self._session.say(f"  {text}")
        self._last = text
