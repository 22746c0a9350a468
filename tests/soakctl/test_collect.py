from __future__ import annotations

import gzip
import hashlib
import json
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from soakctl.bundle_file import BundleFile
from soakctl.failures import Failure
from soakd.bundle.redact import Redactor
from soakd.bundle.writer import BundleWriter
from soakd.wire.errors import WireError
from tests.soakctl.conftest import Soakctl
from tests.soakctl.fake_soakd import FakeSoakd, Handler, Notify, Params

Capture = pytest.CaptureFixture[str]
NAME = "soak-box-nightly-20261122T170000Z.tar.gz"


def _made() -> bytes:
    """A small bundle, as the helper writes it."""
    with tempfile.TemporaryFile() as file:
        writer = BundleWriter(file.fileno(), Redactor(), 10)
        writer.add("logs/rounds.tsv", 4, [b"row\n"])
        writer.finish({})
        file.seek(0)
        return gzip.compress(file.read())


BUNDLE = _made()


def _bundle(name: str = NAME, digest: str | None = None, whole: bytes = BUNDLE) -> Handler:
    def handle(_params: Params, notify: Notify) -> dict[str, object]:
        for seq, data in enumerate((whole[:100], whole[100:]), start=1):
            notify("run.chunk", {"seq": seq, "data": data})
        return {
            "name": name,
            "bytes": len(whole),
            "sha256": digest or hashlib.sha256(whole).hexdigest(),
        }

    return handle


def test_the_bundle_gets_the_name_that_soakd_suggests(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, tmp_path: Path
) -> None:
    """In the current folder, private, and its path is the output."""
    soakd.handlers["run.collect"] = _bundle()
    assert soakctl("collect") == 0
    assert capsys.readouterr().out == f"./{NAME}\n"
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert (tmp_path / NAME).read_bytes() == BUNDLE
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600
    asked = {"run": None, "full": False, "keep_destinations": False}
    assert soakd.calls == [("run.collect", asked)]


def test_output_may_be_a_file_or_a_folder(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, tmp_path: Path
) -> None:
    """A folder keeps the suggested name."""
    soakd.handlers["run.collect"] = _bundle()
    (tmp_path / "out").mkdir()
    assert soakctl("collect", "r7", "-o", "mine.tgz", "--full", "--keep-destinations") == 0
    assert soakctl("collect", "r7", "-o", "out", "--json") == 0
    plain, as_json = capsys.readouterr().out.splitlines()
    assert plain == "./mine.tgz"
    assert json.loads(as_json) == {"path": f"out/{NAME}", "bytes": len(BUNDLE)}
    assert (tmp_path / "out" / NAME).exists()


def test_nothing_is_ever_overwritten(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, tmp_path: Path
) -> None:
    """Neither a file that was named nor those that have the suggested names."""
    soakd.handlers["run.collect"] = _bundle()
    taken = [NAME, *(NAME.replace(".tar", f"-{number}.tar") for number in range(2, 21))]
    for name, argv in ((NAME, ()), ("mine.tgz", ("-o", "mine.tgz"))):
        for other in taken if name == NAME else [name]:
            (tmp_path / other).write_text("precious")
        assert soakctl("collect", *argv) == 2
        assert f"{name}: it exists already" in capsys.readouterr().err
    assert {path.read_text() for path in tmp_path.iterdir()} == {"precious"}
    assert len(list(tmp_path.iterdir())) == len(taken) + 1


def test_two_bundles_of_one_second_have_names_of_their_own(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, tmp_path: Path
) -> None:
    """The suggested name is exact to the second, and nobody chose it."""
    soakd.handlers["run.collect"] = _bundle()
    second = NAME.replace(".tar", "-2.tar")
    for name in (NAME, second):
        assert soakctl("collect") == 0
        assert capsys.readouterr().out == f"./{name}\n"
    assert (tmp_path / second).read_bytes() == BUNDLE


