"""What a keyword is, and the one job that publishing and searching it share."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from soakd.simnode.clock import now
from soakd.simnode.fate import KeywordOutcome
from soakd.simnode.md4 import md4_hex

JOB_LIFE_S = 7200.0
BATCH_EVERY_S = 45.0
_SEPARATORS = re.compile(r"[\s()\[\]{}<>,._\-!?:;\\/\"]+")


class Keyword(NamedTuple):
    """A keyword as asked for: its word ("" when an id was given) and its id."""

    word: str
    keyword_id: str


def keyword_of(query: str) -> Keyword | None:
    """Return the first usable word of a query; None if there is none."""
    for word in _SEPARATORS.split(query.lower()):
        if len(word.encode()) >= 3:
            return Keyword(word, md4_hex(word.encode()))
    return None


class Job:
    """What a node does for one keyword."""

    __slots__ = (
        "acked",
        "asked",
        "created",
        "due",
        "fate",
        "hit",
        "keyword_id",
        "searching",
        "started",
    )

    def __init__(self, keyword_id: str) -> None:
        self.keyword_id = keyword_id
        self.created = self.started = self.due = now()
        self.hit: dict[str, Any] | None = None  # what is published
        self.fate: KeywordOutcome = "hit"  # of the hit
        self.searching = False
        self.acked = False
        self.asked: set[tuple[str, str]] = set()

    @property
    def publishing(self) -> bool:
        """Say whether others are still asked to store the hit."""
        return self.hit is not None and not self.acked

    @property
    def running(self) -> bool:
        """Say whether requests are still to be sent."""
        return self.searching or self.publishing

    def shown(self, hits: int) -> dict[str, Any]:
        """Return the job as the API shows it."""
        return {
            "search_id_hex": self.keyword_id,
            "keyword_id_hex": self.keyword_id,
            "state": "running" if self.running else "complete",
            "created_secs_ago": int(now() - self.created),
            "hits": hits,
            "want_search": self.searching,
            "publish_enabled": self.hit is not None,
            "got_publish_ack": self.acked,
        }
