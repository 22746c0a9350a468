"""Where a run stands in the queue, as people read it; what `start` and the queue's verbs share."""

from __future__ import annotations

from soakctl.render import safe, utc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def place_text(place: Mapping[str, Any]) -> str:
    """Gives `r8 queued · position 1 · waits for: slots · promised to start by ...`."""
    parts = [f"{safe(place.get('id'))} {safe(place.get('state'))}"]
    if place.get("position"):
        parts.append(f"position {place['position']}")
    if place.get("reason"):
        parts.append(f"waits for: {safe(place['reason'])}")
    if place.get("expected_start"):
        parts.append(f"{start_word(place)} {utc(place['expected_start'])}")
    return " · ".join(parts)


def start_word(place: Mapping[str, Any]) -> str:
    """Tells a promise from an estimate."""
    if place.get("promised"):
        return "promised to start by"
    return "estimated start" if place.get("position") else "expected start"
