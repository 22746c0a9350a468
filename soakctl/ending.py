"""How `wait`, `watch`, `start --wait` and `demo` say that a run is over, and how they exit."""

from __future__ import annotations

from soakctl.failures import exit_of_verdict
from soakctl.session import Session
from soakctl.shapes import Status
from soakctl.status_text import status_lines


def conclude(session: Session, final: Status, *, hint: bool = True) -> int:
    """Prints the final status; the exit status is the verdict's."""
    if session.json:
        session.emit(final)
    else:
        session.say("\n".join(status_lines(final, colours=session.colours(), with_edits=False)))
        if hint:
            session.note(f"its records: soakctl collect {final.get('id')}")
    return exit_of_verdict(final.get("verdict"))
