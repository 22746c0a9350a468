"""The routing table and the contact files `nodes.dat`, `nodes.initseed.dat`, `nodes.fallback.dat`.

Contacts out of files are dead in the simulation: nothing but greetings of running nodes makes a
contact live, so a table of ~155 contacts with one or two live ones looks like the real network.
The exception is strangers: contacts that are heard from and that take no part in anything else.
"""

from __future__ import annotations

import os
import struct

from soakd.simnode.config import Config
from soakd.simnode.fatal import FatalError, os_error, quoted
from soakd.simnode.identity import (
    DESTINATION_BYTES,
    group_reversed,
    i2p_base64,
    i2p_bytes,
    write_atomic,
)
from soakd.simnode.tracing import Tracing

_ENTRY = struct.Struct(f"<B16s{DESTINATION_BYTES}sIIB")
_OLD_ENTRY = struct.Struct(f"<B16s{DESTINATION_BYTES}s")
_FEW = 50
LIVE_WINDOW_S = 600.0


class Contact:
    """One entry of the routing table; times are of the monotonic clock, None = never."""

    __slots__ = (
        "address",
        "destination",
        "failures",
        "heard_at",
        "hello_at",
        "kad_id",
        "queried_at",
        "seen_at",
        "verified",
        "version",
    )

    def __init__(
        self, kad_id: str, destination: str, *, version: int, verified: bool, seen_at: float = 0.0
    ) -> None:
        self.kad_id = kad_id
        self.destination = destination
        self.version = version
        self.verified = verified
        self.failures = 0
        self.seen_at = seen_at
        self.address: int | None = None  # UDP port of a simulated node
        self.heard_at: float | None = None
        self.hello_at: float | None = None
        self.queried_at: float | None = None

    def health(self, now_s: float) -> str:
        """Return the class of the contact: unreliable, stable, verified or unknown."""
        if self.failures >= 3:
            return "unreliable"
        if self.verified:
            recent = self.heard_at is not None and now_s - self.heard_at <= LIVE_WINDOW_S
            return "stable" if recent and not self.failures else "verified"
        return "unknown"


class Contacts:
    """All contacts of a node, by Kad id; its own id is never among them."""

    def __init__(self, own_id: str) -> None:
        self.own_id = own_id
        self.by_id: dict[str, Contact] = {}
        self.live: dict[str, Contact] = {}  # the simulated nodes among them
        self._strangers: list[Contact] = []

    def add(self, contact: Contact) -> bool:
        """Add a contact unless it is known or oneself; say whether it was new."""
        if contact.kad_id == self.own_id or contact.kad_id in self.by_id:
            return False
        self.by_id[contact.kad_id] = contact
        return True

    def heard(self, kad_id: str, destination: str, address: int, now_s: float) -> bool:
        """Note a greeting of a simulated node; say whether it was unknown.

        A known contact may not move to another destination: who renews only `sam.keys` is not
        believed. Another UDP port is fine, that is where the simulation runs it.
        """
        self.add(Contact(kad_id, destination, version=8, verified=True))
        contact = self.by_id[kad_id]
        if contact.destination != destination:
            return False
        new = kad_id not in self.live
        contact.address = address
        contact.heard_at = contact.seen_at = now_s
        contact.verified = True
        contact.version = 8
        contact.failures = 0
        self.live[kad_id] = contact
        return new

    def meet_strangers(self, count: int, now_s: float) -> None:
        """Hear from the first `count` contacts that are no simulated nodes, from now on."""
        dead = [contact for contact in self.by_id.values() if contact.address is None]
        self._strangers = dead[:count]
        self.hear_strangers(now_s)

    def hear_strangers(self, now_s: float) -> None:
        """Note that all strangers have just been heard from."""
        for contact in self._strangers:
            contact.heard_at = contact.seen_at = now_s
            contact.failures = 0

    def usable(self, least_version: int, most: int) -> int:
        """Count the candidates for a batch."""
        return min(most, sum(1 for c in self.by_id.values() if c.version >= least_version))

    def levels(self, now_s: float) -> dict[str, int]:
        """Return the gauges of the status object that describe the table."""
        levels = {f"peer_{name}": 0 for name in ("unknown", "verified", "stable", "unreliable")}
        for contact in self.by_id.values():
            levels[f"peer_{contact.health(now_s)}"] += 1
        heard = [c.heard_at for c in self.by_id.values() if c.heard_at is not None]
        recent = sum(now_s - heard_at <= LIVE_WINDOW_S for heard_at in heard)
        levels |= {"routing": len(self.by_id), "live": len(heard), "live_10m": recent}
        return levels

    def bucket_of(self, kad_id: str) -> int:
        """Return the index (0-127) of the bucket of an id."""
        return max(0, (int(self.own_id, 16) ^ int(kad_id, 16)).bit_length() - 1)

    def buckets(self) -> list[list[Contact]]:
        """Return the 128 buckets."""
        buckets: list[list[Contact]] = [[] for _ in range(128)]
        for contact in self.by_id.values():
            buckets[self.bucket_of(contact.kad_id)].append(contact)
        return buckets

    def save(self, path: str, most: int) -> None:
        """Merge the table into the file; entries never leave it.

        Raises:
            OSError: the file cannot be written.
        """
        try:
            kept = {contact.kad_id: contact for contact in _read(path)}
        except (OSError, ValueError):
            kept = {}
        merged = list({**kept, **self.by_id}.values())[:most]
        write_atomic(path, encode(merged))


