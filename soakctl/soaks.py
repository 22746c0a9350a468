"""Rounds on kept nodes as soakctl follows and shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from soakctl.displays import display_for
from soakctl.failures import exit_of_verdict
from soakctl.render import outcomes, safe
from soakctl.session import Session
from soakctl.shapes import Status
from soakctl.watching import Display, Follower, Silent, detachable


def begun_text(begun: dict[str, Any]) -> str:
    """Says what was begun, for people."""
    parts = [f"{safe(begun.get('id'))} soak {begun.get('measurement')}"]
    parts.append(f"from round {begun.get('first_round')}")
    if begun.get("rounds_wanted"):
        parts.append(f"{begun['rounds_wanted']} rounds")
    return " · ".join([*parts, *map(safe, begun.get("notes") or ())])


def follow(session: Session, begun: dict[str, Any], *, live: bool) -> tuple[Status, Status | None]:
    """Follows a soak to its end.

    Returns:
        The run's status then, and what came of the soak; None if the run ended without it.
    """
    number = begun["measurement"]
    with detachable(str(begun["id"])):
        display: Display = display_for(session) if live else Silent()
    follower = Follower(session, display, until=_has_ended(number))
    status = follower.follow(str(begun["id"]))
    return status, ended(status, number)


def conclude(session: Session, status: Status, soak: Status | None) -> int:
    """Prints what came of a soak; the exit status is its verdict's."""
    verdict = status.get("verdict") if soak is None else soak.get("verdict")
    if session.json:
        session.emit(status)
    elif soak is not None:
        session.say(soak_text(soak))
    else:
        session.say(f"{safe(status.get('id'))} finished before the soak had begun")
    return exit_of_verdict(verdict)


def soak_text(soak: Status) -> str:
    """One soak that has ended, as a person reads it."""
    said = f"soak {soak.get('number')} {safe(soak.get('scenario'))}"
    verdict = f"{safe(soak.get('verdict'))}: {safe(soak.get('why'))}"
    return f"{said} · {outcomes(soak.get('rounds') or {})} · {verdict}"


def ended(status: Status, number: int) -> Status | None:
    """What came of a soak, if it is over."""
    return next((soak for soak in status.get("soaks") or () if soak.get("number") == number), None)


def _has_ended(number: int) -> Callable[[Status], bool]:
    def look(status: Status) -> bool:
        return ended(status, number) is not None

    return look
