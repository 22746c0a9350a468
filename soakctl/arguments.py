"""Argument types that several verbs share."""

from __future__ import annotations

import argparse


def seconds(text: str) -> float:
    """Reads a duration as people write it: `90`, `30s`, `10m`, `4h`, `3d`."""
    from soakd.core.duration import parse_duration
    from soakd.core.errors import UserError

    try:
        return parse_duration(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
