"""Destinations, the addresses of I2P: where they stand in a text, and their steady pseudonyms.

A destination names a peer for good. In a bundle each gets a pseudonym of the same length that
depends on nothing but the destination and a random key of this one bundle: the same peer is the
same in all members, and nobody can tell who it was or find it in another bundle. The short form
`<52 characters>.b32.i2p` is the hash of a destination and gets the same pseudonym.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from soakd.bundle.needles import runs_of
from soakd.bundle.spellings import decoded

CHARS = 516
"""387 bytes, with a null certificate."""
_WITH_KEY_CERTIFICATE = 524
_NULL_CERTIFICATE = "AAAA"
_KEY_CERTIFICATE = "BQAEAA"
# What an escape such as \n may leave before a destination.
_MOST_BEFORE = 16
# The shortest private key is longer than that behind its destination.
_LEAST_KEY = 256
_BASE64_RUN = re.compile(rb"[A-Za-z0-9~-]{516,}={0,2}")
_SHORT = re.compile(rb"(?<![a-z2-7])([a-z2-7]{52})\.b32\.i2p")
_SHORT_END = b".b32.i2p"


class Found(NamedTuple):
    """A destination in a buffer; `key_end` > `end` if a private key follows it up to there."""

    start: int
    end: int
    key_end: int


def find(data: bytes, marks: bytes) -> Iterator[Found]:
    """Yield the destinations of a buffer, by their length or by their certificate.

    Args:
        data: the buffer.
        marks: its `needles.marks_of`.
    """
    for start, end in runs_of(marks, CHARS):
        for found in _BASE64_RUN.finditer(data, start, end):
            place = _in_run(found.group().decode("ascii"))
            if place is not None:
                begin, stop, key_end = (found.start() + at for at in place)
                yield Found(begin, stop, key_end)


def find_short(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield begin and end of the hash in each `….b32.i2p`."""
    if _SHORT_END in data:
        for found in _SHORT.finditer(data):
            yield found.span(1)


def public_chars(text: str) -> int:
    """Return how many characters of a destination with a key behind it are the destination."""
    has_key = text[CHARS - 4 : CHARS + 2] == _KEY_CERTIFICATE
    return _WITH_KEY_CERTIFICATE if has_key else CHARS


def _in_run(run: str) -> Found | None:
    """Find the destination in a run of base64 that is no shorter than one."""
    if len(run) == CHARS or (len(run) == _WITH_KEY_CERTIFICATE and run.endswith("=")):
        return Found(0, len(run), len(run))
    for start in range(min(_MOST_BEFORE, len(run) - CHARS) + 1):
        certificate = start + CHARS - 4
        if run.startswith((_NULL_CERTIFICATE, _KEY_CERTIFICATE), certificate):
            end = min(start + public_chars(run[start:]), len(run))
            return Found(start, end, len(run) if len(run) - end >= _LEAST_KEY else end)
    return None


class Pseudonyms:
    """The pseudonyms of one bundle.

    Args:
        key: random; the same key gives the same pseudonyms.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = os.urandom(16) if key is None else key
        self.of = lru_cache(maxsize=4096)(self._of)
        """Return the pseudonym of a destination, or of the hash before `.b32.i2p`."""

    def _of(self, text: bytes) -> bytes:
        short = text
        if len(text) >= CHARS:
            raw = decoded(text.decode("ascii", "replace"))
            whole = text if raw is None else raw
            short = base64.b32encode(hashlib.sha256(whole).digest()).lower().rstrip(b"=")
        number = hmac.new(self._key, short, hashlib.sha256).hexdigest()[:12]
        return b"[dest:%s]" % number.encode()
