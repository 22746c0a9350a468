"""MD4, which OpenSSL 3 no longer offers: the id of a keyword is the MD4 of it (RFC 1320)."""

from __future__ import annotations

import struct

_MASK = 0xFFFFFFFF
_ROUNDS = (
    (0x00000000, (3, 7, 11, 19), tuple(range(16))),
    (0x5A827999, (3, 5, 9, 13), (0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)),
    (0x6ED9EBA1, (3, 9, 11, 15), (0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15)),
)


def md4_hex(data: bytes) -> str:
    """Return the MD4 of `data` as 32 hex digits."""
    padded = data + b"\x80" + bytes((55 - len(data)) % 64) + struct.pack("<Q", len(data) * 8)
    state = [0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476]
    for at in range(0, len(padded), 64):
        mixed = _mixed(list(state), struct.unpack_from("<16I", padded, at))
        state = [(old + new) & _MASK for old, new in zip(state, mixed, strict=True)]
    return struct.pack("<4I", *state).hex()


def _mixed(state: list[int], words: tuple[int, ...]) -> list[int]:
    a, b, c, d = state
    for number, (constant, shifts, order) in enumerate(_ROUNDS):
        for step, index in enumerate(order):
            if number == 0:
                f = (b & c) | (~b & d)
            elif number == 1:
                f = (b & c) | (b & d) | (c & d)
            else:
                f = b ^ c ^ d
            value = (a + f + words[index] + constant) & _MASK
            shift = shifts[step % 4]
            a, b, c, d = d, ((value << shift) | (value >> (32 - shift))) & _MASK, b, c
    return [a, b, c, d]
