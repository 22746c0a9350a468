"""Looks for secrets that are still there: in what leaves, and in files that cannot be masked.

The last line of defence of a bundle: everything that is written passes a `Search`, and a hit ends
the packing. It masks nothing and shares with the redactor only the list of values.
"""

from __future__ import annotations

import re
from typing import Final

from soakd.bundle.needles import Needles, marks_of

# Behind this word stands nothing but a key, masked or not.
_BARE_KEY: Final = re.compile(rb"PRIV=[A-Za-z0-9~+/-]{16}")
_BARE_KEY_BYTES: Final = 21

_HEAD_BYTES: Final = 8192
_COMPRESSED: Final = (b"\x1f\x8b", b"PK\x03\x04", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"BZh")


class SecretLeftError(Exception):
    """A secret would have left; the text names its kind and the place, never the value."""


class Search:
    """Searches one stream for the values that are known while it flows.

    Args:
        needles: the values; more may be added while the search goes on.
        raw: look for the bytes that the values stand for as well, as binary files have them.
    """

    def __init__(self, needles: Needles, *, raw: bool = False) -> None:
        self._needles = needles
        self._raw = raw
        self._tail = b""

    def feed(self, data: bytes) -> str | None:
        """Take a piece; return the kind of a value that stands in it or ends in it."""
        buffer = self._tail + data
        hits = self._needles.find(buffer, marks_of(buffer))
        if self._raw:
            hits += self._needles.find_raw(buffer)
        hold = max(self._needles.longest, _BARE_KEY_BYTES) - 1
        self._tail = buffer[-hold:]
        if hits:
            return hits[0].kind
        return "key" if _BARE_KEY.search(buffer) else None


def is_binary(head: bytes) -> bool:
    """Say whether a file that begins like this is no text."""
    return b"\0" in head[:_HEAD_BYTES]


def is_compressed(head: bytes) -> bool:
    """Say whether a file that begins like this hides what it holds from every search."""
    return head.startswith(_COMPRESSED)


def head_bytes() -> int:
    """Return how much of a file tells what it is."""
    return _HEAD_BYTES
