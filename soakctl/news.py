"""What is new in an event of a run, as lines for people.

Events carry whole statuses; a person wants to read what changed. Both displays print it.
"""

from __future__ import annotations

from soakctl.render import (
    OUTCOMES,
    duration,
    exit_text,
    outcomes,
    paint,
    rate,
    safe,
)
from soakctl.shapes import Event, Status
from soakctl.status_text import headline, rung_text

SELFTEST = "dht_selftest"
_COLOUR_OF = {"hit": "green", "late": "yellow", "miss": "yellow", "error": "red"}


# Events that statuses and rungs tell as well.
_TOLD_OTHERWISE = ("node_started", "node_exited", "rung", "stopping", "stopped")


class News:
    """Remembers the last status and says what a new event adds to it."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours
        self.status: Status = {}

    def begin(self, status: Status) -> list[str]:
        """Takes the first status (or the one after a reconnection): its headline is the news."""
        known, self.status = self.status, status
        return [] if known else [headline(status, colours=self._colours)]

    def of(self, event: Event) -> list[str]:
        """Gives the lines an event is worth, often none."""
        data = event.get("data") or {}
        match event.get("kind"):
            case "state" | "progress":
                return self._changes(data, with_state=True)
            case "end":
                # Whoever follows a run prints its final status next.
                return self._changes(data, with_state=False)
            case "rung":
                return [f"stopping: {rung_text(data)}"]
            case "gap":
                return [self._dim("some events were missed: this terminal was too slow")]
            case _:
                return self._event(data)

    def _changes(self, new: Status, *, with_state: bool) -> list[str]:
        old, self.status = self.status, new
        lines = _node_changes(old, new)
        if _total(new) > _total(old):
            lines.append(self._round(old, new))
        changed = any(old.get(key) != new.get(key) for key in ("state", "link"))
        if with_state and changed:
            lines.append(headline(new, colours=self._colours))
        return lines

    def _round(self, old: Status, new: Status) -> str:
        before, after = old.get("rounds") or {}, new.get("rounds") or {}
        added = [name for name in OUTCOMES if after.get(name, 0) > before.get(name, 0)]
        what = " ".join(
            paint(name, _COLOUR_OF.get(name, "dim"), colours=self._colours) for name in added
        )
        # With one pair alone its name would say nothing new in each line.
        is_one_of_many = len(new.get("nodes") or ()) > 2 or new.get("scenario") == SELFTEST
        flow = f"{safe(new['flow'])} " if is_one_of_many and new.get("flow") else ""
        parts = [
            f"round {_total(new)} {flow}{what}",
            outcomes(after),
            f"hit rate {rate(new.get('hit_rate'))}",
        ]
        if new.get("remaining_s") is not None:
            parts.append(f"{duration(new['remaining_s'])} left")
        return " · ".join(parts)

    def _event(self, event: Status) -> list[str]:
        kind = str(event.get("kind", "event"))
        if kind in _TOLD_OTHERWISE:
            return []
        facts = dict(event.get("data") or {})
        told = facts.get("text") or facts.get("why")
        text = told or " ".join(f"{key}={value}" for key, value in facts.items())
        where = f" (node {event['node']})" if event.get("node") else ""
        return [paint(safe(f"{kind}{where}: {text}"), "yellow", colours=self._colours)]

    def _dim(self, text: str) -> str:
        return paint(text, "dim", colours=self._colours)


def _total(status: Status) -> int:
    return int((status.get("rounds") or {}).get("total", 0))


def _node_changes(old: Status, new: Status) -> list[str]:
    before = {node["name"]: node.get("state") for node in old.get("nodes") or ()}
    lines = []
    for node in new.get("nodes") or ():
        if before.get(node["name"]) != node.get("state"):
            pid = f"pid {node['pid']}" if node.get("pid") else ""
            parts = (safe(node.get("state")), pid, exit_text(node.get("exit")))
            lines.append(f"node {safe(node['name'])} {' '.join(part for part in parts if part)}")
    return lines
