"""Tests of soakd.bundle.clean and soakd.bundle.learn: tarballs that the scripts made."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import tarfile
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from soakd.bundle import clean
from soakd.bundle.clean import CannotRedactError, redact_tarball
from soakd.bundle.learn import MAX_VALUES, Learner, TooManySecretsError
from soakd.bundle.needles import DESTINATION
from soakd.bundle.reader import Limits
from soakd.bundle.redact import Masker
from soakd.bundle.spec import Secret

TOKEN_A, TOKEN_B = "0123456789abcdef" * 4, "fedcba9876543210" * 4
ROTATED, COOKIE = "5ec2e7" * 10 + "beef", "c00c1e" * 10 + "feed"
DEST_A, DEST_B = "Qa9~" * 128 + "AAAA", "Zb8-" * 128 + "AAAA"
KEY_A, KEY_OLD = "Se3cret-Priv4te~Key1" * 18, "Old-Priv4te~Key12345" * 18
SECRETS = (TOKEN_A, TOKEN_B, ROTATED, COOKIE, KEY_A, KEY_OLD)


def spellings_by_hand(value: str) -> list[bytes]:
    """Return how a secret may be planted; made here, not by the program under test."""
    data = value.encode()
    upper_hex, quoted = data.hex().upper(), urllib.parse.quote(value, safe="")
    found = [data, data.hex().encode(), upper_hex.encode(), quoted.encode()]
    found.append("".join(f"%{byte:02X}" for byte in data).encode())
    return found + [base64.b64encode(b"-" * shift + data + b"--") for shift in range(3)]


def traces_of(value: str) -> list[bytes]:
    """Return what nobody may find of a secret: of base64 what does not depend on neighbours."""
    planted = spellings_by_hand(value)
    return planted[:5] + [form[4:-8] for form in planted[5:]]


def script_made() -> dict[str, bytes]:
    """Return the members of a tarball as the scripts made it, with secrets all over."""
    sources = json.dumps({"sources": [{"source_id_hex": "ab" * 16, "udp_dest_b64": DEST_B}]})
    row = f"2026-02-20T10:00:00+0000\t1\t{'cd' * 16}\t{{}}\t{{}}\t{sources}\n"
    out = (
        f"DEST REPLY PUB={DEST_A} PRIV={DEST_A}{KEY_A}\n"
        f"SESSION CREATE STYLE=DATAGRAM ID=x DESTINATION={DEST_A}{KEY_OLD} i2cp=1\n"
        f"DATAGRAM RECEIVED DESTINATION={DEST_B} SIZE=12\n"
        f"Authorization: Bearer {ROTATED}\nCookie: rm_session={COOKIE}\n"
    )
    planted = b"\n".join(form for value in SECRETS for form in spellings_by_hand(value))
    return {
        "logs/rounds.tsv": row.encode() * 50,
        "logs/status.ndjson": b'2026\tA\t{"live":2}\n',
        "logs/a.out": out.encode(),
        "logs/b.out": planted,
        "logs/soak.log": f'{{"token":"{TOKEN_B}"}}\n'.encode(),
        "runner.out": b"started\n",
        f"mule-a/notes-{TOKEN_A}.txt": b"hello",
        "mule-a/data/api.token": TOKEN_A.encode(),
        "mule-a/data/sam.keys": f"PUB={DEST_A}\nPRIV={DEST_A}{KEY_A}\n".encode(),
        "mule-a/data/kad_udp_key_secret.dat": b"\1\2\3\4",
        "mule-a/data/nodes.dat": b"\0" * 12 + base64.b64decode(DEST_B, b"-~"),
        "mule-a/core": b"\x7fELF\0" + bytes.fromhex(TOKEN_A),
        "mule-a/clean.bin": b"\x7fELF\0" + bytes(100),
        "mule-a/old.log.gz": gzip.compress(TOKEN_A.encode()),
        "MANIFEST.json": b"{}",
    }


def pack(path: Path, members: dict[str, bytes]) -> str:
    """Write a tarball."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(path)


def unpack(path: str) -> dict[str, bytes]:
    """Read a bundle; it must be complete, and agree with its manifest."""
    with tarfile.open(path, "r:gz") as archive:
        members = {
            info.name: file.read()
            for info in archive
            if (file := archive.extractfile(info)) is not None
        }
    manifest = json.loads(members["MANIFEST.json"])
    assert list(members)[-1] == "MANIFEST.json"
    assert {item["name"] for item in manifest["members"]} == set(members) - {"MANIFEST.json"}
    for item in manifest["members"]:
        assert item["sha256"] == hashlib.sha256(members[item["name"]]).hexdigest()
        assert item["size"] == len(members[item["name"]])
    return members


