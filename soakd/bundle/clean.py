"""Makes a clean bundle of a tarball that was made without care, such as those of the scripts.

The old file is read three times and trusted never: once to learn its secrets, once to find the
binary members that hold one, once to write. Nothing is extracted. The new file appears under its
name only when it is complete and every byte of it was searched.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from soakd.bundle.compress import compress, make_compressor
from soakd.bundle.destinations import Pseudonyms
from soakd.bundle.learn import Learner, TooManySecretsError
from soakd.bundle.needles import DESTINATION
from soakd.bundle.reader import Bundle, Limits, Member, NotABundle
from soakd.bundle.redact import Redactor
from soakd.bundle.search import Search, SecretLeftError, head_bytes, is_binary, is_compressed
from soakd.bundle.secret_files import is_peer_list, is_secret_name
from soakd.bundle.tar_stream import OutputError
from soakd.bundle.writer import MANIFEST, BundleWriter

_MAX_LISTED: Final = 50_000
_MAX_NAME_BYTES: Final = 4096


class CannotRedactError(Exception):
    """No clean bundle could be made; the text says why, and nothing was written."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a cleaning.

    Attributes:
        secrets: Different tokens and keys that were found and masked.
        notes: What of the old tarball could not be read.
    """

    members: int
    left_out: int
    secrets: int
    notes: tuple[str, ...]


def redact_tarball(
    source: str, target: str, *, keep_destinations: bool = False, limits: Limits | None = None
) -> Report:
    """Write a copy of a tarball without its secrets, and with a manifest.

    Args:
        source: The old tarball, compressed or not.
        target: The new one; it must not exist.
        keep_destinations: Leave destinations as they are instead of giving them pseudonyms.
        limits: Of what is read.

    Raises:
        CannotRedactError: Nothing was written.
    """
    if os.path.isdir(source):
        raise CannotRedactError(f"cannot redact {source}: it is a folder, wanted is a tarball")
    if os.path.lexists(target):
        raise CannotRedactError(f"cannot write {target}: it exists already, name another file")
    try:
        cleaning = _Cleaning(source, limits, keep_destinations=keep_destinations)
        cleaning.learn()
        with _new_file(target) as output:
            return cleaning.write(output)
    except (NotABundle, TooManySecretsError, SecretLeftError, OutputError) as error:
        raise CannotRedactError(f"cannot redact {source}: {error}") from error
    except OSError as error:
        why = error.strerror or str(error)
        raise CannotRedactError(f"cannot write {target}: {why}") from error


class _Cleaning:
    """One tarball; `learn` comes before `write`."""

    def __init__(self, source: str, limits: Limits | None, *, keep_destinations: bool) -> None:
        self._source = source
        self._limits = limits
        self._keep_destinations = keep_destinations
        self._redactor = Redactor((), None if keep_destinations else Pseudonyms())
        self._secrets = 0
        self._notes: list[str] = []
        self._sizes: list[int] = []
        """What each member really holds: the announced size may be a lie."""
        self._unsafe: dict[int, str] = {}

    def learn(self) -> None:
        """Read the secrets, and find the binary members that hold one."""
        learner = Learner()
        bundle = Bundle(self._source, self._limits)
        for member in bundle.members():
            if is_secret_name(_last(member.name)):
                learner.secret_file(member.pieces)
                self._sizes.append(0)
            else:
                self._sizes.append(learner.log(member.pieces))
        self._notes = bundle.notes
        for secret in learner.values:
            self._redactor.add(secret)
            self._secrets += secret.kind != DESTINATION
        for place, member in self._members():
            head, pieces = _peek(member.pieces)
            if is_binary(head):
                search = Search(self._redactor.needles, raw=True)
                kinds = [kind for piece in pieces if (kind := search.feed(piece)) is not None]
                if kinds:
                    self._unsafe[place] = f"binary with a {kinds[0]} in it"

    def write(self, output: int) -> Report:
        """Write the clean bundle to a descriptor."""
        writer = BundleWriter(output, self._redactor, _MAX_LISTED)
        left_out = 0
        for place, member in self._members():
            head, pieces = _peek(member.pieces)
            reason = self._reason(place, member.name, head)
            if reason is not None:
                writer.leave_out(member.name, reason)
                left_out += 1
            else:
                writer.add(member.name, self._sizes[place], pieces)
        writer.finish(
            {
                "about": {"redacted_from": os.path.basename(self._source)},
                "keep_destinations": self._keep_destinations,
                "notes": writer.masked(self._notes),
            }
        )
        return Report(len(writer.members), left_out, self._secrets, tuple(self._notes))

    def _reason(self, place: int, name: str, head: bytes) -> str | None:
        """Say why a member is left out."""
        last = _last(name)
        if is_secret_name(last):
            return "secret"
        if name == MANIFEST:
            return "the manifest of the old bundle"
        if len(os.fsencode(name)) > _MAX_NAME_BYTES:
            return "name too long"
        if is_peer_list(last) and not self._keep_destinations:
            return "destinations of peers in binary form"
        if is_compressed(head):
            return "compressed: nobody can look for secrets in it"
        return self._unsafe.get(place)

    def _members(self) -> Iterator[tuple[int, Member]]:
        """The members once more; what has come to the file since is not looked at."""
        members = Bundle(self._source, self._limits).members()
        return zip(range(len(self._sizes)), members, strict=False)


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _peek(pieces: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Return what tells the kind of a file, and all of its pieces."""
    taken, size = [], 0
    for piece in pieces:
        taken.append(piece)
        size += len(piece)
        if size >= head_bytes():
            break
    return b"".join(taken), _both(taken, pieces)


def _both(first: Iterable[bytes], then: Iterable[bytes]) -> Iterator[bytes]:
    yield from first
    yield from then


@contextmanager
def _new_file(target: str) -> Iterator[int]:
    """Yield a descriptor whose bytes become, compressed, a new file: complete or not at all."""
    part = f"{target}.{os.urandom(3).hex()}.part"
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with _compressed(file) as output:
            yield output
        os.fsync(file)
        # Fails where rename would overwrite.
        os.link(part, target)
    finally:
        os.close(file)
        with suppress(FileNotFoundError):
            os.unlink(part)


@contextmanager
def _compressed(file: int) -> Iterator[int]:
    """Yield the end of a pipe behind which a thread compresses into `file`."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    errors: list[OSError] = []

    def work() -> None:
        try:
            compress(read_end, file, make_compressor())
        except OSError as error:
            errors.append(error)
        finally:
            # A writer that waits for room would wait for ever.
            os.close(read_end)

    thread = threading.Thread(target=work, name="compress")
    thread.start()
    try:
        yield write_end
    except OutputError:
        if not errors:
            raise
    finally:
        os.close(write_end)
        thread.join()
    if errors:
        raise errors[0]
