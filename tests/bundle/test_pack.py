"""Tests of soakd.bundle.pack, helper and compress, in this process."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from soakd.bundle import compress, helper, pack
from soakd.bundle.pack import Packer
from soakd.bundle.redact import Redactor
from soakd.bundle.spec import (
    BundleSpec,
    LeftOut,
    Limits,
    NodeFolder,
    Secret,
    decode_spec,
    encode_spec,
)
from soakd.bundle.tar_stream import OutputError, TarStream
from soakd.bundle.writer import MANIFEST

TOKEN = "0123456789abcdef" * 4
PUBLIC = "Qa9~" * 128 + "AAAA"


class Bundle(NamedTuple):
    """An unpacked bundle."""

    members: dict[str, bytes]
    manifest: dict[str, Any]

    def reason(self, name: str) -> str | None:
        """Return why `name` was left out."""
        return next((i["reason"] for i in self.manifest["left_out"] if i["name"] == name), None)


def unpack(data: bytes) -> Bundle:
    """Read a plain tar and check it against its manifest."""
    members: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for info in archive:
            file = archive.extractfile(info)
            assert file is not None
            assert info.name not in members
            members[info.name] = file.read()
    assert list(members)[-1] == MANIFEST
    manifest = json.loads(members.pop(MANIFEST))
    assert [item["name"] for item in manifest["members"]] == list(members)
    for item in manifest["members"]:
        assert item["size"] == len(members[item["name"]])
        assert item["sha256"] == hashlib.sha256(members[item["name"]]).hexdigest()
    return Bundle(members, manifest)


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """Return an empty node folder."""
    folder = tmp_path / "node"
    folder.mkdir()
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Iterator[int]:
    """Return the descriptor of an empty file."""
    descriptor = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def packed(output: int, spec: BundleSpec, records: Mapping[str, int] | None = None) -> Bundle:
    """Pack into `output` and unpack again."""
    Packer(spec, output).run(records or {})
    return unpack(os.pread(output, 1 << 30, 0))


def one_node(node: Path, **options: Any) -> BundleSpec:
    """Return the spec of one folder."""
    given = {"nodes": (NodeFolder(str(node), "mule-a"),), "binaries": ("rust-mule",)}
    return BundleSpec(**given | options)


def test_records_and_folders_come_in_order_with_their_manifest(node: Path, output: int) -> None:
    """Records first, then the node folders as `mule-a/`; the manifest is last and agrees."""
    (node / "config.toml").write_text("[api]\n")
    record = os.open(node.parent / "rounds.tsv", os.O_RDWR | os.O_CREAT)
    os.write(record, b"row\n")
    spec = one_node(node, about={"run": "r7"}, left_out=(LeftOut("mule-b", "another run's"),))
    bundle = packed(output, spec, {"logs/rounds.tsv": record, "rounds.tsv": record})
    os.close(record)
    assert bundle.members == {
        "logs/rounds.tsv": b"row\n",
        "rounds.tsv": b"row\n",
        "mule-a/config.toml": b"[api]\n",
    }
    assert bundle.manifest["about"] == {"run": "r7"}
    assert bundle.reason("mule-b") == "another run's"


def test_binaries_and_parts_are_hash_and_size(node: Path, output: int) -> None:
    """They would be most of the bundle and tell nothing; `rust-mule` deeper down is a file."""
    (node / "data").mkdir()
    for name in ("rust-mule", "data/001.part", "data/rust-mule"):
        (node / name).write_bytes(b"\x7fELF")
    bundle = packed(output, one_node(node))
    assert list(bundle.members) == ["mule-a/data/rust-mule"]
    digest = hashlib.sha256(b"\x7fELF").hexdigest()
    assert bundle.manifest["left_out"] == [
        {"name": "mule-a/data/001.part", "reason": "download part", "size": 4, "sha256": digest},
        {"name": "mule-a/rust-mule", "reason": "binary", "size": 4, "sha256": digest},
    ]


def test_secret_files_of_another_program_stay_out_and_so_do_their_values(
    node: Path, output: int
) -> None:
    """Which files those are, the plan's driver says."""
    (node / "state").mkdir()
    (node / "state" / "Seal.key").write_text("0123456789abcdef" * 4)
    (node / "out.log").write_text(f"made {'0123456789abcdef' * 4}\n")
    bundle = packed(output, one_node(node, secret_names=("seal.key",)))
    assert bundle.reason("mule-a/state/Seal.key") == "secret"
    assert b"0123456789abcdef" not in bundle.members["mule-a/out.log"]


