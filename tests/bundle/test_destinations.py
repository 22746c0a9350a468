"""Tests of soakd.bundle.destinations."""

from __future__ import annotations

import base64
import hashlib
import random

import pytest

from soakd.bundle.destinations import Found, Pseudonyms, find, find_short
from soakd.bundle.needles import marks_of

_CHANCE = random.Random(1)


def destination(certificate: bytes = bytes(3)) -> str:
    """Return a random destination."""
    raw = _CHANCE.randbytes(384) + certificate
    return base64.b64encode(raw, b"-~").decode()


PLAIN = destination()
WITH_KEY = destination(bytes.fromhex("05000400070000"))
TAIL = "k3y~" * 92


def _found(text: str) -> list[Found]:
    data = text.encode()
    return list(find(data, marks_of(data)))


@pytest.mark.parametrize(
    ("text", "start", "end", "key_end"),
    [
        (PLAIN, 0, 516, 516),
        (f'"udp_dest_b64":"{PLAIN}"', 16, 532, 532),
        (f"DESTINATION={PLAIN} SIZE=7", 12, 528, 528),
        ("P" * 516, 0, 516, 516),
        (WITH_KEY, 0, 524, 524),
        (f"dest={WITH_KEY}\n", 5, 529, 529),
        (f"{PLAIN}{TAIL}", 0, 516, 884),
        (f"\\n{PLAIN}", 2, 518, 518),
        (f"\\n{PLAIN}{TAIL}==", 2, 518, 888),
        (f"{WITH_KEY.rstrip('=')}xx{TAIL}", 0, 524, 892),
    ],
)
def test_destinations_are_found_by_length_or_certificate(
    text: str, start: int, end: int, key_end: int
) -> None:
    """Bare, quoted, behind an escape, with a private key behind them."""
    assert _found(text) == [Found(start, end, key_end)]


@pytest.mark.parametrize("text", ["P" * 515, "P" * 600, "P" * 5000, "word " * 200])
def test_other_runs_are_no_destinations(text: str) -> None:
    """Neither that long nor with a certificate where one would stand."""
    assert _found(text) == []


def test_a_pseudonym_is_the_destinations_own() -> None:
    """The same for all spellings and for its hash; another one in another bundle."""
    names, others = Pseudonyms(b"k" * 16), Pseudonyms()
    raw = base64.b64decode(PLAIN, b"-~")
    short = base64.b32encode(hashlib.sha256(raw).digest()).decode().rstrip("=").lower()
    assert len(short) == 52
    name = names.of(PLAIN.encode())
    assert names.of(short.encode()) == name
    assert names.of(WITH_KEY.encode()) != name
    assert names.of(WITH_KEY.encode()) == names.of(WITH_KEY.rstrip("=").encode())
    assert others.of(PLAIN.encode()) != name
    assert Pseudonyms(b"k" * 16).of(PLAIN.encode()) == name
    assert names.of(b"P" * 517).startswith(b"[dest:")
    data = f"http://{short}.b32.i2p/ x{short}.b32.i2p".encode()
    assert [data[a:b].decode() for a, b in find_short(data)] == [short]
