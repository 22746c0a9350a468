"""Replaces secret values in a stream of bytes by markers of the same length.

Same length, so that a member's size is known before it is read and offsets in logs stay true.
Values are found in all their spellings, wherever they stand, across chunk borders and inside
binaries; memory is one chunk plus the longest value. Compressed copies cannot be seen here.

Besides the known values, what follows `PRIV=` is a private key in every log line of the SAM
protocol, and so is what follows a destination; what follows `Bearer` or `rm_session=` opens an
API. Those are masked without being known, because they may have been logged and replaced since.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from soakd.bundle import destinations
from soakd.bundle.destinations import Pseudonyms
from soakd.bundle.needles import DESTINATION, Needles, marks_of
from soakd.bundle.spec import Secret
from soakd.bundle.spellings import MIN_CHARS

_BASE64_RUN = re.compile(rb"[A-Za-z0-9~+/=-]*")
_KEY_WORD = b"PRIV="
_PAIR_WORD = b"DESTINATION="
_TOKEN_WORDS = (b"Bearer ", b"rm_session=")
# A run longer than that is no log line: it is masked in parts.
_MAX_RUN = 1 << 16
_KEY_MARK = b"[redacted:key]"
_TOKEN_MARK = b"[redacted:token]"


class Span(NamedTuple):
    """One stretch of the buffer, and what its replacement begins with."""

    start: int
    end: int
    mark: bytes

    def replacement(self, begin: int) -> bytes:
        """Return what stands from `begin` on: only stars if another span covers the mark."""
        mark = self.mark if begin == self.start else b""
        return mark[: self.end - begin].ljust(self.end - begin, b"*")


class Redactor:
    """The values to mask; hands out one `Masker` per stream.

    Args:
        secrets: known from the beginning.
        pseudonyms: for destinations; None keeps them as they are.
    """

    def __init__(
        self, secrets: Iterable[Secret] = (), pseudonyms: Pseudonyms | None = None
    ) -> None:
        self.needles = Needles()
        self.pseudonyms = pseudonyms
        for secret in secrets:
            self.add(secret)

    def add(self, secret: Secret) -> None:
        """Mask this value from now on, in every spelling."""
        if secret.kind != DESTINATION or self.pseudonyms is not None:
            self.needles.add(secret)

    def masker(self) -> Masker:
        """Return the state for one stream; values that are added later count for it too."""
        return Masker(self)

    def data(self, data: bytes) -> bytes:
        """Return `data` with every value masked."""
        masker = self.masker()
        return masker.feed(data) + masker.finish()

    def text(self, text: str) -> str:
        """Return `text` (a file name, a link target, a message) with every value masked."""
        masked = self.data(text.encode("utf-8", "surrogateescape"))
        return masked.decode("utf-8", "surrogateescape")

    def spans(self, data: bytes, marks: bytes) -> list[Span]:
        """Return what is to be replaced in a buffer, in order; spans may overlap."""
        found = _keys(data)
        places = list(destinations.find(data, marks))
        covered = {(start, end) for start, end, _ in places if self.pseudonyms is not None}
        for hit in self.needles.find(data, marks, covered):
            if hit.kind == DESTINATION:
                found.append(self._pseudonym(data, hit.start, hit.end))
            else:
                found.append(Span(hit.start, hit.end, b"[redacted:%s]" % hit.kind.encode()))
        for start, end, key_end in places:
            if self.pseudonyms is not None:
                found.append(self._pseudonym(data, start, end))
            if key_end > end:
                found.append(Span(end, key_end, _KEY_MARK))
        if self.pseudonyms is not None:
            found += [self._pseudonym(data, *place) for place in destinations.find_short(data)]
            found += [self._pseudonym(data, *place) for place in _before_keys(data)]
        # Not by their ends, which may not be known yet: the result must not depend on the chunks.
        # A secret goes before the pseudonym of the destination that it begins with.
        return sorted(
            found, key=lambda span: (span.start, span.mark.startswith(b"[dest"), span.mark)
        )

    def _pseudonym(self, data: bytes, start: int, end: int) -> Span:
        assert self.pseudonyms is not None, "destinations are kept"
        return Span(start, end, self.pseudonyms.of(data[start:end]))


class Masker:
    """Masks one stream: `feed` chunks, then `finish`; the lengths in and out agree."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._buffer = b""
        self._owed = 0
        self._in_key = False

    def feed(self, data: bytes) -> bytes:
        """Take a chunk; return what can no longer be part of an unfinished value."""
        self._buffer += data
        return self._emit(is_end=False)

    def finish(self) -> bytes:
        """Return the rest."""
        return self._emit(is_end=True)

    def _emit(self, *, is_end: bool) -> bytes:
        buffer = self._buffer
        marks = marks_of(buffer)
        spans = self._carried(buffer) + self._redactor.spans(buffer, marks)
        cut = len(buffer) if is_end else self._cut(marks, spans)
        if cut == 0:
            return b""
        pieces: list[bytes] = []
        at = 0
        for span in spans:
            begin, end = max(span.start, at), min(span.end, cut)
            if begin < end:
                pieces += (buffer[at:begin], span.replacement(begin)[: end - begin])
                at = end
        pieces.append(buffer[at:cut])
        crossing = [span for span in spans if span.start < cut < span.end]
        self._owed = max((span.end - cut for span in crossing), default=0)
        self._in_key = any(
            span.end == len(buffer) and span.mark in (_KEY_MARK, b"") for span in crossing
        )
        self._buffer = buffer[cut:]
        return b"".join(pieces)

    def _carried(self, buffer: bytes) -> list[Span]:
        """What of the buffer's beginning belongs to a span that was emitted in part."""
        end = self._owed
        if self._in_key:
            found = _BASE64_RUN.match(buffer)
            end = max(end, 0 if found is None else found.end())
        return [Span(0, end, b"")] if end else []

    def _cut(self, marks: bytes, spans: list[Span]) -> int:
        """Return up to where the buffer can be emitted: the end of the last whole run."""
        needles = self._redactor.needles
        cut = marks.rfind(b" ", 0, max(0, len(marks) - needles.longest_other)) + 1
        # The one word that a blank parts from its value stays with it.
        if self._buffer.endswith(_TOKEN_WORDS[0], 0, cut):
            cut -= len(_TOKEN_WORDS[0])
        for span in reversed(spans):
            if span.start < cut < span.end:
                cut = span.start
        if len(marks) - cut > _MAX_RUN:
            # Through the middle of a run, or of a key: the rest of it is owed.
            return len(marks) - max(needles.longest, destinations.CHARS)
        return cut


