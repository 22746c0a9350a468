"""Packs one bundle: records by descriptor, node folders by walking, the manifest last.

Every byte and every name passes the redactor. Sizes are fixed when a member is opened: a file
that grows is cut there, one that shrinks is padded with zeros, and the manifest says so. A binary
file in which a secret stands is left out: there it may be part of anything. So is a compressed
one, into which nobody can look.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping

from soakd.bundle import pieces
from soakd.bundle.destinations import Pseudonyms
from soakd.bundle.pieces import Piece
from soakd.bundle.redact import Redactor
from soakd.bundle.search import Search, head_bytes, is_binary, is_compressed
from soakd.bundle.secret_files import SecretFiles, is_peer_list, is_secret_name
from soakd.bundle.spec import BundleSpec
from soakd.bundle.tree import Entry, open_regular, walk
from soakd.bundle.writer import BundleWriter

_CHUNK = 1 << 20
_MAX_NAME_BYTES = 4096


class Packer:
    """Writes the bundle of one spec to one descriptor."""

    def __init__(self, spec: BundleSpec, output: int) -> None:
        self._spec = spec
        self._redactor = Redactor(spec.secrets, None if spec.keep_destinations else Pseudonyms())
        self._writer = BundleWriter(output, self._redactor, spec.limits.members)
        folders = [node.path for node in spec.nodes] + list(spec.sources)
        self._secrets = SecretFiles(folders, spec.limits.scanned, spec.secret_names)

    def run(self, records: Mapping[str, int]) -> None:
        """Pack everything.

        Raises:
            OutputError: the output cannot be written.
            SecretLeftError: a secret would have left.
        """
        for name, descriptor in records.items():
            parts = pieces.around_holes(descriptor, os.fstat(descriptor).st_size)
            self._add(name, descriptor, parts)
        for item in self._spec.left_out:
            self._writer.leave_out(item.name, item.reason)
        for node in self._spec.nodes:
            if node.marker and _run_named_in(node.marker) != node.run:
                reason = "its RUN_ROOT was used by another run since"
                self._writer.leave_out(node.name, reason)
                continue
            for entry in walk(node.path, self._spec.limits.depth):
                self._take(f"{node.name}/{entry.path}".rstrip("/"), entry)
        self._learn()
        self._writer.finish(
            {
                "about": self._writer.masked(self._spec.about),
                "full": self._spec.full,
                "keep_destinations": self._spec.keep_destinations,
                "secrets_searched": "all" if self._secrets.complete else "part of the folders",
            }
        )

    def _take(self, name: str, entry: Entry) -> None:
        """Pack one entry of a node folder, or say why not."""
        if entry.problem is not None:
            details = {} if entry.target is None else {"target": entry.target}
            self._writer.leave_out(name, entry.problem, **details)
        elif is_secret_name(entry.name, self._spec.secret_names):
            # Neither size nor hash: a hash of four secret bytes is guessed in minutes.
            self._writer.leave_out(name, "secret")
        elif len(os.fsencode(name)) > _MAX_NAME_BYTES:
            self._writer.leave_out(name, "name too long")
        else:
            try:
                with open_regular(entry.name, entry.folder) as descriptor:
                    self._take_file(name, entry, descriptor)
            except OSError as error:
                self._writer.leave_out(name, error.strerror or "unreadable")

    def _take_file(self, name: str, entry: Entry, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        limits = self._spec.limits
        reason = self._bulky(entry)
        if reason is not None and not self._spec.full:
            digest = _sha256(descriptor, size) if size <= limits.hash_bytes else None
            self._writer.leave_out(name, reason, size=size, sha256=digest)
        elif size > limits.member_bytes:
            self._writer.leave_out(name, "too big", size=size)
        elif len(self._writer.members) >= limits.members:
            self._writer.leave_out(name, "too many members", size=size)
        else:
            unsafe = self._unsafe(entry, descriptor, size)
            if unsafe is None:
                self._add(name, descriptor, pieces.whole(size))
            else:
                self._writer.leave_out(name, unsafe, size=size)

    def _bulky(self, entry: Entry) -> str | None:
        """Say why a file is represented by its hash alone."""
        if entry.path in self._spec.binaries:
            return "binary"
        return "download part" if entry.name.endswith(".part") else None

    def _unsafe(self, entry: Entry, descriptor: int, size: int) -> str | None:
        """Say why masking would not make a file safe."""
        if is_peer_list(entry.name) and not self._spec.keep_destinations:
            return "destinations of peers in binary form; collect --keep-destinations packs it"
        head = _read(descriptor, min(size, head_bytes()), 0)
        # What was downloaded is no log of ours, and mostly compressed.
        if is_compressed(head) and self._bulky(entry) is None:
            return "compressed: nobody can look for secrets in it"
        if not is_binary(head):
            return None
        self._learn()
        search = Search(self._redactor.needles, raw=True)
        for data in _contents(descriptor, pieces.whole(size)):
            kind = search.feed(data)
            if kind is not None:
                return f"binary with a {kind} in it"
        return None

    def _learn(self) -> None:
        for secret in self._secrets.changed():
            self._redactor.add(secret)

    def _add(self, name: str, descriptor: int, parts: list[Piece]) -> None:
        """Pack the parts of an open file, as long as they are now."""
        info = os.fstat(descriptor)
        self._learn()
        missing = pieces.dropped(parts, info.st_size)
        self._writer.add(
            name,
            pieces.length(parts),
            _contents(descriptor, parts),
            mtime=info.st_mtime,
            executable=bool(info.st_mode & 0o100),
            facts={"dropped": missing} if missing else None,
        )


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