def test_full_packs_binaries_and_parts(node: Path, output: int) -> None:
    """`--full` means everything but the secrets, and keeps the right to execute."""
    (node / "rust-mule").write_bytes(b"\x7fELF")
    (node / "rust-mule").chmod(0o755)
    (node / "x.part").touch()
    (node / "api.token").write_text(TOKEN)
    bundle = packed(output, one_node(node, full=True))
    assert list(bundle.members) == ["mule-a/rust-mule", "mule-a/x.part"]
    with tarfile.open(fileobj=io.BytesIO(os.pread(output, 1 << 20, 0))) as archive:
        assert archive.getmember("mule-a/rust-mule").mode == 0o700


def test_binary_files_with_a_value_are_left_out_and_named(node: Path, output: int) -> None:
    """As text, in a spelling, or as raw bytes: masking would break what nobody knows."""
    files = {
        "text.db": b"\0" * 3000 + TOKEN.encode(),
        "spelt.db": b"\0" + base64.b64encode(TOKEN.encode()),
        "raw.db": b"\0" * (2 << 20) + bytes.fromhex(TOKEN),
        "public.db": b"\0" + base64.b64decode(PUBLIC, b"-~"),
        "clean.db": b"\0" * 3000,
        "log": TOKEN.encode(),
    }
    for name, data in files.items():
        (node / name).write_bytes(data)
    (node / "sam.keys").write_text(f"PUB={PUBLIC}\n")
    (node / "api.token").write_text(TOKEN)
    bundle = packed(output, one_node(node))
    assert list(bundle.members) == ["mule-a/clean.db", "mule-a/log"]
    assert bundle.members["mule-a/clean.db"] == files["clean.db"]
    for name in ("text.db", "spelt.db", "raw.db"):
        assert bundle.reason(f"mule-a/{name}") == "binary with a token in it"
    assert bundle.reason("mule-a/public.db") == "binary with a destination in it"
    assert not any("sha256" in item for item in bundle.manifest["left_out"])


def test_compressed_files_are_left_out_and_named(node: Path, output: int) -> None:
    """Nobody can look into them; a download is no log, and `--full` asks for it."""
    (node / "old.log.gz").write_bytes(gzip.compress(TOKEN.encode()))
    (node / "001.part").write_bytes(b"PK\x03\x04")
    bundle = packed(output, one_node(node, full=True))
    assert list(bundle.members) == ["mule-a/001.part"]
    assert bundle.reason("mule-a/old.log.gz") == "compressed: nobody can look for secrets in it"


@pytest.mark.parametrize("keep", [False, True])
def test_destinations_are_kept_only_if_asked_for(node: Path, output: int, *, keep: bool) -> None:
    """The same pseudonym in all members, lists of peers left out; the manifest says which it is."""
    for name in ("a.log", "b.log"):
        (node / name).write_text(f"DATAGRAM SEND DESTINATION={PUBLIC} SIZE=3\n")
    (node / "nodes.dat").write_bytes(b"\0" * 12 + base64.b64decode(PUBLIC, b"-~"))
    bundle = packed(output, one_node(node, keep_destinations=keep))
    assert bundle.manifest["keep_destinations"] is keep
    texts = {bundle.members[f"mule-a/{name}"] for name in ("a.log", "b.log")}
    assert len(texts) == 1
    assert (PUBLIC.encode() in texts.pop()) is keep
    assert ("mule-a/nodes.dat" in bundle.members) is keep
    assert (bundle.reason("mule-a/nodes.dat") is None) is keep


def test_a_root_that_another_run_uses_is_left_out(node: Path, output: int) -> None:
    """Its marker names whose it is; a marker that cannot be read names nobody."""
    (node / "a").write_text("x")
    marker = node.parent / "marker"
    for text, is_ours in (('{"run": "r7"}', True), ('{"run": "r8"}', False), ("torn", False)):
        marker.write_text(text)
        os.ftruncate(output, 0)
        os.lseek(output, 0, os.SEEK_SET)
        spec = BundleSpec(nodes=(NodeFolder(str(node), "mule-a", str(marker), "r7"),))
        bundle = packed(output, spec)
        assert ("mule-a/a" in bundle.members) is is_ours
        assert (bundle.reason("mule-a") is None) is is_ours


def test_limits_leave_out_and_name(node: Path, output: int) -> None:
    """Nothing is cut in silence."""
    for name, size in (("a", 9), ("b", 1), ("c", 1), ("d", 1), ("rust-mule", 3)):
        (node / name).write_bytes(b"x" * size)
    limits = Limits(member_bytes=8, hash_bytes=2, members=2)
    bundle = packed(output, one_node(node, limits=limits))
    assert list(bundle.members) == ["mule-a/b", "mule-a/c"]
    assert bundle.reason("mule-a/a") == "too big"
    assert bundle.reason("mule-a/d") == "too many members"
    assert bundle.manifest["left_out_unnamed"] == 1


