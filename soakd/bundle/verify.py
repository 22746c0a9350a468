"""Checks a bundle against its own manifest: what a client does before it keeps one."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from soakd.bundle.needles import Needles
from soakd.bundle.reader import Bundle, Limits, Member, NotABundle
from soakd.bundle.search import Search
from soakd.bundle.writer import MANIFEST

# The sender is our own soakd: its bundle may be large, and a log of zeros compresses well.
_LIMITS: Final = Limits(members=1 << 20, total_bytes=1 << 62, ratio=1 << 30)
_MAX_MANIFEST_BYTES: Final = 1 << 28


def problem_of(path: str) -> str | None:
    """Say why a bundle must not be kept; None if every member is what the manifest says.

    Of secrets it knows none: it looks for private keys behind the word that introduces them.
    """
    found: dict[str, tuple[int, str]] = {}
    manifest = b""
    bundle = Bundle(path, _LIMITS)
    try:
        for member in bundle.members():
            if manifest:
                return f"{_shown(member.name)} stands behind the manifest"
            if member.name in found:
                return f"{_shown(member.name)} is there twice"
            if member.name == MANIFEST:
                manifest = b"".join(member.pieces)[:_MAX_MANIFEST_BYTES]
                continue
            problem = _digest(member, found)
            if problem is not None:
                return problem
    except NotABundle as error:
        return str(error)
    if bundle.notes:
        return bundle.notes[0]
    return _difference(manifest, found)


def _digest(member: Member, found: dict[str, tuple[int, str]]) -> str | None:
    digest, size, search = hashlib.sha256(), 0, Search(Needles())
    for piece in member.pieces:
        digest.update(piece)
        size += len(piece)
        if search.feed(piece) is not None:
            return f"{_shown(member.name)} has a private key in it"
    found[member.name] = (size, digest.hexdigest())
    return None


def _difference(manifest: bytes, found: dict[str, tuple[int, str]]) -> str | None:
    try:
        members: list[dict[str, Any]] = json.loads(manifest)["members"]
        said = {str(item["name"]): (item["size"], item["sha256"]) for item in members}
    except (ValueError, KeyError, TypeError):
        return "it has no readable manifest"
    for name in sorted({*said, *found}):
        if said.get(name) != found.get(name):
            return f"{_shown(name)} is not what the manifest says"
    return None


def _shown(name: str) -> str:
    return ascii(name)[1:-1][:200]