def _keys(data: bytes) -> list[Span]:
    """The private keys and tokens behind the words that introduce them."""
    found = []
    for start, end in _runs_behind(_KEY_WORD, data):
        if end > start:
            found.append(Span(start, end, _KEY_MARK))
    for word in _TOKEN_WORDS:
        for start, end in _runs_behind(word, data):
            if end - start >= MIN_CHARS:
                found.append(Span(start, end, _TOKEN_MARK))
    for start, end in _runs_behind(_PAIR_WORD, data):
        public = destinations.public_chars(data[start : start + 600].decode("ascii", "replace"))
        # Padding alone is no key.
        if end - start > public and data[start + public : end].strip(b"="):
            found.append(Span(start + public, end, _KEY_MARK))
    return found


def _before_keys(data: bytes) -> list[tuple[int, int]]:
    """The destinations behind the word, also those that neither length nor certificate shows."""
    places = []
    for start, end in _runs_behind(_PAIR_WORD, data):
        public = destinations.public_chars(data[start : start + 600].decode("ascii", "replace"))
        if end - start >= public:
            places.append((start, start + public))
    return places


def _runs_behind(word: bytes, data: bytes) -> list[tuple[int, int]]:
    places = []
    at = data.find(word)
    while at >= 0:
        begin = at + len(word)
        found = _BASE64_RUN.match(data, begin)
        places.append((begin, begin if found is None else found.end()))
        at = data.find(word, begin)
    return places
