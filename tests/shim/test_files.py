"""The file verbs and the copy against trees made to hurt."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from soakd.shim import copying, files, protocol, roots
from soakd.shim.copying import Order, TreeCopy
from soakd.shim.errors import VerbError
from tests.shim.harness import drain


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """Return a descriptor of a node folder with a file, a subfolder and links out of it."""
    (tmp_path / "node").mkdir()
    (tmp_path / "node/config.toml").write_text("x = 1\n")
    (tmp_path / "node/data").mkdir()
    (tmp_path / "node/data/api.token").write_text("t" * 64)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "node/out").symlink_to(tmp_path)
    (tmp_path / "node/link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "node/fifo")
    fd = os.open(tmp_path / "node", files.FOLDER)
    yield fd
    os.close(fd)


def code_of(caught: pytest.ExceptionInfo[VerbError]) -> str:
    """The code a verb refused with."""
    return caught.value.code


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../secret", "data/../x", ".", "a//b", "a\0b"])
def test_paths_that_leave_the_folder_are_refused(root: int, path: str) -> None:
    """A path is plain names below the node folder."""
    with pytest.raises(VerbError) as caught:
        files.read(root, path, 0, 10)
    assert code_of(caught) == "bad_path"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("out/secret", "link"),
        ("link", "link"),
        ("fifo", "not_a_file"),
        ("data", "not_a_file"),
        ("config.toml/x", "link"),
        ("absent", "missing"),
        ("absent/x", "missing"),
    ],
)
def test_only_regular_files_without_links_are_read(root: int, path: str, code: str) -> None:
    """Neither a link in the middle nor one at the end is followed, and no FIFO blocks."""
    with pytest.raises(VerbError) as caught:
        files.read(root, path, 0, 10)
    assert code_of(caught) == code


def test_read_gives_a_piece_with_size_and_mode(root: int) -> None:
    """Pieces come in base64 with what is needed to fetch the rest."""
    piece = files.read(root, "data/api.token", 60, 1 << 40)
    assert base64.b64decode(str(piece["data"])) == b"tttt"
    assert (piece["total"], piece["mode"]) == (64, 0o644)


def test_replace_takes_the_place_of_a_link(root: int, tmp_path: Path) -> None:
    """The link goes, its target stays, no scratch file is left."""
    (tmp_path / "node/.link.soakd-new").write_text("left by a crash")
    files.replace(root, "link", b"new", 0o4755)
    assert (tmp_path / "secret").read_text() == "secret"
    assert (tmp_path / "node/link").read_bytes() == b"new"
    assert (tmp_path / "node/link").stat().st_mode & 0o7777 == 0o755
    assert not (tmp_path / "node/.link.soakd-new").exists()
    with pytest.raises(VerbError) as caught:
        files.replace(root, "out/secret", b"", 0o600)
    assert code_of(caught) == "link"
    with pytest.raises(VerbError):
        files.replace(root, "data", b"", 0o600)


def test_pieces_come_in_order_and_within_bounds() -> None:
    """A gap, an overflow, another file in between or too much is refused."""
    key = ("a", "f", 4)
    pieces = files.Replacement()
    assert pieces.add(key, 0, b"ab") is None
    assert pieces.add(key, 2, b"cd") == b"abcd"
    for bad in ((key, 2, b"x"), (key, 0, b"abcde"), (("b", "f", 4), 2, b"x")):
        with pytest.raises(VerbError, match="out of order"):
            pieces.add(*bad)
    with pytest.raises(VerbError, match="at most"):
        pieces.add(("a", "f", 1 << 20), 0, b"")


def test_remove_takes_files_links_and_folders(root: int, tmp_path: Path) -> None:
    """Links go as links; what they point to stays; absent is said, not an error."""
    assert [files.remove(root, p) for p in ("link", "fifo", "data", "config.toml")] == [True] * 4
    assert not files.remove(root, "data")
    assert not files.remove(root, "data/deep/x")
    assert (tmp_path / "secret").exists()
    with pytest.raises(VerbError) as caught:
        files.remove(root, "out/secret")
    assert code_of(caught) == "link"


def test_remove_gives_up_on_bottomless_folders(root: int, tmp_path: Path) -> None:
    """A tree deeper than any node makes is an error, not a crash."""
    path = tmp_path / "node/deep"
    for _ in range(70):
        path.mkdir()
        path /= "d"
    with pytest.raises(VerbError) as caught:
        files.remove(root, "deep")
    assert code_of(caught) == "too_deep"


def test_list_names_kinds_and_goes_on_where_it_ended(root: int, tmp_path: Path) -> None:
    """A folder with more than one frame of names is listed in parts."""
    listed = files.list_folder(root, ".", "")
    entries = listed["entries"]
    assert isinstance(entries, list)
    assert [(e["name"], e["kind"]) for e in entries] == [
        ("config.toml", "file"),
        ("data", "folder"),
        ("fifo", "other"),
        ("link", "link"),
        ("out", "link"),
    ]
    for number in range(700):
        (tmp_path / f"node/data/{number:04}").touch()
    names: list[str] = []
    more = True
    while more:
        part = files.list_folder(root, "data", names[-1] if names else "")
        assert isinstance(part["entries"], list)
        names += [e["name"] for e in part["entries"]]
        more = bool(part["more"])
    assert len(names) == 701
    with pytest.raises(VerbError):
        files.list_folder(root, "out", "")
    with pytest.raises(VerbError):
        files.list_folder(root, "config.toml", "")


def test_list_of_long_hostile_names_fits_a_frame(root: int, tmp_path: Path) -> None:
    """Names that are no text take more room in JSON, so fewer are sent."""
    for number in range(300):
        (tmp_path / "node/data" / os.fsdecode(b"%03d" % number + b"\xff" * 250)).touch()
    part = files.list_folder(root, "data", "")
    assert isinstance(part["entries"], list)
    assert 0 < len(part["entries"]) < 100
    assert part["more"]


# The copy.


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a source folder with a program, a configuration and data."""
    path = tmp_path / "source"
    (path / "data/logs").mkdir(parents=True)
    (path / "rust-mule").write_bytes(b"\x7fELF" + bytes(300_000))
    (path / "rust-mule").chmod(0o4755)
    (path / "config.toml").write_text("x = 1\n")
    (path / "data/nodes.dat").write_bytes(b"n" * 1000)
    (path / "data/logs/old.log").write_text("old")
    return path


