"""`soakctl collect`: in any state, whole, and never with a secret in it."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import shutil
import tarfile
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.box import Box
from tests.e2e.nodes import TALKS, teach
from tests.e2e.records import SOURCES_MARK
from tests.e2e.waiting import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

UNHURRIED = "0.5"
"""Between rounds of a soak that goes on while it is collected."""
_SECRET_FILES = ("api.token", "sam.keys", "kad_udp_key_secret.dat")
_PUBLIC = "Pu" * 258
_SOURCE_TOKEN = "5ec2e7" * 10 + "beef"
_SOURCE_PRIVATE = "Se3cret-Priv4te~Key" * 20


def test_no_secret_ever_enters_a_bundle(box: Box) -> None:
    """Tokens and keys of sources and nodes, printed, copied and rotated, while the soak runs."""
    box.install()
    for folder in box.soaks:
        _plant_in_source(folder)
        teach(folder, TALKS)
    run = box.start("50", WAIT_BETWEEN=UNHURRIED)
    box.until_rounds(run, 1)
    secrets = {_SOURCE_TOKEN, _SOURCE_PRIVATE}
    for name in "ab":
        secrets |= _plant_in_node(box, run, name)
    for _time in range(2):
        # Of the first rotation no file knows any more after the second: soakd does.
        secrets |= {_rotate_token(box, run, index) for index in (0, 1)}
        box.until_rounds(run, box.status(run)["rounds"]["total"] + 2)
    for name in "ab":
        (box.node(run, name) / "notes.txt").write_text("\n".join(secrets))
        with (box.run_folder(run) / "logs" / f"{name}.out").open("a") as out:
            out.write("\n".join(secrets))
    _check_bundle(box, run, secrets)
    box.ctl("stop", run)
    assert box.status(run)["rounds"]["error"] == 0
    _check_bundle(box, run, secrets)
    _check_bundle(box, run, secrets, "--full")


def test_secrets_of_a_source_stay_secret_when_the_source_is_gone(box: Box) -> None:
    """Its values were copied with it: a bundle made after the source was deleted has none."""
    for folder in box.soaks:
        _plant_in_source(folder)
    run = box.start("--rounds", "1")
    box.wait(run)
    for folder in box.soaks:
        shutil.rmtree(folder)
    assert _SOURCE_TOKEN in (box.node(run, "a") / "notes.txt").read_text()
    _check_bundle(box, run, {_SOURCE_TOKEN, _SOURCE_PRIVATE})


def test_a_bundle_of_a_finished_run_has_every_record_and_a_true_manifest(box: Box) -> None:
    """Members with hash and size, programs as hash only; it overwrites nothing.

    Destinations are as they were, or steady pseudonyms, as one likes.
    """
    run = box.start("--rounds", "3", "--label", "kept")
    box.wait(run)
    folder, manifest = _collect(box, run, "--keep-destinations")
    assert manifest["keep_destinations"] is True
    for member in manifest["members"]:
        data = (folder / member["name"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (member["size"], member["sha256"])
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert files == {member["name"] for member in manifest["members"]} | {"MANIFEST.json"}
    assert files >= {
        "runner.out", "runner.state", "plan.json", "run.json", "shim.ndjson", "logs/runner.log",
        "logs/runner.out", "logs/rounds.tsv", "logs/rounds.ndjson", "logs/status.ndjson",
        "logs/status_samples.ndjson", "logs/events.ndjson", "logs/resources.ndjson",
        "logs/a.out", "logs/b.out", "mule-a/config.toml", "mule-b/config.toml",
    }  # fmt: skip
    assert (folder / "logs/rounds.tsv").read_text() == box.read(run, "logs/rounds.tsv")
    assert (folder / "logs/rounds.tsv").read_text().count(SOURCES_MARK) == 3
    left_out = {item["name"]: item["reason"] for item in manifest["left_out"]}
    assert left_out["mule-a/rust-mule"] == "binary"
    assert {left_out[f"mule-b/data/{name}"] for name in _SECRET_FILES} == {"secret"}
    assert manifest["about"]["status"]["verdict"] == "passed"
    mine = box.folder / "mine.tar.gz"
    mine.write_text("mine")
    box.ctl("collect", run, "-o", str(mine), status=2)
    assert mine.read_text() == "mine"
    assert not list(box.folder.glob("*.part"))
    _check_pseudonyms(box, run)


def _check_pseudonyms(box: Box, run: str) -> None:
    """In all members alike, of the same length; the rows stay rows, and the manifest says so."""
    (box.node(run, "b") / "notes.txt").write_text(box.read(run, "logs/rounds.tsv"))
    folder, manifest = _collect(box, run)
    assert manifest["keep_destinations"] is False
    plain, masked = box.read(run, "logs/rounds.tsv"), (folder / "logs/rounds.tsv").read_text()
    assert (folder / "mule-b/notes.txt").read_text() == masked
    assert len(masked) == len(plain)
    assert masked.count(SOURCES_MARK) == 3
    names = {
        name: source["udp_dest_b64"]
        for was, row in zip(plain.splitlines(), masked.splitlines(), strict=True)
        for name, source in zip(
            (found["udp_dest_b64"] for found in json.loads(was.split("\t")[5])["sources"]),
            json.loads(row.split("\t")[5])["sources"],
            strict=True,
        )
    }
    assert names
    for name, pseudonym in names.items():
        assert pseudonym.startswith("[dest:")
        for path in folder.rglob("*"):
            assert not path.is_file() or name.encode() not in path.read_bytes(), path
    assert len(set(names.values())) == len(names)


def test_a_running_soak_and_a_queued_one_can_be_collected(box: Box) -> None:
    """Streaming does not disturb the rounds, and each bundle holds whole lines.

    Of the one that is queued there is little to tell yet: the manifest and the status.
    """
    run = box.start("50", WAIT_BETWEEN=UNHURRIED)
    before = box.until_rounds(run, 1)["rounds"]["total"]
    folder, _ = _collect(box, run)
    rounds = (folder / "logs/rounds.ndjson").read_text().splitlines()
    assert len(rounds) >= before
    assert [json.loads(line)["round"] for line in rounds] == list(range(1, len(rounds) + 1))
    assert (folder / "runner.state").read_text() == "running\n"
    assert (folder / "logs/a.pid").exists()
    later, _ = _collect(box, run)
    assert len((later / "logs/rounds.ndjson").read_text().splitlines()) >= len(rounds)
    after = box.until_rounds(run, len(rounds) + 2)
    assert after["rounds"]["error"] == 0
    queued = box.start("50")
    folder, manifest = _collect(box, queued)
    assert manifest["about"]["status"]["state"] == "queued"
    assert [path.name for path in folder.iterdir()] == ["MANIFEST.json"]


def test_a_run_that_failed_to_start_can_be_collected(box: Box) -> None:
    """What there is of it, with the reason."""
    (box.soaks[0] / "rust-mule").write_bytes(b"#!/nonexistent/interpreter\n")
    run = box.start("50")
    wait_for(lambda: box.status(run)["state"] == "finished", "the end")
    folder, manifest = _collect(box, run)
    assert "cannot execute" in manifest["about"]["status"]["cause"]["text"]
    assert "ERROR: " in (folder / "logs/runner.log").read_text()


def _plant_in_source(folder: Path) -> None:
    data = folder / "data"
    data.mkdir()
    (data / "api.token").write_text(_SOURCE_TOKEN)
    (data / "sam.keys").write_text(f"PUB={_PUBLIC}\nPRIV={_PUBLIC}{_SOURCE_PRIVATE}\n")
    (data / "kad_udp_key_secret.dat").write_bytes(b"\x01\x02\x03\x04")
    (folder / "notes.txt").write_text(f"{_SOURCE_TOKEN}\n{_PUBLIC}{_SOURCE_PRIVATE}\n")
    config = folder / "config.toml"
    config.write_text(f"# {_SOURCE_TOKEN} {_SOURCE_PRIVATE}\n{config.read_text()}")


def _plant_in_node(box: Box, run: str, name: str) -> set[str]:
    """Put a node's secrets where they do not belong; return them."""
    folder = box.node(run, name)
    token = (folder / "data" / "api.token").read_text()
    keys = dict(line.split("=", 1) for line in (folder / "data/sam.keys").read_text().splitlines())
    private = keys["PRIV"].removeprefix(keys["PUB"].rstrip("="))
    assert len(private) > 100
    out = box.run_folder(run) / "logs" / f"{name}.out"
    wait_for(lambda: f"token is {token}" in out.read_text(), "the node prints its token")
    wait_for(lambda: private in out.read_text(), "the node prints its private key")
    with (folder / "data" / "core.bin").open("wb") as core:
        core.write(b"\0" * 1_048_560 + token.encode() + b"\0" + private.encode() + b"\xff")
    (folder / f"copy-of-{token}.txt").write_text(keys["PRIV"])
    (folder / "data" / "sam.keys.old").write_text(f"PRIV={private}\n")
    secrets = {token, private.rstrip("=")}
    _plant_spellings(folder / "spelt.txt", secrets)
    return secrets