def test_binary_over_the_limit_has_no_hash(node: Path, output: int) -> None:
    """Hashing must not take longer than the reader's patience."""
    (node / "rust-mule").write_bytes(b"xxx")
    bundle = packed(output, one_node(node, limits=Limits(hash_bytes=2)))
    assert bundle.manifest["left_out"][0]["sha256"] is None


def test_names_of_4096_bytes_and_more_are_left_out(node: Path, output: int) -> None:
    """Other readers of tar give up there."""
    here = os.open(node, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("n" * 250, dir_fd=here)
        inner = os.open("n" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("f", os.O_CREAT, dir_fd=here))
    os.close(here)
    assert packed(output, one_node(node)).manifest["left_out"][0]["reason"] == "name too long"


def test_names_that_become_equal_are_told_apart(node: Path, output: int) -> None:
    """Two names that differ only in the token they contain."""
    other = "f" * 64
    for value in (TOKEN, other):
        (node / f"log-{value}").write_text("x")
    spec = one_node(node, secrets=(Secret("token", TOKEN), Secret("token", other)))
    masked = "mule-a/log-[redacted:token]" + "*" * 48
    assert list(packed(output, spec).members) == [masked, masked + "~2"]


def test_what_cannot_be_read_is_named(
    node: Path, output: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bad file does not cost the bundle."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (node / "a").touch()
    monkeypatch.setattr(pack, "open_regular", refuse)
    bundle = packed(output, one_node(node))
    assert bundle.reason("mule-a/a") == "Permission denied"


def test_missing_node_folder_is_named(tmp_path: Path, output: int) -> None:
    """A run that failed while staging has no folder; its records still make a bundle."""
    bundle = packed(output, one_node(tmp_path / "gone"))
    assert bundle.reason("mule-a") == "No such file or directory"


@pytest.mark.parametrize("fails", [False, True])
def test_file_that_shrinks_is_padded_and_named(
    node: Path, output: int, monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    """The size stands in the header already; a failing disk looks the same."""
    (node / "log").write_bytes(b"x" * 100)
    real = os.pread

    def short(descriptor: int, count: int, offset: int) -> bytes:
        data = real(descriptor, count, offset)
        if offset == 0 and count == 100:
            return data[:40]
        if count == 60 and fails:
            raise OSError(5, "Input/output error")
        return b"" if count == 60 else data

    monkeypatch.setattr(os, "pread", short)
    bundle = packed(output, one_node(node))
    assert bundle.members["mule-a/log"] == b"x" * 40 + bytes(60)
    assert bundle.manifest["members"][0]["padded"] == 60


def test_file_that_grows_is_cut_at_the_size_it_had(
    node: Path, output: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run goes on while it is collected."""
    log = node / "log"
    log.write_bytes(b"x" * 100)
    real = os.pread

    def growing(descriptor: int, count: int, offset: int) -> bytes:
        with log.open("ab") as file:
            file.write(b"more")
        return real(descriptor, count, offset)

    monkeypatch.setattr(os, "pread", growing)
    assert packed(output, one_node(node)).members["mule-a/log"] == b"x" * 100


def test_token_made_while_packing_is_masked_in_what_follows(
    node: Path, output: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is written before a log can show its value."""
    (node / "data").mkdir()
    (node / "a").touch()
    (node / "b").touch()
    real = TarStream.begin

    def begin(self: TarStream, name: str, size: int, mtime: float, **options: bool) -> None:
        if name == "mule-a/a":
            (node / "data" / "api.token").write_text(TOKEN)
            (node / "b").write_text(f"Bearer {TOKEN}")
        real(self, name, size, mtime, **options)

    monkeypatch.setattr(TarStream, "begin", begin)
    bundle = packed(output, one_node(node))
    assert bundle.members["mule-a/b"] == b"Bearer [redacted:token]" + b"*" * 48


def test_reader_that_goes_away_ends_the_packing(node: Path) -> None:
    """Its own error, so that it is not taken for an unreadable file."""
    (node / "a").write_text("x")
    read_end, write_end = os.pipe()
    os.close(read_end)
    with pytest.raises(OutputError, match="Broken pipe"):
        Packer(one_node(node), write_end).run({})
    os.close(write_end)


def test_member_of_the_wrong_length_is_a_fault_of_ours(output: int) -> None:
    """A tar whose headers lie is worse than none."""
    stream = TarStream(output)
    stream.begin("x", 2, 0)
    with pytest.raises(AssertionError, match="2 bytes short"):
        stream.end()


def test_spec_survives_the_way_to_the_helper() -> None:
    """What soakd writes is what the helper reads."""
    spec = BundleSpec(
        nodes=(NodeFolder("/n", "mule-a"),),
        sources=("/s",),
        secrets=(Secret("token", TOKEN),),
        full=True,
        keep_destinations=False,
        about={"run": "r7"},
        left_out=(LeftOut("x", "y"),),
        limits=Limits(depth=3),
    )
    assert decode_spec(encode_spec(spec, {"plan.json": 5})) == (spec, {"plan.json": 5})


class _Stdio(NamedTuple):
    """What the helper reads from and writes to, as sys.stdin and sys.stdout."""

    buffer: io.BytesIO
    descriptor: int

    def fileno(self) -> int:
        return self.descriptor


def run_helper(monkeypatch: pytest.MonkeyPatch, document: bytes, output: int) -> int:
    """Run the helper's main here, without giving up rights that the tests need."""
    monkeypatch.setattr(helper, "_restrict", lambda: None)
    monkeypatch.setattr(sys, "stdin", _Stdio(io.BytesIO(document), -1))
    monkeypatch.setattr(sys, "stdout", _Stdio(io.BytesIO(), output))
    return helper.main()


def test_helper_packs_what_its_spec_names(
    node: Path, output: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit status 0 and a whole tar."""
    (node / "a").write_text("x")
    assert run_helper(monkeypatch, encode_spec(one_node(node), {}), output) == 0
    assert unpack(os.pread(output, 1 << 20, 0)).members == {"mule-a/a": b"x"}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"", "cannot read the spec: "),
        (b"{}", "cannot read the spec: 'spec'"),
        (encode_spec(BundleSpec(), {"a": 987654}), "cannot pack the bundle: [Errno 9]"),
    ],
)
def test_helper_says_why_it_failed(
    document: bytes,
    said: str,
    output: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line on stderr and exit status 1."""
    assert run_helper(monkeypatch, document, output) == 1
    assert capsys.readouterr().err.startswith(said)


def test_helper_lets_no_secret_go(
    node: Path, output: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A redactor that fails us ends the bundle, with the member's name and without the value."""
    (node / "a").write_text(f"x {TOKEN} x\n")
    document = encode_spec(one_node(node, secrets=(Secret("token", TOKEN),)), {})
    monkeypatch.setattr(Redactor, "spans", lambda *_: [])
    assert run_helper(monkeypatch, document, output) == 1
    said = capsys.readouterr().err
    assert said.startswith("cannot let the bundle go: a token would have been left in mule-a/a;")
    assert TOKEN not in said


def test_helper_ends_when_its_reader_has_gone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """soakd closes the pipe when the client of `collect` goes away."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    assert run_helper(monkeypatch, encode_spec(BundleSpec(), {}), write_end) == 1
    os.close(write_end)
    assert capsys.readouterr().err == "cannot write the bundle: Broken pipe\n"


@pytest.mark.parametrize("use_isal", [True, False])
def test_compressed_stream_is_plain_gzip(tmp_path: Path, *, use_isal: bool) -> None:
    """With isal or without, `tar xzf` reads it."""
    data = os.urandom(1000) + b"line\n" * 200_000
    (tmp_path / "in").write_bytes(data)
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
        compressor = compress.make_compressor(use_isal=use_isal)
        compress.compress(source.fileno(), target.fileno(), compressor)
    assert gzip.decompress((tmp_path / "out").read_bytes()) == data


def test_without_isal_zlib_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """isal is a faster way, not a condition."""
    monkeypatch.setitem(sys.modules, "isal", None)
    compressor = compress.make_compressor()
    assert gzip.decompress(compressor.compress(b"x") + compressor.flush()) == b"x"


def test_compressor_says_that_its_reader_has_gone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], output: int
) -> None:
    """Exit status 1 and a line, no traceback; 0 when all went well."""
    read_end, write_end = os.pipe()
    monkeypatch.setattr(sys, "stdin", _Stdio(io.BytesIO(), os.open(os.devnull, os.O_RDONLY)))
    monkeypatch.setattr(sys, "stdout", _Stdio(io.BytesIO(), write_end))
    assert compress.main() == 0
    os.close(read_end)
    assert compress.main() == 1
    os.close(write_end)
    os.close(sys.stdin.fileno())
    assert capsys.readouterr().err == "cannot compress: Broken pipe\n"