def copy(
    source: Path, target: Path | None = None, *, max_bytes: int = 1 << 30
) -> tuple[TreeCopy, Path]:
    """Copy a source as soakd does for rust-mule."""
    target = target or source.parent / "target"
    target.mkdir(mode=0o700, exist_ok=True)
    order = Order(
        str(source),
        frozenset({"data/logs"}),
        frozenset({"rust-mule", "config.toml"}),
        max_bytes,
    )
    fd = os.open(target, files.FOLDER)
    try:
        made = TreeCopy(order, fd)
        drain(made.run())
    finally:
        os.close(fd)
    return made, target


def test_copy_takes_all_but_the_excluded(source: Path) -> None:
    """Content, modes and times are kept; set-uid bits and excluded folders are not."""
    os.utime(source / "data/nodes.dat", (1, 1_000_000))
    (source / "data").chmod(0o500)
    made, target = copy(source)
    assert not (target / "data/logs").exists()
    assert (target / "data/nodes.dat").stat().st_mtime == 1_000_000
    assert (target / "rust-mule").stat().st_mode & 0o7777 == 0o755
    assert (target / "data").stat().st_mode & 0o7777 == 0o700
    assert target.stat().st_mode & 0o7777 == 0o700
    assert (made.files, made.bytes) == (3, 300_004 + 6 + 1000)
    content = (source / "rust-mule").read_bytes()
    assert made.sha256["rust-mule"] == hashlib.sha256(content).hexdigest()


def test_program_that_is_a_link_is_copied_by_content(source: Path) -> None:
    """A link to target/release works; other links, dangling and circular too, stay links."""
    (source.parent / "built").write_bytes(b"built")
    (source / "rust-mule").unlink()
    (source / "rust-mule").symlink_to("../built")
    (source / "dangling").symlink_to("/nonexistent")
    (source / "data/circle").symlink_to("../data")
    made, target = copy(source)
    assert (target / "rust-mule").read_bytes() == b"built"
    assert not (target / "rust-mule").is_symlink()
    assert (target / "dangling").readlink() == Path("/nonexistent")
    assert (target / "data/circle").readlink() == Path("../data")
    assert set(made.sha256) == {"rust-mule", "config.toml"}


