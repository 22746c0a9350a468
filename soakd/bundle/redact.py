"""Replaces secret values in a stream of bytes by markers of the same length.

Same length, so that a member's size is known before it is read and offsets in logs stay true.
Values are found wherever they stand, across chunk borders and inside binaries; memory is one
chunk plus the longest value. Compressed or re-encoded copies of a value cannot be seen here.

Besides the known values, what follows `PRIV=` is a private key in every log line of the SAM
protocol, and so is what follows the public part behind `DESTINATION=`: those are masked without
being known, because a key may have been logged and replaced since.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from soakd.bundle.spec import Secret

# A shorter "secret" (a mangled file) would blot out half of every log.
MIN_SECRET_CHARS = 16
_BASE64_RUN = re.compile(rb"[A-Za-z0-9~+/=-]*")
# A destination has 516 characters, or 524 with a key certificate; a private key 884 and more.
_PUBLIC_CHARS = 528


class _Introducer(NamedTuple):
    """A word behind which a key stands, and how many characters of it are public."""

    word: bytes
    public_chars: int


_INTRODUCERS = (_Introducer(b"PRIV=", 0), _Introducer(b"DESTINATION=", _PUBLIC_CHARS))


class _Span:
    """One stretch to be masked, in offsets from the start of the stream."""

    __slots__ = ("begun", "end", "kind", "start")

    def __init__(self, start: int, end: int, kind: str) -> None:
        self.start = start
        self.end = end
        self.kind = kind
        self.begun = False

    def mask(self, start: int, end: int) -> bytes:
        """Return the marker's bytes for the part `start` to `end` of the stream.

        Of a span whose beginning another one has covered there are only stars.
        """
        self.begun = self.begun or start == self.start
        text = f"[redacted:{self.kind}]".encode() if self.begun else b""
        return text[start - self.start : end - self.start].ljust(end - start, b"*")


class Redactor:
    """The values to mask; hands out one `Masker` per stream."""

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        self._needles: dict[bytes, str] = {}
        for secret in secrets:
            self.add(secret)

    def add(self, secret: Secret) -> None:
        """Mask this value from now on, also in upper or lower case if it is hexadecimal."""
        value = secret.value
        if len(value) < MIN_SECRET_CHARS:
            return
        forms = {value}
        if all(c in "0123456789abcdefABCDEF" for c in value):
            forms |= {value.lower(), value.upper()}
        for form in forms:
            self._needles.setdefault(form.encode("utf-8", "surrogateescape"), secret.kind)

    def masker(self) -> Masker:
        """Return the state for one stream."""
        return Masker(tuple(self._needles.items()))

    def data(self, data: bytes) -> bytes:
        """Return `data` with every value masked."""
        masker = self.masker()
        return masker.feed(data) + masker.finish()

    def text(self, text: str) -> str:
        """Return `text` (a file name, a link target, a message) with every value masked."""
        masked = self.data(text.encode("utf-8", "surrogateescape"))
        return masked.decode("utf-8", "surrogateescape")


class Masker:
    """Masks one stream: `feed` chunks, then `finish`; the lengths in and out agree."""

    def __init__(self, needles: tuple[tuple[bytes, str], ...]) -> None:
        self._needles = needles
        longest = max(len(word) for word in [*(i.word for i in _INTRODUCERS), *dict(needles)])
        self._hold = longest - 1
        self._buffer = b""
        self._base = 0
        self._spans: list[_Span] = []
        self._open: list[_Span] = []

    def feed(self, data: bytes) -> bytes:
        """Take a chunk; return what can no longer be part of an unfinished value."""
        old = len(self._buffer)
        self._buffer += data
        self._continue_keys(old)
        for needle, kind in self._needles:
            self._find_value(needle, kind, old)
        for introducer in _INTRODUCERS:
            self._find_keys(introducer, old)
        return self._emit(max(0, len(self._buffer) - self._hold))

    def finish(self) -> bytes:
        """Return the rest."""
        return self._emit(len(self._buffer))

    def _find_value(self, needle: bytes, kind: str, old: int) -> None:
        last: _Span | None = None
        at = self._buffer.find(needle, max(0, old - len(needle) + 1))
        while at >= 0:
            start, end = self._base + at, self._base + at + len(needle)
            if last is not None and start <= last.end:
                last.end = end
            else:
                last = _Span(start, end, kind)
                self._spans.append(last)
            at = self._buffer.find(needle, at + 1)

    def _find_keys(self, introducer: _Introducer, old: int) -> None:
        at = self._buffer.find(introducer.word, max(0, old - len(introducer.word) + 1))
        while at >= 0:
            begin = at + len(introducer.word)
            start = self._base + begin + introducer.public_chars
            self._extend_key(_Span(start, start, "key"), begin)
            at = self._buffer.find(introducer.word, begin)

    def _continue_keys(self, old: int) -> None:
        unfinished, self._open = self._open, []
        for span in unfinished:
            self._extend_key(span, old)

    def _extend_key(self, span: _Span, begin: int) -> None:
        """Let `span` reach to the end of the run of base64 at `begin` of the buffer."""
        match = _BASE64_RUN.match(self._buffer, begin)
        stop = match.end() if match is not None else begin
        grown = self._base + stop > span.start
        if grown and span.end == span.start:
            self._spans.append(span)
        if grown:
            span.end = self._base + stop
        if stop == len(self._buffer):
            self._open.append(span)

    def _emit(self, count: int) -> bytes:
        """Return the first `count` bytes of the buffer, masked, and forget them."""
        cut = self._base + count
        pieces: list[bytes] = []
        at = self._base
        # Not by their ends, which are not known yet: the result must not depend on the chunks.
        self._spans.sort(key=lambda span: (span.start, span.kind))
        for span in self._spans:
            start, end = max(span.start, at), min(span.end, cut)
            if start < end:
                pieces.append(self._buffer[at - self._base : start - self._base])
                pieces.append(span.mask(start, end))
                at = end
        pieces.append(self._buffer[at - self._base : count])
        self._spans = [span for span in self._spans if span.end > cut]
        self._buffer = self._buffer[count:]
        self._base = cut
        return b"".join(pieces)
