"""Writes the members of a bundle, each masked, and the manifest that names them with SHA-256.

Whatever is written passes the search for secrets that are still there; a hit ends the bundle
before its last bytes, so that nobody can take it for one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from soakd.bundle.redact import Redactor
from soakd.bundle.search import Search, SecretLeftError
from soakd.bundle.tar_stream import TarStream

MANIFEST: Final = "MANIFEST.json"
MANIFEST_FORMAT: Final = 1
_CHUNK: Final = 1 << 20


class BundleWriter:
    """One bundle, written to a descriptor; `finish` completes it.

    Args:
        output: descriptor, stays the caller's.
        redactor: masks contents, names and manifest.
        max_listed: most names in the manifest's list of what was left out.
    """

    def __init__(self, output: int, redactor: Redactor, max_listed: int) -> None:
        self.members: list[dict[str, Any]] = []
        self._left_out: list[dict[str, Any]] = []
        self._unlisted = 0
        self._max_listed = max_listed
        self._redactor = redactor
        self._search = Search(redactor.needles)
        self._tar = TarStream(output, self._check)
        self._names: set[str] = {MANIFEST}
        self._writing = "the beginning"

    def add(
        self,
        name: str,
        size: int,
        contents: Iterable[bytes],
        *,
        mtime: float = 0,
        executable: bool = False,
        facts: Mapping[str, object] | None = None,
    ) -> None:
        """Write a member of exactly `size` bytes; what is missing of it is zeros, and named.

        Raises:
            OutputError: the output cannot be written.
            SecretLeftError: a secret would have left.
        """
        self._writing = free = self._free_name(name)
        member: dict[str, Any] = {"name": free, "size": size, **(facts or {})}
        self._tar.begin(free, size, mtime, executable=executable)
        digest = hashlib.sha256()
        masker = self._redactor.masker()
        copied = 0
        for data in contents:
            copied += len(data)
            self._put(masker.feed(data), digest)
        self._put(masker.finish(), digest)
        if copied < size:
            member["padded"] = size - copied
        for piece in _zeros(size - copied):
            self._put(piece, digest)
        self._tar.end()
        self.members.append(member | {"sha256": digest.hexdigest()})

    def leave_out(self, name: str, reason: str, **details: object) -> None:
        """Name something that is not in the bundle, and say why."""
        if len(self._left_out) < self._max_listed:
            self._left_out.append(self.masked({"name": name, "reason": reason, **details}))
        else:
            self._unlisted += 1

    def masked(self, value: Any) -> Any:
        """Mask every text in a value: after `json.dumps` a quoted secret may be spelt otherwise."""
        if isinstance(value, str):
            return self._redactor.text(value)
        if isinstance(value, Mapping):
            return {self.masked(key): self.masked(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.masked(item) for item in value]
        return value

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Write the manifest and the end of the archive.

        Args:
            facts: come first in the manifest.

        Raises:
            OutputError, SecretLeftError: as `add`.
        """
        manifest = {
            "format": MANIFEST_FORMAT,
            **facts,
            "members": self.members,
            "left_out": self._left_out,
            "left_out_unnamed": self._unlisted,
        }
        # Masked again as a whole: names and targets are user input.
        data = self._redactor.data(("\n".join(_lines(manifest)) + "\n").encode())
        self._writing = MANIFEST
        self._tar.begin(MANIFEST, len(data), 0)
        self._tar.data(data)
        self._tar.end()
        self._tar.finish()

    def _put(self, data: bytes, digest: hashlib._Hash) -> None:
        digest.update(data)
        self._tar.data(data)

    def _check(self, data: bytes) -> None:
        kind = self._search.feed(data)
        if kind is not None:
            # Nor in the message: a name that was not masked is not named.
            name = self._writing.encode("utf-8", "surrogateescape")
            is_clean = Search(self._redactor.needles).feed(name) is None
            place = ascii(self._writing)[1:-1][:200] if is_clean else "a name"
            raise SecretLeftError(f"a {kind} would have been left in {place}")

    def _free_name(self, name: str) -> str:
        """Return the name without secrets, made different if another member has it already."""
        masked = self._redactor.text(name)
        free, number = masked, 1
        while free in self._names:
            number += 1
            free = f"{masked}~{number}"
        self._names.add(free)
        return free


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        piece = bytes(min(_CHUNK, count))
        yield piece
        count -= len(piece)


def _lines(manifest: Mapping[str, Any]) -> Iterable[str]:
    """Render the manifest with one member per line, for `grep` and `diff`."""
    yield "{"
    last = len(manifest) - 1
    for index, (key, value) in enumerate(manifest.items()):
        comma = "," if index < last else ""
        if isinstance(value, list) and value:
            yield f" {json.dumps(key)}: ["
            yield ",\n".join(f"  {json.dumps(item)}" for item in value)
            yield f" ]{comma}"
        else:
            yield f" {json.dumps(key)}: {json.dumps(value)}{comma}"
    yield "}"