def test_dangling_program_is_simply_not_there(source: Path) -> None:
    """The caller sees it by the missing digest; what a missing file means is not ours."""
    (source / "rust-mule").unlink()
    (source / "rust-mule").symlink_to("nowhere")
    made, target = copy(source)
    assert set(made.sha256) == {"config.toml"}
    assert not (target / "rust-mule").is_symlink()


def test_pipes_sockets_and_devices_are_named(source: Path, short_dir: Path) -> None:
    """They cannot be copied; the error says which and what it is."""
    os.mkfifo(source / "data/pipe")
    with pytest.raises(VerbError, match="cannot copy data/pipe: it is a FIFO"):
        copy(source)
    (short_dir / "s").mkdir()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(short_dir / "s/x.sock"))
        with pytest.raises(VerbError, match=r"cannot copy x\.sock: it is a socket"):
            copy(short_dir / "s")
    (short_dir / "t").mkdir()
    (short_dir / "t/rust-mule").symlink_to("/dev/null")
    with pytest.raises(VerbError, match="rust-mule: it is a character device"):
        copy(short_dir / "t")


def test_copy_ends_at_the_budget(source: Path) -> None:
    """More bytes than allowed is an error that names the file."""
    with pytest.raises(VerbError, match="rust-mule|nodes.dat") as caught:
        copy(source, max_bytes=1000)
    assert code_of(caught) == "too_big"


def test_holes_stay_holes(source: Path) -> None:
    """A sparse download costs neither time nor disk, and does not count as bytes."""
    with (source / "data/001.part").open("wb") as file:
        file.truncate(1 << 32)
        file.seek(1 << 31)
        file.write(b"data")
    made, target = copy(source)
    copied = target / "data/001.part"
    assert copied.stat().st_size == 1 << 32
    assert copied.stat().st_blocks * 512 < 1 << 20
    assert made.bytes < 1 << 20
    with copied.open("rb") as file:
        file.seek(1 << 31)
        assert file.read(4) == b"data"


