"""Reads a bundle or a run folder that somebody else made, as a stream of members.

Nothing is extracted and nothing is trusted: only regular files under plain relative names come
out, and members, bytes and the ratio of compression are limited. What is torn or damaged gives
what was readable; `notes` says what is missing. Called by triage and by the cleaning of old
tarballs. What a member means is decided there.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any, NamedTuple

from soakd.bundle import tar_headers
from soakd.bundle.tar_headers import BLOCK, Damaged, Header
from soakd.bundle.tree import open_regular

_make_inflater: Any = zlib.decompressobj
_inflate_errors: Any = (zlib.error,)
with suppress(ImportError):
    from isal import isal_zlib

    _make_inflater = isal_zlib.decompressobj
    _inflate_errors = (zlib.error, isal_zlib.error)

PIECE_BYTES = 1 << 17
"""Most bytes of a piece: what is split into lines should stay in a processor's cache."""
_INPUT_BYTES = 1 << 16
_GZIP = b"\x1f\x8b"
_ANY_GZIP = 31
_MAX_NOTES = 50
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class NotABundle(Exception):
    """A path is neither a bundle nor a run folder; the text says why and what would be one."""


class Limits(NamedTuple):
    """Bounds of what is read of one bundle; what lies behind a bound is not read, and noted.

    Attributes:
        members: most headers of a tarball, most files of a folder.
        total_bytes: most bytes of all members together.
        ratio: most bytes out per byte in, judged beyond `ratio_free_bytes`. gzip reaches 1028,
            node logs reach 50.
        ratio_free_bytes: so much may come out of a small file before its ratio counts.
    """

    members: int = 100_000
    total_bytes: int = 1 << 36
    ratio: int = 250
    ratio_free_bytes: int = 1 << 26


class Member:
    """One regular file; its pieces must be taken before the next member is asked for.

    Attributes:
        name: relative, without `.` and `..`, parts separated by `/`.
        size: bytes as announced; a torn bundle may hold fewer.
    """

    def __init__(self, name: str, size: int, pieces: Iterator[bytes]) -> None:
        self.name = name
        self.size = size
        self.pieces = pieces


class Bundle:
    """One bundle or folder, read once from its beginning to its end.

    Attributes:
        kind: `tarball` or `folder`.
        notes: what could not be read, or was left aside, in sentences.
        is_torn: it ended, or was damaged, or ran into a limit, before it was read to its end.
    """

    def __init__(self, path: str, limits: Limits | None = None) -> None:
        """Opens nothing yet."""
        self.path = path
        self.kind = "folder" if os.path.isdir(path) else "tarball"
        self.notes: list[str] = []
        self.is_torn = False
        self._limits = Limits() if limits is None else limits

    @property
    def packed_bytes(self) -> int:
        """Size of a tarball as it lies on the disk; 0 for a folder."""
        try:
            return os.stat(self.path).st_size if self.kind == "tarball" else 0
        except OSError:
            return 0

    def members(self) -> Iterator[Member]:
        """Yield every regular file in the order in which it stands.

        Raises:
            NotABundle: the path is neither a folder nor a tarball, or cannot be opened.
        """
        if self.kind == "folder":
            return self._of_folder()
        return self._of_tarball()

    def note(self, text: str) -> None:
        """Remember a sentence about what is missing; the first fifty stand."""
        if len(self.notes) < _MAX_NOTES:
            self.notes.append(text)

    # -- folders -------------------------------------------------------------------------------

    def _of_folder(self) -> Iterator[Member]:
        """The files of the folder itself and of its `logs`: node folders hold no records.

        `logs` may be a link, as it is in a RUN_ROOT; a file that is one is left aside.
        """
        found = 0
        for folder, prefix in ((self.path, ""), (os.path.join(self.path, "logs"), "logs/")):
            try:
                descriptor = os.open(folder, _FOLDER)
            except OSError as error:
                if not prefix:
                    raise NotABundle(_cannot_open(self.path, error)) from error
                continue
            try:
                for name in sorted(os.listdir(descriptor)):
                    found += 1
                    if found > self._limits.members:
                        self.note(f"only the first {self._limits.members} files were looked at")
                        return
                    yield from self._file(descriptor, name, prefix + name)
            finally:
                os.close(descriptor)

    def _file(self, folder: int, name: str, path: str) -> Iterator[Member]:
        try:
            if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                return
            with open_regular(name, folder) as descriptor:
                size = os.fstat(descriptor).st_size
                yield Member(path, size, _contents(descriptor, size))
        except OSError as error:
            self.note(f"cannot read {path}: {error.strerror or error}")

    # -- tarballs ------------------------------------------------------------------------------

    def _of_tarball(self) -> Iterator[Member]:
        try:
            with (
                open_regular(self.path, follow=True) as descriptor,
                os.fdopen(os.dup(descriptor), "rb", buffering=0) as file,
            ):
                yield from self._of_stream(_Stream(file, self._limits))
        except OSError as error:
            raise NotABundle(_cannot_open(self.path, error)) from error

    def _of_stream(self, stream: _Stream) -> Iterator[Member]:
        """Walk the headers; whatever stops the walk is a note."""
        reading, seen = "", 0
        try:
            for header in tar_headers.walk(stream.exactly):
                seen += 1
                if seen > self._limits.members:
                    raise Damaged(f"more than {self._limits.members} members, the rest is not read")
                reading = header.name
                content = _Content(stream.pieces(header.size))
                if self._wanted(header):
                    yield Member(header.name, header.size, iter(content))
                content.finish()
                stream.skip(-header.size % BLOCK)
        except Damaged as damage:
            if seen == 0:
                text = f"cannot read {self.path}: {damage}"
                raise NotABundle(f"{text}; wanted is a .tar.gz or a run folder") from damage
            self.is_torn = True
            self.note(f"the bundle cannot be read beyond {reading or 'its beginning'}: {damage}")

    def _wanted(self, header: Header) -> bool:
        if not header.is_file:
            if header.is_link:
                self.note(f"{header.name} is a link: ignored")
            return False
        if header.name.startswith("/") or ".." in header.name.split("/"):
            self.note(f"{header.name} leads out of the bundle: ignored")
            return False
        return bool(header.name)


