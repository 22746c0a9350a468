"""Packs one bundle: records by descriptor, node folders by walking, the manifest last.

Every byte and every name passes the redactor. Sizes are fixed when a member is opened: a file
that grows is cut there, one that shrinks is padded with zeros, and the manifest says so.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from soakd.bundle import pieces
from soakd.bundle.pieces import Piece
from soakd.bundle.redact import Redactor
from soakd.bundle.secret_files import SecretFiles, is_secret_name
from soakd.bundle.spec import BundleSpec
from soakd.bundle.tar_stream import TarStream
from soakd.bundle.tree import Entry, open_regular, walk

MANIFEST = "MANIFEST.json"
MANIFEST_FORMAT = 1
_CHUNK = 1 << 20
_MAX_NAME_BYTES = 4096


class Packer:
    """Writes the bundle of one spec to one descriptor."""

    def __init__(self, spec: BundleSpec, output: int) -> None:
        self._spec = spec
        self._tar = TarStream(output)
        self._redactor = Redactor(spec.secrets)
        folders = [node.path for node in spec.nodes] + list(spec.sources)
        self._secrets = SecretFiles(folders, spec.limits.scanned)
        self._names: set[str] = {MANIFEST}
        self._members: list[dict[str, Any]] = []
        self._left_out: list[dict[str, Any]] = []
        self._dropped = 0

    def run(self, records: Mapping[str, int]) -> None:
        """Pack everything.

        Raises:
            OutputError: the output cannot be written.
        """
        for name, descriptor in records.items():
            parts = pieces.around_holes(descriptor, os.fstat(descriptor).st_size)
            self._add(name, descriptor, parts)
        for item in self._spec.left_out:
            self._leave_out(item.name, item.reason)
        for node in self._spec.nodes:
            if node.marker and _run_named_in(node.marker) != node.run:
                self._leave_out(node.name, "its RUN_ROOT was used by another run since")
                continue
            for entry in walk(node.path, self._spec.limits.depth):
                self._take(f"{node.name}/{entry.path}".rstrip("/"), entry)
        self._write_manifest()
        self._tar.finish()

    def _take(self, name: str, entry: Entry) -> None:
        """Pack one entry of a node folder, or say why not."""
        if entry.problem is not None:
            details = {} if entry.target is None else {"target": entry.target}
            self._leave_out(name, entry.problem, **details)
        elif is_secret_name(entry.name):
            # Neither size nor hash: a hash of four secret bytes is guessed in minutes.
            self._leave_out(name, "secret")
        elif len(os.fsencode(name)) > _MAX_NAME_BYTES:
            self._leave_out(name, "name too long")
        else:
            try:
                with open_regular(entry.name, entry.folder) as descriptor:
                    self._take_file(name, entry, descriptor)
            except OSError as error:
                self._leave_out(name, error.strerror or "unreadable")

    def _take_file(self, name: str, entry: Entry, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        limits = self._spec.limits
        reason = self._bulky(entry)
        if reason is not None:
            digest = _sha256(descriptor, size) if size <= limits.hash_bytes else None
            self._leave_out(name, reason, size=size, sha256=digest)
        elif size > limits.member_bytes:
            self._leave_out(name, "too big", size=size)
        elif len(self._members) >= limits.members:
            self._leave_out(name, "too many members", size=size)
        else:
            self._add(name, descriptor, pieces.whole(size))

    def _bulky(self, entry: Entry) -> str | None:
        """Say why a file is represented by its hash alone."""
        if self._spec.full:
            return None
        if entry.path in self._spec.binaries:
            return "binary"
        return "download part" if entry.name.endswith(".part") else None

    def _add(self, name: str, descriptor: int, parts: list[Piece]) -> None:
        """Pack the parts of an open file, as long as they are now."""
        info = os.fstat(descriptor)
        for secret in self._secrets.changed():
            self._redactor.add(secret)
        size = pieces.length(parts)
        member: dict[str, Any] = {"name": self._free_name(name), "size": size}
        if missing := pieces.dropped(parts, info.st_size):
            member["dropped"] = missing
        executable = bool(info.st_mode & 0o100)
        self._tar.begin(member["name"], size, info.st_mtime, executable=executable)
        digest = hashlib.sha256()
        masker = self._redactor.masker()
        copied = 0
        for data in _contents(descriptor, parts):
            copied += len(data)
            self._put(masker.feed(data), digest)
        self._put(masker.finish(), digest)
        if copied < size:
            member["padded"] = size - copied
        self._pad(size - copied, digest)
        self._tar.end()
        member["sha256"] = digest.hexdigest()
        self._members.append(member)

    def _put(self, data: bytes, digest: hashlib._Hash) -> None:
        digest.update(data)
        self._tar.data(data)

    def _pad(self, missing: int, digest: hashlib._Hash) -> None:
        while missing > 0:
            piece = bytes(min(_CHUNK, missing))
            self._put(piece, digest)
            missing -= len(piece)

    def _free_name(self, name: str) -> str:
        """Return the name without secrets, made different if another member has it already."""
        masked = self._redactor.text(name)
        free, number = masked, 1
        while free in self._names:
            number += 1
            free = f"{masked}~{number}"
        self._names.add(free)
        return free

    def _leave_out(self, name: str, reason: str, **details: object) -> None:
        if len(self._left_out) >= self._spec.limits.members:
            self._dropped += 1
            return
        self._left_out.append(self._masked({"name": name, "reason": reason, **details}))

    def _masked(self, value: Any) -> Any:
        """Mask every text in a value: after `json.dumps` a quoted secret may be spelt otherwise."""
        if isinstance(value, str):
            return self._redactor.text(value)
        if isinstance(value, Mapping):
            return {self._masked(key): self._masked(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._masked(item) for item in value]
        return value

    def _write_manifest(self) -> None:
        """Write the list of members, masked again as a whole: names and targets are user input."""
        for secret in self._secrets.changed():
            self._redactor.add(secret)
        manifest = {
            "format": MANIFEST_FORMAT,
            "about": self._masked(self._spec.about),
            "full": self._spec.full,
            "keep_destinations": self._spec.keep_destinations,
            "secrets_searched": "all" if self._secrets.complete else "part of the folders",
            "members": self._members,
            "left_out": self._left_out,
            "left_out_unnamed": self._dropped,
        }
        text = "\n".join(_lines(manifest)) + "\n"
        data = self._redactor.data(text.encode())
        self._tar.begin(MANIFEST, len(data), 0)
        self._tar.data(data)
        self._tar.end()


def _run_named_in(marker: str) -> str | None:
    """The run that a RUN_ROOT's marker names; None if there is no readable marker."""
    folder, _, name = marker.rpartition("/")
    try:
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with open_regular(name, directory) as descriptor:
                named = json.loads(os.pread(descriptor, 4096, 0)).get("run")
        finally:
            os.close(directory)
    except (OSError, ValueError, AttributeError):
        return None
    return named if isinstance(named, str) else None


def _contents(descriptor: int, parts: list[Piece]) -> Iterator[bytes]:
    """What the parts hold; ends early where the file has become shorter."""
    for part in parts:
        if isinstance(part, bytes):
            yield part
            continue
        at, end = part
        while at < end:
            data = _read(descriptor, min(_CHUNK, end - at), at)
            if not data:
                return
            at += len(data)
            yield data


def _read(descriptor: int, count: int, offset: int) -> bytes:
    """Read a piece; a failing disk is a file that ends here, noted as padded."""
    try:
        return os.pread(descriptor, count, offset)
    except OSError:
        return b""


def _sha256(descriptor: int, size: int) -> str:
    digest = hashlib.sha256()
    done = 0
    while done < size and (data := _read(descriptor, min(_CHUNK, size - done), done)):
        digest.update(data)
        done += len(data)
    return digest.hexdigest()


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