def test_a_missing_folder_is_named_before_anything_is_fetched(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """Not after a gigabyte."""
    assert soakctl("collect", "-o", "no/where.tgz") == 2
    assert "there is no folder no" in capsys.readouterr().err
    assert soakd.calls == []


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (_bundle(digest="0" * 64), "other content"),
        (_bundle(whole=BUNDLE[:-30]), "cannot keep the bundle: the bundle cannot be read beyond"),
        (_bundle(whole=b"no gzip at all"), "cannot keep the bundle: "),
        (_bundle(name="../../etc/cron.d/x.tar.gz"), "that soakd suggests"),
        (_bundle(name=".hidden.tar.gz"), "that soakd suggests"),
        (_bundle(name="a\nb.tar.gz"), "that soakd suggests"),
    ],
)
def test_what_cannot_be_trusted_leaves_no_file(
    soakd: FakeSoakd,
    soakctl: Soakctl,
    capsys: Capture,
    tmp_path: Path,
    handler: Handler,
    words: str,
) -> None:
    """Damage on the way, and names that are more than a name."""
    soakd.handlers["run.collect"] = handler
    assert soakctl("collect") == 5
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_failure_of_soakd_leaves_no_file(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, tmp_path: Path
) -> None:
    """Half a bundle is none."""

    def fail(params: Params, notify: Notify) -> None:
        notify("run.chunk", {"seq": 1, "data": b"half"})
        raise WireError("internal", "cannot pack r7: the helper was killed")

    soakd.handlers["run.collect"] = fail
    assert soakctl("collect") == 5
    assert "the helper was killed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_leaves_no_file(soakd: FakeSoakd, tmp_path: Path, child_env: dict[str, str]) -> None:
    """130, and the part is gone."""
    begun, end = threading.Event(), threading.Event()

    def endless(_params: Params, notify: Notify) -> dict[str, object]:
        notify("run.chunk", {"seq": 1, "data": b"half"})
        begun.set()
        end.wait(20)
        return {}

    soakd.handlers["run.collect"] = endless
    command = [sys.executable, "-m", "soakctl", "--socket", str(soakd.path), "collect"]
    env = {**child_env, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=env
    ) as child:
        assert begun.wait(20)
        child.send_signal(signal.SIGINT)
        _out, err = child.communicate(timeout=20)
    end.set()
    assert (child.returncode, err) == (130, "\ninterrupted; nothing was written\n")
    assert [path for path in tmp_path.iterdir() if "coverage" not in path.name] == []


def test_without_hard_links_the_file_is_renamed_and_still_nothing_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT and some network file systems know no links."""

    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    for expected in (None, Failure):
        bundle = BundleFile(str(tmp_path), "soak-r7")
        bundle.write(b"x")
        if expected is None:
            assert bundle.keep("x.tgz") == f"{tmp_path}/x.tgz"
        else:
            with pytest.raises(expected, match="exists already"):
                bundle.keep("x.tgz")
        bundle.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["x.tgz"]


def test_a_full_disk_before_the_check_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not flushed yet may not fit any more."""

    class Full:
        """A file on a full disk."""

        def flush(self) -> None:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            """Nothing is left to write."""

    bundle = BundleFile(str(tmp_path), "soak-r7")
    bundle._file.close()
    monkeypatch.setattr(bundle, "_file", Full())
    with pytest.raises(Failure, match="No space left on device"):
        bundle.verify()
    bundle.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """With what the system says."""
    with pytest.raises(Failure, match=r"cannot write .*\.part: "):
        BundleFile(str(tmp_path / "gone"), "soak-r7")


def test_a_full_disk_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flush of the clean-up fails as well, the part goes all the same."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    bundle = BundleFile(str(tmp_path), "soak-r7")
    bundle.write(b"x")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Failure, match="No space left on device"):
        bundle.keep("x.tgz")
    bundle.discard()
    assert list(tmp_path.iterdir()) == []
