"""Tests of soakd.edge.packer with its real processes, and of what must never be in a bundle."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import signal
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

from soakd.bundle.spec import BundleSpec, LeftOut, NodeFolder, Secret
from soakd.core.errors import HostError
from soakd.edge import packer
from soakd.edge.packer import BundleStream, bundle_file_name, helper_zip, open_bundle

# The interpreter that a submitter has; the one of these tests may lie where others cannot look.
SYSTEM_PYTHON = "/usr/bin/python3"
PYTHON = SYSTEM_PYTHON if Path(SYSTEM_PYTHON).exists() else sys.executable
CHUNK = 1 << 20

TOKEN_A = "0a1b2c3d4e5f6789" * 4
TOKEN_B = "FEDCBA9876543210" * 4
TOKEN_SOURCE = "1122334455667788" * 4
TOKEN_OLD = "99aabbccddeeff00" * 4
PUBLIC = "Qz9~" * 129
KEY_A = "kA-1" * 92
KEY_SOURCE = "kS~2" * 92
KEY_ALONE = "kX-3" * 100
KAD_SECRET = b"\xde\xad\xbe\xef"
VALUES = (TOKEN_A, TOKEN_B, TOKEN_SOURCE, TOKEN_OLD, KEY_A, KEY_SOURCE, KEY_ALONE)
SHORT_VALUES = tuple(value for value in VALUES if len(value) == 64)


class User(NamedTuple):
    """A user without an account."""

    uid: int
    gid: int
    groups: tuple[int, ...]


class Planted(NamedTuple):
    """A run with secrets everywhere."""

    spec: BundleSpec
    records: dict[str, int]


def straddling(value: bytes) -> bytes:
    """Return bytes that hold `value` across the first chunk border, and some more at odd places."""
    filler = b"\x00\x01\xff text \n"
    before = (filler * (CHUNK // len(filler)))[: CHUNK - len(value) // 2 - 8]
    return before + value + filler + value + value + filler + value


def plant_files(node: Path, data: Path) -> None:
    """Write every value into texts, binaries, names and link targets of a node folder."""
    for number, value in enumerate(VALUES):
        (node / f"border{number}.bin").write_bytes(straddling(value.encode()))
        (data / "logs" / f"rust-mule.{number}.log").write_text(
            f"DEBUG Authorization: Bearer {value}\nPRIV={PUBLIC}{value} x\n{value}"
        )
        (node / f"link{number}").symlink_to(f"/somewhere/{value}/{value}")
    for number, value in enumerate(SHORT_VALUES):
        (node / f"dump-{value}.log").write_text("empty")
        (node / value).mkdir()
        (node / value / f"{value.upper()}.{number}").write_text(value.upper())
        os.mkfifo(node / f"{value}.fifo")
        (node / f"{value}.part").write_text(value)
    (node / "rust-mule").write_bytes(b"\x7fELF" + straddling(TOKEN_A.encode()))
    (node / "001.part").write_bytes(straddling(KEY_A.encode()))
    (node / "clean.part").write_bytes(b"PK\x03\x04 a film")
    (node / "quoted.json").write_text(json.dumps({"token": TOKEN_A, "key": f'"{KEY_A}"'}))


def plant_secret_files(data: Path, token: str, keys: str) -> None:
    """Write the three files, the leftovers of writing them, and copies."""
    data.mkdir(parents=True)
    (data / "logs").mkdir()
    (data / "api.token").write_text(token)
    (data / "api.tmp").write_text(token)
    (data / "api.token.bak").write_text(token)
    (data / "notes.txt").write_text(f"my token is {token}, my keys:\n{keys}")
    (data / "sam.keys").write_text(keys)
    (data / "kad_udp_key_secret.dat").write_bytes(KAD_SECRET)


@pytest.fixture
def planted(tmp_path: Path) -> Iterator[Planted]:
    """Plant secrets in two node folders, a source folder, the records and the spec itself."""
    a, b, source = (tmp_path / name for name in ("mule-a", "mule-b", "source"))
    keys = f"# keys\nPUB={PUBLIC}\nPRIV={PUBLIC}{KEY_A}\n"
    plant_secret_files(a / "data", TOKEN_A, keys)
    plant_secret_files(b / "elsewhere" / "state", TOKEN_B, f"PRIV={KEY_ALONE}\n")
    plant_secret_files(source / "data", TOKEN_SOURCE, f"PUB={PUBLIC}\nPRIV={PUBLIC}{KEY_SOURCE}")
    plant_files(a, a / "data")
    records = {}
    for name in ("logs/rounds.tsv", "logs/a.out", "runner.out", "plan.json"):
        path = tmp_path / name.replace("/", "-")
        path.write_bytes(b"".join(straddling(value.encode()) for value in VALUES))
        records[name] = os.open(path, os.O_RDONLY)
    yield Planted(
        BundleSpec(
            nodes=(NodeFolder(str(a), "mule-a"), NodeFolder(str(b), "mule-b")),
            sources=(str(source), str(tmp_path / "gone")),
            binaries=("rust-mule",),
            secrets=(Secret("token", TOKEN_OLD),),
            about={"label": f"see {TOKEN_A}", "notes": [{TOKEN_B: KEY_SOURCE}]},
            left_out=(LeftOut(f"/run/{TOKEN_OLD}", "bears another run's marker"),),
        ),
        records,
    )
    for descriptor in records.values():
        os.close(descriptor)


async def collect(stream: BundleStream) -> bytes:
    """Return the whole bundle."""
    return b"".join([piece async for piece in stream])


def members_of(bundle: bytes) -> dict[str, bytes]:
    """Unpack a bundle."""
    with tarfile.open(fileobj=io.BytesIO(bundle), mode="r:gz") as archive:
        return {
            info.name: file.read()
            for info in archive
            if (file := archive.extractfile(info)) is not None
        }


@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True])
async def test_no_secret_enters_a_bundle(planted: Planted, *, full: bool) -> None:
    """Values of tokens and keys, planted everywhere, are nowhere in the unpacked bundle."""
    spec = BundleSpec(
        **{name: getattr(planted.spec, name) for name in planted.spec.__slots__ if name != "full"},
        full=full,
    )
    with trio.fail_after(60):
        async with open_bundle(
            python=PYTHON, credentials=None, spec=spec, record_fds=planted.records
        ) as stream:
            bundle = await collect(stream)
    unpacked = gzip.decompress(bundle).lower()
    for value in VALUES:
        assert value.lower().encode() not in unpacked
    members = members_of(bundle)
    manifest = json.loads(members["MANIFEST.json"])
    assert manifest["secrets_searched"] == "all"
    reasons = {item["name"]: item["reason"] for item in manifest["left_out"]}
    for folder in ("mule-a/data", "mule-b/elsewhere/state"):
        for name in ("api.token", "api.tmp", "api.token.bak", "sam.keys", "kad_udp_key_secret.dat"):
            assert f"{folder}/{name}" not in members
            assert reasons[f"{folder}/{name}"] == "secret"
    # A program with a token in it is left out even so; one that is clean is packed.
    assert reasons["mule-a/rust-mule"] == ("binary with a token in it" if full else "binary")
    assert reasons["mule-a/border0.bin"].startswith("binary with a ")
    assert ("mule-a/clean.part" in members) is full
    assert PUBLIC.encode().lower() not in unpacked
    notes = members["mule-a/data/notes.txt"]
    assert re.search(rb"\nPUB=(\[dest:[0-9a-f]{12}\])\*+\nPRIV=\[redacted:key\]\*+\n", notes)
    for name, descriptor in planted.records.items():
        assert len(members[name]) == os.fstat(descriptor).st_size
        assert members[name].startswith(b"\x00\x01\xff text \n")


@pytest.mark.slow
async def test_a_secret_that_survives_the_redactor_makes_no_bundle(
    planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real helper whose redactor masks nothing: it fails, so what was sent is never kept."""
    code = io.BytesIO(helper_zip())
    with zipfile.ZipFile(code, "a") as archive:
        found = archive.read("soakd/bundle/redact.py").decode()
        blind = "    def spans(self, data, marks):\n        return []\n\n    def _pseudonym("
        assert found.count("    def _pseudonym(") == 1
        text = found.replace("    def _pseudonym(", blind)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("soakd/bundle/redact.py", text)
    monkeypatch.setattr("soakd.edge.packer.helper_zip", code.getvalue)
    with pytest.raises(HostError, match="would have been left in") as raised, trio.fail_after(60):
        async with open_bundle(
            python=PYTHON, credentials=None, spec=planted.spec, record_fds=planted.records
        ) as stream:
            await collect(stream)
    assert not any(value in raised.value.message for value in VALUES)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_helper_sees_no_more_than_its_user(short_dir: Path) -> None:
    """Root's files in or behind the node folder stay root's; only descriptors pass them on."""
    user = User(54321, 54321, ())
    short_dir.chmod(0o711)
    node = short_dir / "mule-a"
    node.mkdir()
    (node / "mine").write_text("mine")
    for path in (node, node / "mine"):
        os.chown(path, user.uid, user.gid)
    (node / "roots").write_text("roots")
    (node / "roots").chmod(0o600)
    (node / "shadow").symlink_to("/etc/shadow")
    (short_dir / "plan.json").write_text("{}")
    record = os.open(short_dir / "plan.json", os.O_RDONLY)
    spec = BundleSpec(nodes=(NodeFolder(str(node), "mule-a"),))
    async with open_bundle(
        python=PYTHON, credentials=user, spec=spec, record_fds={"plan.json": record}
    ) as stream:
        members = members_of(await collect(stream))
    os.close(record)
    manifest = json.loads(members.pop("MANIFEST.json"))
    assert members == {"plan.json": b"{}", "mule-a/mine": b"mine"}
    reasons = {item["name"]: item["reason"] for item in manifest["left_out"]}
    assert reasons == {"mule-a/roots": "Permission denied", "mule-a/shadow": "symbolic link"}


