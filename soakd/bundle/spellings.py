"""How a secret value may be spelt in a file: as it is, in base64, hex, a URL or JSON.

Base64 of a text in which the value stands looks different for each of the three places where a
group of four characters may begin; of each only those characters count that the value alone
decides. `base64` breaks its lines, so there are also the parts of which a whole line has some.
"""

from __future__ import annotations

import base64
import binascii
import json

_HEX = frozenset("0123456789abcdefABCDEF")
_I2P_TO_STANDARD = bytes.maketrans(b"-~", b"+/")
_STANDARD_TO_URL = bytes.maketrans(b"+/", b"-_")
_STANDARD_TO_I2P = bytes.maketrans(b"+/", b"-~")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PART_CHARS = 20
LINE_CHARS = 64
"""The shorter of the two lengths of line that are in use; the other is 76."""
MIN_CHARS = 16
"""A shorter "secret" (a mangled file) would blot out half of every log."""


def spellings(value: str) -> frozenset[bytes]:
    """Return every spelling of a token or key that is long enough to be looked for."""
    found: set[bytes] = set()
    for data in _texts(value):
        found |= {data, *_base64(data), *_hex(data), *_url(data), *_json(data)}
    for raw in raw_forms(value):
        found |= {*_base64(raw), *_hex(raw)}
    return frozenset(form for form in found if len(form) >= MIN_CHARS)


def parts(value: str) -> frozenset[bytes]:
    """Return pieces of the value's base64 such that a line which is full of it has one whole."""
    texts = (text for data in _texts(value) for text in _aligned(data) if len(text) > LINE_CHARS)
    return frozenset(
        text[start : start + _PART_CHARS]
        for text in texts
        for start in range(0, len(text) - _PART_CHARS + 1, _PART_CHARS)
    )


def raw_forms(value: str) -> frozenset[bytes]:
    """Return the bytes that the value stands for, as they may be found in a binary file."""
    if not value.isascii():
        return frozenset()
    if _is_hex(value):
        return frozenset({bytes.fromhex(value)}) if len(value) % 2 == 0 else frozenset()
    raw = decoded(value)
    return frozenset() if raw is None or len(raw) < MIN_CHARS else frozenset({raw})


def decoded(text: str) -> bytes | None:
    """Return what I2P's base64 stands for; None if it is none."""
    data = text.rstrip("=").encode("utf-8", "surrogateescape").translate(_I2P_TO_STANDARD)
    try:
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except binascii.Error:
        return None


def _is_hex(value: str) -> bool:
    return all(char in _HEX for char in value)


def _texts(value: str) -> set[bytes]:
    """The value itself, in both cases if it is hex, and in the other alphabets of base64."""
    texts = {value, value.lower(), value.upper()} if _is_hex(value) else {value}
    plain = {text.encode("utf-8", "surrogateescape") for text in texts}
    standard = {text.translate(_I2P_TO_STANDARD) for text in plain}
    return plain | standard | {text.translate(_STANDARD_TO_URL) for text in standard}


def _base64(data: bytes) -> set[bytes]:
    texts = _aligned(data)
    alphabets = (_STANDARD_TO_URL, _STANDARD_TO_I2P)
    return {*texts, *(text.translate(table) for text in texts for table in alphabets)}


def _aligned(data: bytes) -> list[bytes]:
    """Base64 for each of the three places where a group may begin."""
    found = []
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + data)
        # The characters at both ends hold bits of the neighbours too.
        begin, spare = (0, 2, 3)[shift], (0, 3, 2)[(shift + len(data)) % 3]
        found.append(text[begin : len(text) - spare])
    return found


def _hex(data: bytes) -> set[bytes]:
    text = data.hex()
    return {text.encode(), text.upper().encode()}


def _url(data: bytes) -> set[bytes]:
    """Percent-encoded: whole, as needed, and as needed by those who also encode the tilde."""
    whole = "".join(f"%{byte:02X}" for byte in data)
    needed = "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in data)
    found = {whole, needed, needed.replace("~", "%7E")}
    return {spelt.encode() for text in found for spelt in (text, _lower_escapes(text))}


def _lower_escapes(text: str) -> str:
    head, *parts = text.split("%")
    return "%".join([head, *(part[:2].lower() + part[2:] for part in parts)])


def _json(data: bytes) -> set[bytes]:
    """As a string of JSON, and as one in an answer that is itself kept as a string of JSON."""
    once = _escaped(data)
    return {once, _escaped(once)}


def _escaped(data: bytes) -> bytes:
    return json.dumps(data.decode("utf-8", "surrogateescape"))[1:-1].encode()