def test_a_tarball_full_of_secrets_comes_out_clean(tmp_path: Path) -> None:
    """No value in any spelling; the rest byte for byte; what was left out is named."""
    made = script_made()
    target = tmp_path / "new.tar.gz"
    report = redact_tarball(pack(tmp_path / "old.tar.gz", made), str(target))
    members = unpack(str(target))
    everything = b"\n".join(name.encode() + b"\n" + data for name, data in members.items())
    for value in SECRETS:
        for form in traces_of(value):
            assert form not in everything, form
    assert KEY_OLD[:40].encode() not in everything
    for destination in (DEST_A, DEST_B):
        assert destination.encode() not in everything
    manifest = json.loads(members["MANIFEST.json"])
    reasons = {item["name"]: item["reason"] for item in manifest["left_out"]}
    assert reasons == {
        "mule-a/data/api.token": "secret",
        "mule-a/data/sam.keys": "secret",
        "mule-a/data/kad_udp_key_secret.dat": "secret",
        "mule-a/data/nodes.dat": "destinations of peers in binary form",
        "mule-a/core": "binary with a token in it",
        "mule-a/old.log.gz": "compressed: nobody can look for secrets in it",
        "MANIFEST.json": "the manifest of the old bundle",
    }
    assert report.left_out == len(reasons)
    assert (report.members, report.secrets, report.notes) == (8, 6, ())
    assert manifest["about"] == {"redacted_from": "old.tar.gz"}
    assert manifest["keep_destinations"] is False
    for name in ("logs/status.ndjson", "runner.out", "mule-a/clean.bin"):
        assert members[name] == made[name]
    for name in ("logs/rounds.tsv", "logs/a.out", "logs/b.out"):
        assert len(members[name]) == len(made[name])
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path)) == ["new.tar.gz", "old.tar.gz"]


def test_pseudonyms_are_steady_and_rows_stay_rows(tmp_path: Path) -> None:
    """The publisher is the same peer in every row and in the log; triage counts as before."""
    source = pack(tmp_path / "old.tar.gz", script_made())
    redact_tarball(source, str(tmp_path / "new.tar.gz"))
    members = unpack(str(tmp_path / "new.tar.gz"))
    rows = [line.split(b"\t") for line in members["logs/rounds.tsv"].splitlines()]
    assert len(rows) == 50
    assert all(b'"sources": [{' in row[5] for row in rows)
    names = {json.loads(row[5])["sources"][0]["udp_dest_b64"] for row in rows}
    assert len(names) == 1
    [name] = names
    assert name.startswith("[dest:")
    assert f"DATAGRAM RECEIVED DESTINATION={name} SIZE=12\n".encode() in members["logs/a.out"]
    redact_tarball(source, str(tmp_path / "kept.tar.gz"), keep_destinations=True)
    kept = unpack(str(tmp_path / "kept.tar.gz"))
    assert kept["logs/rounds.tsv"] == script_made()["logs/rounds.tsv"]
    assert json.loads(kept["MANIFEST.json"])["keep_destinations"] is True
    assert "mule-a/data/nodes.dat" in kept
    assert KEY_A.encode() not in kept["logs/a.out"]


def test_a_torn_tarball_gives_what_was_readable(tmp_path: Path) -> None:
    """Cut in the middle of a member; an announced size is not believed."""
    whole = script_made() | {"zz/last": os.urandom(100_000)}
    data = Path(pack(tmp_path / "whole.tar.gz", whole)).read_bytes()
    (tmp_path / "torn.tar.gz").write_bytes(data[:-60_000])
    report = redact_tarball(str(tmp_path / "torn.tar.gz"), str(tmp_path / "new.tar.gz"))
    members = unpack(str(tmp_path / "new.tar.gz"))
    assert report.notes
    assert json.loads(members["MANIFEST.json"])["notes"] == list(report.notes)
    assert 0 < len(members["zz/last"]) < 60_000
    assert whole["zz/last"].startswith(members["zz/last"].rstrip(b"\0"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"no tarball at all, just text" * 100, "wanted is a .tar.gz"),
        (b"", "cannot r"),
    ],
)
def test_what_is_no_tarball_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    """And nothing is written."""
    (tmp_path / "old").write_bytes(content)
    with pytest.raises(CannotRedactError, match=why):
        redact_tarball(str(tmp_path / "old"), str(tmp_path / "new"))
    assert os.listdir(tmp_path) == ["old"]