def children() -> set[int]:
    """Return the processes of which this one is the parent, zombies included."""
    lists = Path("/proc/self/task").glob("*/children")
    return {int(pid) for path in lists for pid in path.read_text().split()}


async def test_leaving_early_ends_and_reaps_both_processes(tmp_path: Path) -> None:
    """A client that hangs up leaves no process and no descriptor behind."""
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(1 << 40)
    record = os.open(big, os.O_RDONLY)
    spec = BundleSpec()
    before = children(), len(os.listdir("/proc/self/fd"))
    with trio.CancelScope() as scope:
        async with open_bundle(
            python=PYTHON, credentials=None, spec=spec, record_fds={"big": record}
        ) as stream:
            async for _ in stream:
                assert len(children() - before[0]) == 2
                scope.cancel()
    assert scope.cancelled_caught
    assert (children(), len(os.listdir("/proc/self/fd"))) == before
    os.close(record)


async def test_failing_helper_is_a_host_error_with_its_words() -> None:
    """What it said is bounded and escaped: the helper is a process of the user's."""
    record = os.open(os.devnull, os.O_RDONLY)
    spec = BundleSpec(about={"surrogate": "x"})
    async with open_bundle(
        python=PYTHON, credentials=None, spec=spec, record_fds={"a": record}
    ) as stream:
        os.close(record)
        assert members_of(await collect(stream))["a"] == b""
    with pytest.raises(HostError, match=r"cannot make the bundle: the bundle helper ended with"):
        async with open_bundle(
            python="/bin/false", credentials=None, spec=spec, record_fds={}
        ) as stream:
            await collect(stream)