def test_copy_works_without_copy_file_range(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between file systems of old kernels plain reading and writing does it."""

    def refuse(*_: object) -> int:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    _, target = copy(source)
    assert (target / "data/nodes.dat").read_bytes() == b"n" * 1000


def test_source_that_contains_the_target_is_refused(tmp_path: Path, source: Path) -> None:
    """It would copy itself for ever."""
    with pytest.raises(VerbError, match="contains the run's own folder"):
        copy(tmp_path, tmp_path / "target")


def test_bottomless_or_missing_source_is_an_error(tmp_path: Path) -> None:
    """Depth is bounded; a missing folder is named."""
    path = tmp_path / "deep"
    for _ in range(70):
        path.mkdir()
        path /= "d"
    with pytest.raises(VerbError) as caught:
        copy(tmp_path / "deep")
    assert code_of(caught) == "too_deep"
    with pytest.raises(VerbError, match="nonexistent") as caught:
        copy(tmp_path / "nonexistent")
    assert code_of(caught) == "missing"


def test_too_many_entries_are_an_error(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of files is bounded too."""
    monkeypatch.setattr(copying, "MAX_ENTRIES", 2)
    with pytest.raises(VerbError) as caught:
        copy(source)
    assert code_of(caught) == "too_big"


def test_given_up_copy_closes_what_it_opened(source: Path) -> None:
    """Closing the generator half-way leaves no descriptor."""
    before = set(os.listdir("/proc/self/fd"))
    target = source.parent / "target"
    target.mkdir()
    fd = os.open(target, files.FOLDER)
    order = Order(str(source), frozenset(), frozenset({"rust-mule"}), 1 << 30)
    slices = TreeCopy(order, fd).run()
    next(slices)
    slices.close()
    os.close(fd)
    assert set(os.listdir("/proc/self/fd")) == before


def test_full_disk_is_said(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short write means a full disk."""
    monkeypatch.setattr(os, "pwrite", lambda *_: 1)
    with pytest.raises(VerbError, match="No space left") as caught:
        copy(source)
    assert code_of(caught) == "disk_full"


# RUN_ROOT.


def test_run_root_is_ours_if_empty_or_marked(tmp_path: Path) -> None:
    """The next run may use it again; a live one's lock keeps others out."""
    path = str(tmp_path / "rr")
    first = roots.open_run_root(path, "r1", "/runs/1")
    with pytest.raises(VerbError, match=r'a live run uses it .*"run": "r1"') as caught:
        roots.open_run_root(path, "r2", "/runs/2")
    assert code_of(caught) == "refused"
    assert (tmp_path / "rr/logs").readlink() == Path("/runs/1/logs")
    first.close()
    roots.open_run_root(path, "r2", "/runs/2").close()
    assert (tmp_path / "rr/logs").readlink() == Path("/runs/2/logs")
    assert '"r2"' in (tmp_path / "rr/.soakd-run-root").read_text()


def test_other_folders_are_refused_and_untouched(tmp_path: Path) -> None:
    """A script's folder, one with a link for a marker, one with own logs: refused, remedy given."""
    script = tmp_path / "script"
    script.mkdir()
    (script / "runner.pid").write_text("1")
    with pytest.raises(VerbError, match=r"it holds 'runner.pid'.*choose an empty"):
        roots.open_run_root(str(script), "r1", "/runs/1")
    assert [p.name for p in script.iterdir()] == ["runner.pid"]
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / ".soakd-run-root").symlink_to(tmp_path / "victim")
    with pytest.raises(VerbError):
        roots.open_run_root(str(linked), "r1", "/runs/1")
    assert not (tmp_path / "victim").exists()
    fifo = tmp_path / "fifo"
    fifo.mkdir()
    os.mkfifo(fifo / ".soakd-run-root")
    with pytest.raises(VerbError, match="not a regular file"):
        roots.open_run_root(str(fifo), "r1", "/runs/1")
    own = tmp_path / "own"
    roots.open_run_root(str(own), "r1", "/runs/1").close()
    (own / "logs").unlink()
    (own / "logs").mkdir()
    with pytest.raises(VerbError, match="its logs is not a link"):
        roots.open_run_root(str(own), "r2", "/runs/2")
    with pytest.raises(VerbError):
        roots.open_run_root(str(script / "runner.pid"), "r1", "/runs/1")


def test_folders_of_others_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who owns the folder could swap what stands in it."""
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(VerbError, match="choose a folder of your own"):
        roots.open_nodes_root(str(tmp_path))
    with pytest.raises(VerbError) as caught:
        roots.open_nodes_root(str(tmp_path / "absent"))
    assert code_of(caught) == "missing"


@pytest.mark.safety
def test_a_token_file_may_be_a_link_and_must_be_a_file(tmp_path: Path) -> None:
    """It is the user's own path, read with the user's rights; a FIFO blocks nobody."""
    token = tmp_path / "api.token"
    token.write_bytes(b"t" * protocol.MAX_TOKEN_BYTES)
    (tmp_path / "link").symlink_to(token)
    read = files.read_token(str(tmp_path / "link"))
    assert base64.b64decode(str(read["data"])) == token.read_bytes()
    os.mkfifo(tmp_path / "fifo")
    token.write_bytes(b"t" * (protocol.MAX_TOKEN_BYTES + 1))
    for name, code in (("fifo", "not_a_file"), (".", "not_a_file"), ("link", "too_big")):
        with pytest.raises(VerbError) as caught:
            files.read_token(str(tmp_path / name))
        assert code_of(caught) == code
        assert "ttt" not in caught.value.text
    with pytest.raises(VerbError) as caught:
        files.read_token(str(tmp_path / "absent"))
    assert code_of(caught) == "missing"


def test_a_token_file_on_a_failing_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened, but not read."""
    (tmp_path / "api.token").write_text("t" * 64)

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(VerbError, match="cannot read .*api.token"):
        files.read_token(str(tmp_path / "api.token"))
