from __future__ import annotations

import pytest

from soakctl.render import duration, exit_text, outcomes, paint, rate, safe, table, utc
from tests.soakctl.samples import rounds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (-3, "0 s"),
        (8.4, "8 s"),
        (60, "1 min"),
        (750, "12 min 30 s"),
        (7500, "2 h 5 min"),
        (7200, "2 h"),
        (3 * 86400 + 4 * 3600 + 59, "3 d 4 h"),
        (86400 + 59, "1 d"),
    ],
)
def test_durations_show_their_two_largest_units(seconds: float, text: str) -> None:
    """Nobody reads the seconds of a three-day soak."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – text", "plain – text"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("a\u202eb", r"a\u202eb"),
        ("two\nlines", r"two\nlines"),
        (7, "7"),
    ],
)
def test_control_characters_are_escaped(text: object, shown: str) -> None:
    """C0, C1, line breaks and direction marks; printable text stays."""
    assert safe(text) == shown


def test_outcomes_name_late_error_and_skipped_only_where_there_are_any() -> None:
    """Hit and miss always stand there, so that lines can be compared."""
    assert outcomes(rounds(hit=3)) == "3: 3 hit, 0 miss"
    assert outcomes(rounds(hit=1, late=1, error=1, skipped=1)) == (
        "4: 1 hit, 1 late, 0 miss, 1 error, 1 skipped"
    )
    assert outcomes(None) == "0: 0 hit, 0 miss"


def test_a_rate_never_stands_without_its_n() -> None:
    """And no rate is a dash, not zero."""
    assert rate({"value": 0.0, "n": 2}) == "0.0 % of 2"
    assert rate({"value": None, "n": 0}) == "–"
    assert rate(None) == "–"


def test_exits_are_told_apart() -> None:
    """A code, a signal, nothing."""
    assert exit_text({"code": 0}) == "exit status 0"
    assert exit_text({"signal": 9}) == "killed by signal 9"
    assert exit_text(None) == ""


def test_times_lose_their_fraction_and_bad_ones_are_shown_as_they_are() -> None:
    """A person reads seconds."""
    assert utc("2026-11-22T17:00:00.123Z") == "2026-11-22 17:00:00Z"
    assert utc("soon") == "soon"


def test_colours_are_added_only_when_wanted() -> None:
    """The caller knows whether this is a terminal."""
    assert paint("x", "red", colours=False) == "x"
    assert paint("x", "red", colours=True) == "\x1b[31mx\x1b[0m"


def test_tables_are_aligned_without_trailing_blanks() -> None:
    """Two blanks between columns."""
    assert table([["A", "B"], ["long", "b"]]) == ["A     B", "long  b"]
