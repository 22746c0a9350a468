"""Text for people: durations, rates, colours, and other people's text made harmless.

Pure functions: `status`, `watch`, `wait` and `demo` say the same thing the same way.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

OUTCOMES = ("hit", "late", "miss", "error", "skipped")
_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "magenta": "35"}
_VERDICT_COLOURS = {
    "passed": "green",
    "failed": "red",
    "inconclusive": "yellow",
    "aborted": "yellow",
    "harness_error": "magenta",
}
MISSING = "–"


def safe(text: object) -> str:
    """Shows control characters escaped: text of other users must not drive this terminal."""
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in shown
    )


def paint(text: str, colour: str, *, colours: bool) -> str:
    """Colours a piece of text, or leaves it as it is."""
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if colours else text


def paint_verdict(text: str, verdict: object, *, colours: bool) -> str:
    """Colours a piece of text as its verdict is coloured everywhere."""
    return paint(text, _VERDICT_COLOURS.get(str(verdict), "magenta"), colours=colours)


def duration(seconds: float) -> str:
    """Gives the two largest units: `3 d 4 h`, `2 h 5 min`, `12 min 30 s`, `8 s`."""
    left = max(0, round(seconds))
    parts: list[tuple[int, str]] = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count or parts or unit == "s":
            parts.append((count, unit))
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count or len(parts) == 1)


def utc(time_text: object) -> str:
    """Shortens an RFC 3339 time to `2026-11-22 17:00:00Z`."""
    text = safe(time_text)
    return f"{text[:10]} {text[11:19]}Z" if len(text) > 19 else text


def outcomes(rounds: Mapping[str, Any] | None) -> str:
    """Gives `11: 9 hit, 1 late, 1 miss`; late, error and skipped only where there are any."""
    counts = rounds or {}
    named = [
        f"{counts.get(name, 0)} {name}"
        for name in OUTCOMES
        if counts.get(name) or name in ("hit", "miss")
    ]
    return f"{counts.get('total', 0)}: {', '.join(named)}"


def rate(value: Mapping[str, Any] | None) -> str:
    """Gives `90.9 % of 11`: a rate never stands without its n."""
    if not value or value.get("value") is None:
        return MISSING
    return f"{100 * value['value']:.1f} % of {value.get('n', 0)}"


def exit_text(ended: Mapping[str, Any] | None) -> str:
    """Gives `exit status 1` or `killed by signal 9`."""
    if not ended:
        return ""
    if ended.get("signal") is not None:
        return f"killed by signal {ended['signal']}"
    return f"exit status {ended.get('code')}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligns columns by two blanks; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
