"""Durations as people write them: `7200`, `30s`, `90m`, `4h`, `3d`."""

from __future__ import annotations

import re
from typing import Final

from soakd.core.errors import UserError

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)([smhd]?)")
_UNITS_S: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float:
    """Read a duration and return it in seconds; 0 is a duration.

    Raises:
        UserError: With code `usage`; the message names the text.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        message = f"cannot read a duration: expected 7200, 30s, 90m, 4h or 3d, got {text[:80]!r}"
        raise UserError("usage", message)
    number, unit = found.groups()
    return float(number) * _UNITS_S[unit]
