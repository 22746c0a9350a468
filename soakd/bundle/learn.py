"""Learns the secrets of somebody else's tarball from the tarball itself.

Its token and key files say them; so do its logs, in the words of the programs that wrote them:
keys of the SAM protocol, tokens in headers and answers, cookies. Input is not trusted: the number
of values is limited, since each of them costs time in every later search.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from soakd.bundle.destinations import public_chars
from soakd.bundle.needles import DESTINATION
from soakd.bundle.secret_files import values_in
from soakd.bundle.spec import Secret
from soakd.bundle.spellings import MIN_CHARS

MAX_VALUES: Final = 256
_MAX_FILE_BYTES: Final = 64 << 10
# Longer than any word with its value: what a piece cuts in two is seen whole in the next one.
_OVERLAP: Final = 8192
_WORDS = re.compile(
    rb"(?P<pair>PRIV|DESTINATION|PUB)[ \t]*=[ \t]*(?P<key>[A-Za-z0-9~+/=-]{16,4096})"
    rb"|(?:[Bb]earer[ \t]+(?P<bearer>[A-Za-z0-9._~+/-]{16,512}=*)"
    # Without dot and slash: behind this word there is also the path of the file.
    rb"|(?:rm_session=|[Tt]oken(?:[ \t]is|\\?\"?[ \t]*[:=]))[ \t]*\\?\"?"
    rb"(?P<token>[A-Za-z0-9_~+-]{16,512}=*))"
)
# Most of a tarball has none of these, and finding that out is fast.
_HINTS: Final = (b"PRIV", b"DESTINATION", b"PUB", b"earer", b"rm_session", b"oken")


class TooManySecretsError(Exception):
    """There are more different secrets than can be searched for."""


class Learner:
    """What is known of one tarball so far; `values` in the order in which they were found."""

    def __init__(self) -> None:
        self.values: dict[Secret, None] = {}

    def secret_file(self, pieces: Iterable[bytes]) -> None:
        """Take the values of a token or key file.

        Raises:
            TooManySecretsError: see there.
        """
        data = b""
        for piece in pieces:
            data = (data + piece)[:_MAX_FILE_BYTES]
        for secret in values_in(data.decode("utf-8", "surrogateescape")):
            self._know(secret)

    def log(self, pieces: Iterable[bytes]) -> int:
        """Take the values that a log shows; return how many bytes it has.

        Raises:
            TooManySecretsError: see there.
        """
        buffer, size = b"", 0
        for piece in pieces:
            size += len(piece)
            buffer = buffer[-_OVERLAP:] + piece
            self._words(buffer, len(buffer))
        self._words(buffer, len(buffer) + 1)
        return size

    def _words(self, buffer: bytes, before: int) -> None:
        """Take the values that end before an offset: the last one may still go on."""
        if not any(hint in buffer for hint in _HINTS):
            return
        for found in _WORDS.finditer(buffer):
            if found.end() < before:
                for secret in _secrets(found):
                    self._know(secret)

    def _know(self, secret: Secret) -> None:
        if len(secret.value) >= MIN_CHARS:
            self.values[secret] = None
        if len(self.values) > MAX_VALUES:
            raise TooManySecretsError(f"it holds more than {MAX_VALUES} different secrets")


def _secrets(found: re.Match[bytes]) -> list[Secret]:
    token = found["bearer"] or found["token"]
    if token is not None:
        return [Secret("token", token.decode("ascii"))]
    word, value = found["pair"], found["key"].decode("ascii")
    public = public_chars(value)
    if word == b"PUB":
        return [Secret(DESTINATION, value)] if len(value) >= public else []
    if len(value) <= public:
        # A destination alone, or a key that does not begin with one.
        return [Secret("key", value)] if word == b"PRIV" else []
    key = value[public:].rstrip("=")
    return [Secret(DESTINATION, value[:public]), Secret("key", key or value)]
