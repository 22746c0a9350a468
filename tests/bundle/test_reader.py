"""Reading other people's tarballs: whole, torn, damaged, hostile."""

from __future__ import annotations

import gzip
import os
import random
import tarfile
from pathlib import Path

import pytest

from soakd.bundle.reader import Bundle, Limits, NotABundle
from tests.triage.kit import regular, tar_of

_SMALL = Limits(members=5, total_bytes=3 << 20, ratio=20, ratio_free_bytes=1 << 18)


def _contents(path: Path, limits: Limits | None = None) -> tuple[dict[str, bytes], list[str]]:
    bundle = Bundle(str(path), limits)
    found = {member.name: b"".join(member.pieces) for member in bundle.members()}
    return found, bundle.notes


def _noise(count: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(count)


@pytest.mark.parametrize("mode", ["w:gz", "w"])
@pytest.mark.parametrize("dialect", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_every_dialect_gives_names_and_contents(tmp_path: Path, mode: str, dialect: int) -> None:
    """Long names in all their spellings, dots and doubled slashes, an empty file."""
    path = tmp_path / "x.tar"
    deep = "/".join(["folder"] * 25) + "/file"
    expected = {"./logs/a.out": _noise(300_000), "logs//b.out": b"", deep: b"x" * 513}
    with tarfile.open(path, mode, format=dialect) as tarball:  # type: ignore[call-overload]
        source = tmp_path / "source"
        for name, data in expected.items():
            source.write_bytes(data)
            tarball.add(source, name)
    found, notes = _contents(path)
    assert found == {
        "logs/a.out": expected["./logs/a.out"], "logs/b.out": b"", deep: b"x" * 513
    }  # fmt: skip
    assert notes == []


def test_only_regular_files_under_plain_names_come_out(tmp_path: Path) -> None:
    """Links, devices, folders and names that lead elsewhere are ignored, and named."""
    members = [regular("logs/a.out", b"good"), regular("/etc/passwd", b"bad")]
    members += [regular("logs/../../up", b"bad"), regular("../up", b"bad")]
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        info = tarfile.TarInfo(f"odd{kind.decode()}")
        info.type, info.linkname = kind, "/etc/passwd"
        members.append((info, b""))
    members.append(regular("logs/b.out", b"good too"))
    found, notes = _contents(tar_of(tmp_path / "x.tar.gz", members))
    assert found == {"logs/a.out": b"good", "logs/b.out": b"good too"}
    assert len(notes) == 5
    assert {path.name for path in tmp_path.iterdir()} == {"x.tar.gz"}


def test_a_torn_bundle_gives_what_was_readable_and_says_so(tmp_path: Path) -> None:
    """Cut anywhere: what comes out is a beginning of the whole, and the end is never silent."""
    members = [regular("a", _noise(40_000)), regular("b", _noise(40_000, 2))]
    whole, _ = _contents(tar_of(tmp_path / "x.tar.gz", members))
    data = (tmp_path / "x.tar.gz").read_bytes()
    torn = tmp_path / "torn.tar.gz"
    found: dict[str, bytes] = {}
    for cut in range(600, len(data) - 20, 4000):
        torn.write_bytes(data[:cut])
        found, notes = _contents(torn)
        assert notes, cut
        assert "cannot be read beyond" in notes[-1]
        for name, content in found.items():
            assert whole[name].startswith(content)
    assert found.keys() == whole.keys()


def test_a_damaged_bundle_ends_where_the_damage_is(tmp_path: Path) -> None:
    """A flipped bit in the compressed stream, and one in a header."""
    members = [regular("a", b"a" * 700), regular("b", b"b" * 700), regular("c", b"c" * 700)]
    plain = tar_of(tmp_path / "x.tar", members, "w").read_bytes()
    at = plain.index(b"ustar", 600)
    (tmp_path / "y.tar").write_bytes(plain[:at] + b"U" + plain[at + 1 :])
    found, notes = _contents(tmp_path / "y.tar")
    assert found == {"a": b"a" * 700}
    assert "no header" in notes[0]
    packed = bytearray(gzip.compress(_noise(1000) + plain, 0))
    (tmp_path / "z.tar.gz").write_bytes(packed[:-4000] + b"\xff" * 40)
    with pytest.raises(NotABundle, match=r"wanted is a \.tar\.gz or a run folder"):
        _contents(tmp_path / "z.tar.gz")


def test_bombs_are_not_blown_up(tmp_path: Path) -> None:
    """Too many members, too many bytes, packed too tightly: reading stops, and says why."""
    many = tar_of(tmp_path / "many.tar.gz", [regular(f"f{n}", b"") for n in range(50)])
    found, notes = _contents(many, _SMALL)
    assert (len(found), "more than 5 members" in notes[0]) == (5, True)
    large = tar_of(tmp_path / "large.tar.gz", [regular("large", _noise(4 << 20))])
    found, notes = _contents(large, _SMALL)
    assert len(found["large"]) <= 3 << 20
    assert "more than 3145728 bytes" in notes[0]
    tight = tar_of(tmp_path / "tight.tar.gz", [regular("zeros", bytes(1 << 21))])
    found, notes = _contents(tight, _SMALL)
    assert len(found["zeros"]) <= 1 << 19
    assert "packed more than 20:1" in notes[0]


def test_an_announced_size_is_not_believed(tmp_path: Path) -> None:
    """A header may promise exabytes; what is there is given, piece by piece."""
    info = tarfile.TarInfo("huge")
    info.size = 1 << 60
    path = tmp_path / "x.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"x" * 1000)
    found, notes = _contents(path)
    assert found == {"huge": b"x" * 1000}
    assert "bytes are missing" in notes[0]


def test_members_that_nobody_reads_are_passed_over(tmp_path: Path) -> None:
    """Names may be looked at without taking any content."""
    path = tar_of(tmp_path / "x.tar.gz", [regular("a", _noise(300_000)), regular("b", b"b")])
    assert [member.name for member in Bundle(str(path)).members()] == ["a", "b"]


def test_what_is_no_bundle_is_refused_with_what_would_be_one(tmp_path: Path) -> None:
    """A missing path, a text, an empty file, a FIFO."""
    (tmp_path / "text").write_text("hello\n" * 200)
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "fifo")
    for name in ("missing", "text", "empty", "fifo"):
        with pytest.raises(NotABundle, match=r"wanted is a \.tar\.gz or a run folder"):
            _contents(tmp_path / name)


def test_a_folder_gives_its_records_and_no_links(tmp_path: Path) -> None:
    """Node folders are not entered; the folder of logs may be a link, a file may not."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.out").write_text("out")
    (elsewhere / "secret").write_text("secret")
    folder = tmp_path / "run"
    (folder / "mule-a").mkdir(parents=True)
    (folder / "mule-a" / "api.token").write_text("token")
    (folder / "logs").symlink_to(elsewhere)
    (folder / "plan.json").write_text("{}")
    (folder / "run.json").symlink_to(elsewhere / "secret")
    os.mkfifo(folder / "runner.out")
    found, notes = _contents(folder)
    assert found == {"plan.json": b"{}", "logs/a.out": b"out", "logs/secret": b"secret"}
    assert notes == []