def _plant_spellings(file: Path, secrets: set[str]) -> None:
    """Write secrets as logs and dumps may have them: base64 at its three places, hex, URL."""
    with file.open("wb") as out:
        for secret in secrets:
            for shift in range(3):
                out.write(b"DEBUG " + _base64(secret, shift) + b"\n")
            out.write(b"\n".join(_plain_spellings(secret)))


def _base64(secret: str, shift: int) -> bytes:
    return base64.b64encode(b"-" * shift + secret.encode() + b"--")


def _plain_spellings(secret: str) -> list[bytes]:
    data = secret.encode()
    escaped = "".join(f"%{byte:02x}" for byte in data)
    texts = (secret, data.hex(), data.hex().upper(), urllib.parse.quote(secret), escaped)
    return [text.encode() for text in texts]


def _traces(secret: str) -> list[bytes]:
    """Return what must not be found of a secret; of base64 what its neighbours do not change."""
    return _plain_spellings(secret) + [_base64(secret, shift)[4:-8] for shift in range(3)]


def _rotate_token(box: Box, run: str, index: int) -> str:
    """Let the node make itself a new token; return the new one."""
    file = box.node(run, "ab"[index]) / "data" / "api.token"
    old = file.read_text()
    api = http.client.HTTPConnection("127.0.0.1", box.ports[index], timeout=10)
    try:
        api.request("POST", "/api/v1/token/rotate", headers={"Authorization": f"Bearer {old}"})
        assert api.getresponse().status == 200
    finally:
        api.close()
    new = file.read_text()
    assert new != old
    return new


def _check_bundle(box: Box, run: str, secrets: set[str], *options: str) -> None:
    folder, _ = _collect(box, run, *options)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        assert not path.name.startswith(_SECRET_FILES)
        text = str(path).encode() + b"\n" + path.read_bytes()
        for secret in secrets:
            assert not [trace for trace in _traces(secret) if trace in text], path


def _collect(box: Box, run: str, *options: str) -> tuple[Path, dict[str, Any]]:
    """Collect and unpack a bundle; return the folder and the manifest."""
    number = len(list(box.folder.glob("unpacked-*")))
    folder = box.folder / f"unpacked-{number}"
    path = Path(box.ctl("collect", run, "-o", f"{folder}.tar.gz", *options).out.strip())
    with tarfile.open(path) as archive:
        # By hand: Debian's 3.11.2 knows no `filter`, and later Pythons warn without one.
        for member in archive:
            content = archive.extractfile(member)
            assert content is not None, f"{member.name} is no plain file"
            target = folder / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read())
    manifest: dict[str, Any] = json.loads((folder / "MANIFEST.json").read_text())
    return folder, manifest