async def test_helper_that_is_killed_is_a_host_error(planted: Planted) -> None:
    """The bytes that came before are no bundle, and the reader hears it."""
    with pytest.raises(HostError, match="status -9"):
        async with open_bundle(
            python=PYTHON, credentials=None, spec=planted.spec, record_fds=planted.records
        ) as stream:
            pid = stream._helper._process.pid
            os.kill(pid, signal.SIGKILL)
            await collect(stream)


async def test_silent_helper_is_a_host_error(tmp_path: Path) -> None:
    """A helper that hangs in a broken file system does not hold `collect` for ever."""
    silent = tmp_path / "python"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o755)
    with pytest.raises(HostError, match=r"no progress for 0\.05 s"):
        async with open_bundle(
            python=str(silent), credentials=None, spec=BundleSpec(), record_fds={}, stall_s=0.05
        ) as stream:
            await collect(stream)


async def test_python_that_is_not_there_is_a_host_error() -> None:
    """And the compressor that had been started is gone."""
    before = children(), len(os.listdir("/proc/self/fd"))
    with pytest.raises(HostError, match="cannot start the bundle helper /nonexistent/python"):
        async with open_bundle(
            python="/nonexistent/python", credentials=None, spec=BundleSpec(), record_fds={}
        ):
            pass
    assert (children(), len(os.listdir("/proc/self/fd"))) == before


async def test_helper_needs_nothing_of_our_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its code travels in a memfd; neither folder nor environment leads to it."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "json.py").write_text("raise SystemExit('hijacked')")
    shutil.copy(packer.__file__, tmp_path)
    monkeypatch.chdir(tmp_path)
    async with open_bundle(
        python=PYTHON, credentials=None, spec=BundleSpec(), record_fds={}
    ) as stream:
        assert list(members_of(await collect(stream))) == ["MANIFEST.json"]


@pytest.mark.parametrize(
    ("host", "name", "expected"),
    [
        ("box", "r7", "soak-box-r7-20261122T170000Z.tar.gz"),
        ("box.lan", "my label / 2", "soak-box.lan-my_label_2-20261122T170000Z.tar.gz"),
        ("", "../..", "soak-x-x-20261122T170000Z.tar.gz"),
    ],
)
def test_bundle_name_is_harmless(host: str, name: str, expected: str) -> None:
    """Labels are free text; file names are typed into shells."""
    assert bundle_file_name(host=host, name=name, epoch=1795366800.0) == expected