def test_names_that_stand_in_the_way_are_refused(tmp_path: Path) -> None:
    """A folder, a missing file, an existing target, a folder that is not there."""
    source = pack(tmp_path / "old.tar.gz", {"a": b"x"})
    cases = [
        (str(tmp_path), "new", "it is a folder"),
        (str(tmp_path / "gone"), "new", "gone"),
        (source, "old.tar.gz", "it exists already"),
        (source, "no/where.tar.gz", "No such file or directory"),
    ]
    for path, target, why in cases:
        with pytest.raises(CannotRedactError, match=why):
            redact_tarball(path, str(tmp_path / target))
    assert os.listdir(tmp_path) == ["old.tar.gz"]


def test_limits_bound_what_is_read(tmp_path: Path) -> None:
    """A bomb is read up to the limit, and the report says so."""
    source = pack(tmp_path / "old.tar.gz", {"a": b"x", "bomb": bytes(30 << 20), "c": b"y"})
    limits = Limits(total_bytes=1 << 20)
    report = redact_tarball(source, str(tmp_path / "new.tar.gz"), limits=limits)
    assert report.notes
    assert sum(map(len, unpack(str(tmp_path / "new.tar.gz")).values())) < 2 << 20


def test_a_surviving_secret_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redactor that does nothing: the search sees it, and the part is gone."""
    monkeypatch.setattr(Masker, "feed", lambda _self, data: data)
    source = pack(tmp_path / "old.tar.gz", script_made())
    with pytest.raises(CannotRedactError, match="would have been left in"):
        redact_tarball(source, str(tmp_path / "new.tar.gz"))
    assert os.listdir(tmp_path) == ["old.tar.gz"]


def test_a_full_disk_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compressor cannot write: its error is the one that is told, and nothing hangs."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(clean, "compress", full)
    members = {"a": os.urandom(1 << 20)}
    with pytest.raises(CannotRedactError, match="No space left on device"):
        redact_tarball(pack(tmp_path / "old.tar.gz", members), str(tmp_path / "new.tar.gz"))
    assert os.listdir(tmp_path) == ["old.tar.gz"]


@pytest.mark.parametrize("size", [1, 7, 100, 1 << 20])
def test_values_are_learnt_from_logs_however_they_are_cut(size: int) -> None:
    """Whole, and none of them twice in parts."""
    data = script_made()["logs/a.out"]
    learner = Learner()
    assert learner.log(data[at : at + size] for at in range(0, len(data), size)) == len(data)
    assert set(learner.values) == {
        Secret(DESTINATION, DEST_A),
        Secret("key", KEY_A),
        Secret("key", KEY_OLD),
        Secret("token", ROTATED),
        Secret("token", COOKIE),
    }


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (f'{{"token": "{TOKEN_A}", "sessions_cleared": true}}', [TOKEN_A]),
        (f'escaped {{\\"token\\":\\"{TOKEN_A}\\"}}', [TOKEN_A]),
        (f"my token is {TOKEN_A}", [TOKEN_A]),
        (f"curl -H 'Authorization: Bearer {TOKEN_A}'", [TOKEN_A]),
        ("token = short", []),
        ("token file /home/user/mule-a/data/api.token", []),
        (f"PRIV={KEY_A[:300]}", [KEY_A[:300]]),
        (f"DESTINATION={KEY_A[:300]}", []),
        ("PUB=abcdefghijklmnopqrstuvwxyz", []),
    ],
)
def test_words_that_introduce_a_secret(text: str, values: list[str]) -> None:
    """Headers, answers of the API, the SAM protocol; paths and short words are none."""
    learner = Learner()
    learner.log([text.encode()])
    assert [secret.value for secret in learner.values] == values


def test_endless_secrets_are_refused() -> None:
    """Each of them would slow every search down."""
    text = "".join(f"Bearer {number:064x}\n" for number in range(MAX_VALUES + 1))
    with pytest.raises(TooManySecretsError, match="more than 256"):
        Learner().log([text.encode()])