def encode(contacts: list[Contact]) -> bytes:
    """Return a contact file of version 2."""
    parts = [struct.pack("<III", 0, 2, len(contacts))]
    for contact in contacts:
        raw = group_reversed(bytes.fromhex(contact.kad_id))
        address = i2p_bytes(contact.destination)
        parts.append(_ENTRY.pack(contact.version, raw, address, 0, 0, contact.verified))
    return b"".join(parts)


def decode(data: bytes) -> list[Contact]:
    """Read a contact file of version 2 or of the older form.

    Raises:
        ValueError: short, or of another version.
    """
    if len(data) < 4:
        raise ValueError("file too short")
    count, start, form = struct.unpack_from("<I", data)[0], 4, _OLD_ENTRY
    if count == 0:
        if len(data) < 12:
            raise ValueError("file too short")
        version, count = struct.unpack_from("<II", data, 4)
        if version != 2:
            raise ValueError(f"unsupported version {version}")
        start, form = 12, _ENTRY
    if len(data) < start + count * form.size:
        raise ValueError(f"truncated: {count} entries announced")
    contacts = []
    for at in range(start, start + count * form.size, form.size):
        version, raw, address, *rest = form.unpack_from(data, at)
        contacts.append(
            Contact(
                group_reversed(raw).hex(),
                i2p_base64(address),
                version=version,
                verified=bool(rest and rest[2]),
            )
        )
    return contacts


def seeds(count: int) -> list[Contact]:
    """Return the built-in seed: made-up contacts, the same in every node."""
    contacts = []
    for number in range(count):
        word = (number + 1) * 0x9E3779B97F4A7C15 % (1 << 64)
        raw = struct.pack(">QQ", word, word * 0xBF58476D1CE4E5B9 % (1 << 64))
        contacts.append(
            Contact(
                raw.hex(),
                i2p_base64((b"\x53IM" + bytes([number % 256]) + raw * 24)[:384] + bytes(3)),
                version=0 if number >= 136 else 8,
                verified=number < 133,
            )
        )
    return contacts


def load(config: Config, tracing: Tracing) -> list[Contact]:
    """Make the seed files where absent and read the contact list of this start.

    Raises:
        FatalError: the chosen file is missing or damaged, or no entry is usable.
    """
    initseed, fallback = (config.data_path(f"nodes.{n}.dat") for n in ("initseed", "fallback"))
    for path in (initseed, fallback):
        if not os.path.exists(path):
            write_atomic(path, encode(seeds(config.sim.seed_contacts)))
    name = config.get("kad", "bootstrap_nodes_path")
    primary = config.data_path(name)
    if os.path.exists(primary):
        chosen, source = primary, "primary"
    elif os.path.basename(name) == "nodes.dat":
        tracing.warn(
            "app",
            "failed to download nodes2.dat over I2P; continuing with bundled nodes.dat",
            simulation=True,
        )
        chosen, source = initseed, "initseed"
    else:
        chosen, source = primary, "custom"
    found = _loaded(chosen)
    tracing.info("app", "loaded nodes.dat", path=chosen, source=source, count=len(found))
    if source == "primary" and len(found) < _FEW:
        known = {contact.kad_id for contact in found}
        found += [c for c in _loaded(initseed) if c.kad_id not in known]
        tracing.warn("app", "nodes.dat seed pool was small; re-seeded", count=len(found))
    if config.sim.seed_contacts and not any(contact.version for contact in found):
        raise FatalError('App(Bootstrap(InvalidState("no bootstrap nodes provided")))')
    return found


def _read(path: str) -> list[Contact]:
    with open(path, "rb") as file:
        return decode(file.read())


def _loaded(path: str) -> list[Contact]:
    try:
        return _read(path)
    except OSError as error:
        raise FatalError(
            f"App(Nodes(Read {{ path: {quoted(path)}, source: {os_error(error)} }}))"
        ) from error
    except ValueError as error:
        raise FatalError(f"App(Nodes(InvalidFormat {{ {quoted(str(error))} }}))") from error
