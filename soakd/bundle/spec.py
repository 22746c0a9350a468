"""What soakd tells the helper to pack, as one JSON document on the helper's stdin.

Shared by soakd/edge/packer.py (writes it) and soakd/bundle/helper.py (reads it). Nothing is
decided here. It goes by stdin and not by argv because everybody can read `/proc/*/cmdline`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

MAX_SPEC_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class NodeFolder:
    """One node folder: `path` on disk, `name` of its folder in the bundle such as `mule-a`.

    A RUN_ROOT may be another run's by now: with `marker`, the file that names whose it is, the
    folder is packed only if that names `run`.
    """

    path: str
    name: str
    marker: str = ""
    run: str = ""


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that must not enter the bundle; `kind` is named in the marker.

    A `token` or `key` is a secret; a `destination` gets a pseudonym.
    """

    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that soakd itself keeps out of the bundle, and why: goes into the manifest."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one bundle. A member over a bound is left out and named, never cut in silence.

    Attributes:
        member_bytes: largest file that is packed.
        hash_bytes: largest file of which a SHA-256 is made although it is left out.
        members: most members, and most names in the manifest's list of what was left out.
        depth: deepest folder below a node folder.
        scanned: most directory entries looked at per folder when searching for secret files.
    """

    member_bytes: int = 16 << 30
    hash_bytes: int = 4 << 30
    members: int = 50_000
    depth: int = 32
    scanned: int = 200_000


@dataclass(frozen=True, slots=True)
class BundleSpec:
    """One bundle.

    Attributes:
        nodes: folders to pack; secrets in them count.
        sources: folders (A_SRC, B_SRC) that are not packed but whose secrets count too.
        secrets: values that soakd knows, such as tokens that were rotated away since.
        full: pack binaries and `*.part` by content instead of by hash and size.
        keep_destinations: leave destinations as they are instead of giving them pseudonyms.
        binaries: names at the top of a node folder that are binaries.
        secret_names: how names of further secret files begin, in lower case.
        about: copied into the manifest (run id, host, label, times).
        left_out: what soakd leaves out itself.
        limits: bounds.
    """

    nodes: tuple[NodeFolder, ...] = ()
    sources: tuple[str, ...] = ()
    secrets: tuple[Secret, ...] = ()
    full: bool = False
    keep_destinations: bool = False
    binaries: tuple[str, ...] = ()
    secret_names: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()
    limits: Limits = field(default_factory=Limits)


def encode_spec(spec: BundleSpec, records: Mapping[str, int]) -> bytes:
    """Return the document for the helper; `records` maps member names to descriptor numbers."""
    document = {"spec": asdict(spec), "records": dict(records)}
    return json.dumps(document, separators=(",", ":")).encode()


def decode_spec(data: bytes) -> tuple[BundleSpec, dict[str, int]]:
    """Read what `encode_spec` wrote.

    Raises:
        ValueError, TypeError, KeyError: the document is not one of ours.
    """
    document = json.loads(data)
    raw = document["spec"]
    spec = BundleSpec(
        nodes=tuple(NodeFolder(**node) for node in raw["nodes"]),
        sources=tuple(raw["sources"]),
        secrets=tuple(Secret(**secret) for secret in raw["secrets"]),
        full=raw["full"],
        keep_destinations=raw["keep_destinations"],
        binaries=tuple(raw["binaries"]),
        secret_names=tuple(raw["secret_names"]),
        about=raw["about"],
        left_out=tuple(LeftOut(**item) for item in raw["left_out"]),
        limits=Limits(**raw["limits"]),
    )
    return spec, {str(name): int(fd) for name, fd in document["records"].items()}
