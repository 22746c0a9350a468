from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.soakctl.conftest import Soakctl
from tests.triage import kit

Capture = pytest.CaptureFixture[str]
TOKEN = "5ec2e7" * 10 + "beef"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the records of a script's soak of 60 rounds."""
    return kit.script_folder(tmp_path / "soak", 60)


def test_the_verdict_comes_first_and_is_the_exit_status(
    soakctl: Soakctl, capsys: Capture, folder: Path
) -> None:
    """Passed, failed, inconclusive, by the gates that were asked for."""
    assert soakctl("triage", str(folder), "--gate", "rounds >= 60") == 0
    assert capsys.readouterr().out.startswith("passed: all 1 gates hold\n")
    assert soakctl("triage", str(folder), "--gate", "max_miss_streak <= 0") == 1
    assert capsys.readouterr().out.startswith("failed: max_miss_streak")
    assert soakctl("triage", str(folder), "--gate", "rounds >= 61", "--gate", "panics == 0") == 3
    assert capsys.readouterr().out.startswith("inconclusive: rounds is 60")


def test_text_has_the_old_numbers_and_the_new_ones(
    soakctl: Soakctl, capsys: Capture, folder: Path
) -> None:
    """One screen for people, and nothing on stderr."""
    assert soakctl("triage", str(folder)) == 0
    told = capsys.readouterr()
    assert told.err == ""
    for words in (
        "hit rate", "95 % interval", "independent rounds", "measured", "snapshots",
        "the numbers of the old triage:", "longest failure streak", "successes in the last 60",
        "unique successful file ids", "A max/last", "panic lines a 0, b 0", "stop marker",
        "runner.out",
    ):  # fmt: skip
        assert words in " ".join(told.out.split())


def test_json_is_one_line_and_the_same_for_tarball_and_folder(
    soakctl: Soakctl, capsys: Capture, folder: Path, tmp_path: Path
) -> None:
    """But for the path and the kind of what was read."""
    tarball = kit.packed(folder, tmp_path / "soak.tar.gz")
    documents = []
    for path in (folder, tarball):
        assert soakctl("triage", str(path), "--json") == 0
        [line] = capsys.readouterr().out.splitlines()
        documents.append(json.loads(line))
    kinds = [document["source"].pop("kind") for document in documents]
    assert kinds == ["folder", "tarball"]
    for document in documents:
        document["source"].pop("path")
        assert document["schema"] == 1
    assert documents[0] == documents[1]


def test_junit_has_a_case_for_each_gate_and_one_for_the_verdict(
    soakctl: Soakctl, folder: Path, tmp_path: Path
) -> None:
    """A build server that counts failures sees an inconclusive verdict as one."""
    path = tmp_path / "junit.xml"
    gates = ["rounds >= 61", "max_miss_streak <= 0", "panics == 0"]
    flags = [word for gate in gates for word in ("--gate", gate)]
    assert soakctl("triage", str(folder), "--junit", str(path), *flags) == 1
    suite = ET.parse(path).getroot()
    children = {case.get("name"): [child.tag for child in case] for case in suite}
    assert children == {
        "rounds >= 61": ["skipped"],
        "max_miss_streak <= 0": ["failure"],
        "panics == 0": [],
        "verdict": ["failure"],
    }
    counts = {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "4", "failures": "2", "errors": "0", "skipped": "1"}
    assert soakctl("triage", str(folder), "--junit", str(tmp_path / "no" / "x.xml")) == 2


def test_bad_gates_and_bad_paths_are_usage_errors(
    soakctl: Soakctl, capsys: Capture, folder: Path, tmp_path: Path
) -> None:
    """All bad gates at once; a path that is nothing names what would be something."""
    assert soakctl("triage", str(folder), "--gate", "nonsense", "--gate", "beauty >= 1") == 2
    told = capsys.readouterr().err
    assert "nonsense" in told
    assert "beauty" in told
    assert soakctl("triage", str(tmp_path / "missing.tar.gz")) == 2
    assert "wanted is a .tar.gz or a run folder" in capsys.readouterr().err
    assert soakctl("triage", str(folder), "-o", "x.tar.gz") == 2
    assert soakctl("triage", str(folder), "--redact") == 2


