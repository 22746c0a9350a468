"""Finds the secret files of node and source folders, and the values in them.

A value can only reach a log after it was written to its file. So `SecretFiles.changed` is asked
after the size of a member was fixed and before its bytes are read: whatever stands in those bytes
is known by then, even if the node makes a new token while the bundle is being packed.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

from soakd.bundle.needles import DESTINATION
from soakd.bundle.spec import Secret
from soakd.bundle.spellings import MIN_CHARS
from soakd.bundle.tree import open_regular

# The program writes X.tmp and renames; users keep copies such as sam.keys.old.
_STEMS = ("api.token", "sam.keys", "kad_udp_key_secret.dat")
_NAMES = frozenset({"api.tmp", "sam.tmp", "kad_udp_key_secret.tmp"})
# Where the program writes before anything else is there to be found.
_USUAL_FOLDERS = ("", "data")
_MAX_SECRET_BYTES = 64 << 10
_MAX_DEPTH = 12
_PEERS = re.compile(r"nodes(\.[a-z]+)?\.(dat|tmp)(\W.*)?")
_ASSIGNMENT = re.compile(r"^[ \t]*(PUB|PRIV)[ \t]*=[ \t]*(\S+)", re.MULTILINE)


def is_secret_name(name: str, also: tuple[str, ...] = ()) -> bool:
    """Say whether a file of this name never enters a bundle; `also` are further beginnings."""
    lowered = name.lower()
    return lowered in _NAMES or lowered.startswith(_STEMS + also)


def is_peer_list(name: str) -> bool:
    """Say whether a file of this name holds destinations of peers in binary form."""
    return _PEERS.fullmatch(name.lower()) is not None


def values_in(text: str) -> list[Secret]:
    """Return the values in the text of a token or key file: secrets, and the node's destination.

    Of a private key only what follows its public part is secret: the public part is the
    destination, which stands in many places of a log.
    """
    keys = [(name, value) for name, value in _ASSIGNMENT.findall(text)]
    if not keys:
        token = text.strip()
        return [Secret("token", token)] if len(token) >= MIN_CHARS else []
    publics = [value.rstrip("=") for name, value in keys if name == "PUB"]
    found = []
    for private in (value for name, value in keys if name == "PRIV"):
        tail = private
        for public in publics:
            if public and private.startswith(public):
                tail = private[len(public) :]
        found.append(Secret("key", tail if len(tail) >= MIN_CHARS else private))
    return found + [Secret(DESTINATION, public) for public in publics]


class SecretFiles:
    """The secret files below some folders; knows again which of them changed."""

    def __init__(self, folders: list[str], max_scanned: int, also: tuple[str, ...] = ()) -> None:
        self.complete = True
        self._also = also
        self._places: set[str] = set()
        self._seen: dict[str, tuple[int, int, int]] = {}
        for folder in folders:
            self._places.update(os.path.join(folder, usual) for usual in _USUAL_FOLDERS)
            self._scan(folder, max_scanned)

    def changed(self) -> list[Secret]:
        """Return the values of files that are new or different since the last call."""
        found = []
        for path in self._candidates():
            try:
                with open_regular(path, follow=True) as descriptor:
                    found += self._read_new(path, descriptor)
            except OSError:
                self._seen.pop(path, None)
        return found

    def _candidates(self) -> Iterator[str]:
        for place in self._places:
            with suppress(OSError), os.scandir(place) as entries:
                for entry in entries:
                    if is_secret_name(entry.name, self._also):
                        yield entry.path

    def _read_new(self, path: str, descriptor: int) -> list[Secret]:
        info = os.fstat(descriptor)
        sign = (info.st_ino, info.st_mtime_ns, info.st_size)
        if self._seen.get(path) == sign:
            return []
        data = os.pread(descriptor, _MAX_SECRET_BYTES, 0)
        self._seen[path] = sign
        return values_in(data.decode("utf-8", "surrogateescape"))

    def _scan(self, root: str, max_scanned: int) -> None:
        """Find every folder that holds a secret file, the shallow ones first.

        Links are followed here, unlike when packing: a data folder may be a link, and reading
        more than needed only makes more values known.
        """
        left = max_scanned
        visited: set[tuple[int, int]] = set()
        waiting = deque([(root, 0)])
        while waiting:
            folder, depth = waiting.popleft()
            try:
                info = os.stat(folder)
                if (info.st_dev, info.st_ino) in visited:
                    continue
                visited.add((info.st_dev, info.st_ino))
                inner, count = self._scan_folder(folder, left)
            except OSError:
                continue
            left -= count
            if left <= 0 or (inner and depth >= _MAX_DEPTH):
                self.complete = False
            if left <= 0:
                return
            if depth < _MAX_DEPTH:
                waiting.extend((path, depth + 1) for path in inner)

    def _scan_folder(self, folder: str, limit: int) -> tuple[list[str], int]:
        inner: list[str] = []
        count = 0
        with os.scandir(folder) as entries:
            for entry in entries:
                count += 1
                if count > limit:
                    break
                if is_secret_name(entry.name, self._also):
                    self._places.add(folder)
                elif _is_folder(entry):
                    inner.append(entry.path)
        return inner, count


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):
        return entry.is_dir()
    return False
