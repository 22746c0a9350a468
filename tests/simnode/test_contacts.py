from __future__ import annotations

from pathlib import Path

import pytest

from soakd.simnode.contacts import Contact, Contacts, decode, encode, seeds

OWN = "00" * 16


def test_the_seed_has_the_size_and_the_mix_of_the_real_one() -> None:
    """63 614 bytes; 133 verified, 18 of version 0."""
    contacts = seeds(154)
    assert len(encode(contacts)) == 63_614
    assert sum(contact.verified for contact in contacts) == 133
    assert sum(not contact.version for contact in contacts) == 18
    assert len({contact.kad_id for contact in contacts}) == 154


def test_a_contact_file_reads_back_as_written() -> None:
    """Ids are stored with each group of four bytes reversed."""
    (contact,) = seeds(1)
    data = encode([contact])
    (read,) = decode(data)
    assert (read.kad_id, read.destination, read.version, read.verified) == (
        contact.kad_id,
        contact.destination,
        contact.version,
        contact.verified,
    )
    assert data[13:17] == bytes.fromhex(contact.kad_id)[3::-1]


def test_the_older_form_is_read_too() -> None:
    """A first word other than zero is its count."""
    new = encode(seeds(2))
    old = (2).to_bytes(4, "little") + new[12 : 12 + 404] + new[12 + 413 : 12 + 413 + 404]
    assert [c.kad_id for c in decode(old)] == [c.kad_id for c in seeds(2)]


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 11, encode(seeds(1))[:-1], b"\0\0\0\0\3\0\0\0\0\0\0\0"]
)
def test_damaged_contact_files_are_refused(data: bytes) -> None:
    """Short, truncated, or of another version."""
    with pytest.raises(ValueError, match=r"short|truncated|version"):
        decode(data)


def test_the_own_id_never_becomes_a_contact() -> None:
    """Two nodes with one Kad id ignore each other."""
    contacts = Contacts(OWN)
    assert not contacts.add(Contact(OWN, "x", version=8, verified=True))


def test_the_health_classes_partition_the_table() -> None:
    """Routing is the sum of the four peer gauges."""
    contacts = Contacts(OWN)
    for contact in seeds(10):
        contacts.add(contact)
    first, second, *_ = contacts.by_id.values()
    first.failures = 3
    second.verified = False
    contacts.heard("ff" * 16, first.destination, 27800, 100.0)
    levels = contacts.levels(101.0)
    assert [levels[f"peer_{name}"] for name in ("unreliable", "unknown", "verified", "stable")] == [
        1,
        1,
        8,
        1,
    ]
    assert (levels["routing"], levels["live"], levels["live_10m"]) == (11, 1, 1)
    assert contacts.levels(1000.0)["live_10m"] == 0


def test_saving_merges_into_the_file(tmp_path: Path) -> None:
    """Entries never leave it."""
    path = str(tmp_path / "nodes.dat")
    for contact in seeds(2):
        contacts = Contacts(OWN)
        contacts.add(contact)
        contacts.save(path, 5000)
    assert len(decode(Path(path).read_bytes())) == 2