def test_a_script_made_tarball_full_of_secrets_comes_out_clean(
    soakctl: Soakctl, capsys: Capture, folder: Path, tmp_path: Path
) -> None:
    """The copy has no token, says how many were masked, and gives the same verdict."""
    (folder / "mule-a" / "data").mkdir(parents=True)
    (folder / "mule-a" / "data" / "api.token").write_text(TOKEN)
    with (folder / "logs" / "a.out").open("a") as out:
        out.write(f"using token {TOKEN}\n")
    old = kit.packed(folder, tmp_path / "old.tar.gz")
    new = tmp_path / "new.tar.gz"
    assert soakctl("triage", str(old), "--redact", "-o", str(new)) == 0
    told = capsys.readouterr()
    assert told.out == f"{new}\n"
    assert "1 secrets masked" in told.err
    with tarfile.open(new) as tarball:
        names = tarball.getnames()
        texts = [tarball.extractfile(name) for name in names]
        assert not any(TOKEN.encode() in file.read() for file in texts if file is not None)
    assert "mule-a/data/api.token" not in names
    assert "MANIFEST.json" in names
    assert soakctl("triage", str(new)) == soakctl("triage", str(old)) == 0
    assert soakctl("triage", str(old), "--redact", "-o", str(new)) == 2
    assert "it exists already" in capsys.readouterr().err
    assert soakctl("triage", str(old), "--redact", "-o", "n.tar.gz", "--gate", "rounds >= 1") == 2


def test_what_a_bundle_says_cannot_move_the_cursor(
    soakctl: Soakctl, capsys: Capture, folder: Path
) -> None:
    """Escape sequences in names, ids and lines are shown as text."""
    (folder / "logs" / "soak.log").write_text("\x1b[2J stop requested\n")
    (folder / "runner.out").write_text("\x1b]0;x\x07 failed\n")
    tsv = folder / "logs" / "rounds.tsv"
    tsv.write_text(tsv.read_text().replace('"source_id_hex":"', '"source_id_hex":"\x1b[31m'))
    soakctl("triage", str(folder))
    told = capsys.readouterr().out
    assert "stop requested" in told
    assert "\x1b" not in told
    assert "\x07" not in told


@pytest.mark.slow
def test_triage_needs_no_daemon_and_loads_none_of_its_libraries(folder: Path) -> None:
    """Offline: neither trio nor httpx nor the like, and no socket is asked."""
    heavy = {"trio", "httpx", "structlog", "psutil", "rich", "asyncio", "tempfile"}
    code = (
        "import sys\n"
        "from soakctl.main import main\n"
        f"status = main(['--socket', '/nonexistent', 'triage', {str(folder)!r}])\n"
        "print(' '.join(sys.modules))\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert heavy & set(done.stdout.splitlines()[-1].split()) == set()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_soak(tmp_path: Path) -> None:
    """Ten times the rounds in the same memory, far below the limit of 150 MB."""
    peaks = []
    for rounds in (1000, 10_000):
        folder = kit.script_folder(tmp_path / f"soak{rounds}", rounds)
        tarball = kit.packed(folder, tmp_path / f"{rounds}.tar.gz")
        peaks.append(_peak_mb(tarball))
    assert peaks[1] < min(150.0, peaks[0] + 25)


# A child begins with the peak of whoever forked it: that must not be all of pytest.
_WATCH = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def _peak_mb(tarball: Path) -> float:
    watched = subprocess.run(
        [sys.executable, "-c", _WATCH, sys.executable, "-m", "soakctl", "triage", str(tarball)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert watched.returncode in (0, 1)
    return int(watched.stdout) / 1024


def test_what_is_no_bundle_is_not_judged(soakctl: Soakctl, capsys: Capture, tmp_path: Path) -> None:
    """A folder or tarball without any record of a soak is a mistake in the path, no verdict."""
    other = tmp_path / "other"
    (other / "logs").mkdir(parents=True)
    (other / "notes.txt").write_text("x")
    (other / "logs" / "app.log").write_text("x")
    tarball = kit.tar_of(tmp_path / "other.tar.gz", [kit.regular("app/notes.txt", b"x")])
    for path in (other, tarball, tmp_path):
        assert soakctl("triage", str(path)) == 2
        told = capsys.readouterr()
        assert f"cannot triage {path}: it is no run folder nor bundle" in told.err
        assert told.out == ""
    (other / "runner.state").write_text("running\n")
    assert soakctl("triage", str(other)) == 3


def test_stopped_runs_and_broken_checks_have_exit_statuses_of_their_own(
    soakctl: Soakctl, capsys: Capture, folder: Path
) -> None:
    """4 for what was stopped, 5 for what soakd itself cannot judge."""
    (folder / "plan.json").write_text(json.dumps({"plan": {"gates": ["beauty > 3"]}}))
    assert soakctl("triage", str(folder)) == 5
    assert capsys.readouterr().out.startswith("harness_error: cannot judge 'beauty'")
    (folder / "plan.json").unlink()
    (folder / "runner.state").write_text("stopped\n")
    assert soakctl("triage", str(folder)) == 4
    assert capsys.readouterr().out.startswith("aborted: ")