class _Content:
    """What a member holds: its reader sees it end early where the bundle is torn."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._damage: Damaged | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._pieces
        except Damaged as damage:
            self._damage = damage

    def finish(self) -> None:
        """Pass over what was not taken.

        Raises:
            Damaged: the member is torn.
        """
        for _ in self._pieces:
            pass
        if self._damage is not None:
            raise self._damage


class _Stream:
    """The bytes of a tarball, compressed or not, taken from the front."""

    def __init__(self, file: IO[bytes], limits: Limits) -> None:
        self._file = file
        self._limits = limits
        self._source = self._blocks()
        self._data = b""
        self._at = 0
        self._in = 0
        self._out = 0

    def exactly(self, count: int) -> bytes:
        """Return the next bytes; fewer only at the end.

        Raises:
            Damaged: they cannot be had.
        """
        parts = []
        while count > 0 and (piece := self._next(count)):
            parts.append(piece)
            count -= len(piece)
        return b"".join(parts)

    def pieces(self, count: int) -> Iterator[bytes]:
        """Yield the next bytes as they come.

        Raises:
            Damaged: the stream ends before.
        """
        missing = count
        while missing > 0:
            piece = self._next(missing)
            if not piece:
                raise Damaged(f"it ends there, {missing} of {count} bytes are missing")
            missing -= len(piece)
            yield piece

    def skip(self, count: int) -> None:
        """Pass over padding; its lack at the very end is no damage."""
        self.exactly(count)

    def _next(self, count: int) -> bytes:
        if self._at >= len(self._data):
            self._data, self._at = next(self._source, b""), 0
        if self._at == 0 and count >= len(self._data):
            piece, self._data = self._data, b""
            return piece
        piece = self._data[self._at : self._at + count]
        self._at += len(piece)
        return piece

    def _blocks(self) -> Iterator[bytes]:
        data = self._read()
        blocks = self._inflated(data) if data[:2] == _GZIP else self._plain(data)
        for block in blocks:
            self._out += len(block)
            self._check()
            yield block

    def _plain(self, data: bytes) -> Iterator[bytes]:
        while data:
            yield data
            data = self._read()

    def _inflated(self, data: bytes) -> Iterator[bytes]:
        """Yield what is compressed, gzip member after gzip member."""
        while data[:2] == _GZIP:
            inflater = _make_inflater(_ANY_GZIP)
            while not inflater.eof:
                if not data:
                    raise Damaged("the compressed file is torn")
                yield _inflate(inflater, data)
                data = inflater.unconsumed_tail or (b"" if inflater.eof else self._read())
            data = inflater.unused_data or self._read()

    def _read(self) -> bytes:
        try:
            data = self._file.read(_INPUT_BYTES)
        except OSError as error:
            raise Damaged(error.strerror or str(error)) from error
        self._in += len(data)
        return data

    def _check(self) -> None:
        limits = self._limits
        if self._out > limits.total_bytes:
            raise Damaged(f"more than {limits.total_bytes} bytes, the rest is not read")
        if self._out > limits.ratio_free_bytes and self._out > limits.ratio * self._in:
            raise Damaged(f"it is packed more than {limits.ratio}:1, the rest is not read")


def _inflate(inflater: Any, data: bytes) -> bytes:
    # Bounded: a few bytes can stand for megabytes.
    try:
        piece: bytes = inflater.decompress(data, PIECE_BYTES)
    except _inflate_errors as error:
        raise Damaged(f"the compressed file is damaged ({error})") from error
    return piece


def _contents(descriptor: int, size: int) -> Iterator[bytes]:
    """The first `size` bytes of a file that may be growing or shrinking meanwhile."""
    at = 0
    while at < size:
        data = b""
        with suppress(OSError):
            data = os.pread(descriptor, min(PIECE_BYTES, size - at), at)
        if not data:
            return
        at += len(data)
        yield data


def _cannot_open(path: str, error: OSError) -> str:
    return f"cannot open {path}: {error.strerror or error}; wanted is a .tar.gz or a run folder"
