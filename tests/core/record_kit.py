"""Lines of rounds.ndjson and resources.ndjson for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from soakd.core.gates import Facts
from soakd.core.series import Series

BEGIN_AT = datetime(2026, 11, 22, tzinfo=UTC).timestamp()
ROUND_S = 50.0
OUTCOMES = {"h": "hit", "l": "late", "m": "miss", "e": "error", "s": "skipped"}


def at(epoch: float) -> str:
    """Return a time as records have it."""
    text = datetime.fromtimestamp(epoch, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def rounds(letters: str, *, seen_s: float = 20.0, watched_s: float = 40.0) -> list[dict[str, Any]]:
    """Return a record per letter, such as `hhlmes`; an upper-case one is prestored."""
    records = []
    for place, letter in enumerate(letters, 1):
        outcome, ended = OUTCOMES[letter.lower()], BEGIN_AT + place * ROUND_S
        records.append(
            {
                "round": place,
                "outcome": outcome,
                "prestored": letter.isupper(),
                "first_seen_s": seen_s if outcome in ("hit", "late") else None,
                "publish_at": None if outcome == "skipped" else at(ended - watched_s),
                "ended_at": at(ended),
            }
        )
    return records


def samples(node: str, values: Iterable[float], every_s: float = 10.0) -> list[dict[str, Any]]:
    """Return a record of resources.ndjson per value of its memory."""
    return [
        {"at": at(BEGIN_AT + place * every_s), "node": node, "rss_bytes": value, "cpu_s": 1.0}
        for place, value in enumerate(values)
    ]


def series(
    records: Iterable[Mapping[str, Any]] = (),
    resources: Iterable[Mapping[str, Any]] = (),
    windows_s: Iterable[float] = (),
) -> Series:
    """Return the series of these records."""
    made = Series(windows_s)
    for record in records:
        made.round(record)
    for sample in resources:
        made.resources(sample)
    return made


def facts(
    letters: str = "",
    *,
    node_exits: int = 0,
    panics: int = 0,
    measured: float | None = 1.0,
    windows_s: Iterable[float] = (),
) -> Facts:
    """Return the facts of a run with these rounds."""
    return Facts(series(rounds(letters), windows_s=windows_s), node_exits, panics, measured)
