from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from soakd.core.plan import parse_plan
from tests.soakctl.conftest import Soakctl
from tests.soakctl.fake_soakd import FakeSoakd
from tests.soakctl.samples import finished, status, watch

Capture = pytest.CaptureFixture[str]
STARTED = {
    "id": "r7",
    "state": "queued",
    "position": 1,
    "expected_start": None,
    "reason": None,
}


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Return two node folders that can be started, named by A_SRC and B_SRC."""
    for name in [*os.environ]:
        if name.startswith(("RUST_", "MALLOC_CONF", "LD_PRELOAD")):
            monkeypatch.delenv(name)
    found = {}
    for name in ("a", "b"):
        folder = tmp_path / f"mule-{name}"
        folder.mkdir()
        program = folder / "rust-mule"
        program.write_text(f"#!/bin/sh\n# {name}\n")
        program.chmod(0o755)
        (folder / "config.toml").write_text("[api]\nport = 17835\n")
        monkeypatch.setenv(f"{name.upper()}_SRC", str(folder))
        found[name] = folder
    return found


def _request(soakd: FakeSoakd) -> dict[str, Any]:
    method, params = soakd.calls[0]
    assert method == "run.start"
    return params


def test_start_submits_a_plan_with_the_hash_of_each_program_and_returns(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, folders: dict[str, Path]
) -> None:
    """The result on stdout, the next steps on stderr."""
    soakd.handlers["run.start"] = STARTED
    assert soakctl("start", "2h", "--label", "nightly") == 0
    captured = capsys.readouterr()
    assert captured.out == "r7 queued · position 1\n"
    assert captured.err == "follow it: soakctl watch r7     end it: soakctl stop r7\n"
    request = _request(soakd)
    plan = parse_plan(request["plan"])
    assert (plan.duration_s, plan.label) == (7200.0, "nightly")
    assert [node.source for node in plan.nodes] == [str(folders[name]) for name in "ab"]
    assert request["sha256"] == {
        name: hashlib.sha256((folder / "rust-mule").read_bytes()).hexdigest()
        for name, folder in folders.items()
    }


def test_flags_win_over_the_environment(
    soakd: FakeSoakd,
    soakctl: Soakctl,
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Defaults < environment < flags."""
    soakd.handlers["run.start"] = STARTED
    monkeypatch.setenv("WAIT_PUBLISH", "7")
    monkeypatch.setenv("WAIT_SEARCH", "8")
    argv = ["--rounds", "3", "--set", "wait_search_s=9", "--latest", "--keep-config"]
    assert soakctl("start", *argv, "--node-env", "X=1") == 0
    plan = parse_plan(_request(soakd)["plan"])
    assert (plan.wait_publish_s, plan.wait_search_s) == (7.0, 9.0)
    assert (plan.rounds, plan.duration_s) == (3, None)
    assert (plan.latest, plan.keep_config, plan.node_env) == (True, True, (("X", "1"),))


def test_json_prints_the_answer(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, folders: dict[str, Path]
) -> None:
    """And nothing on stderr."""
    soakd.handlers["run.start"] = STARTED
    assert soakctl("start", "--json") == 0
    captured = capsys.readouterr()
    assert (json.loads(captured.out), captured.err) == (STARTED, "")


@pytest.mark.parametrize("flag", ["--wait", "--watch"])
def test_with_wait_or_watch_the_exit_status_is_the_verdict(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, folders: dict[str, Path], flag: str
) -> None:
    """One command for a whole soak in a script."""
    soakd.handlers |= {
        "run.start": STARTED,
        "run.status": status(),
        "run.watch": watch(("end", finished("inconclusive", "no round was measured"))),
    }
    assert soakctl("start", "60", flag) == 3
    assert "r7 finished · inconclusive: no round was measured" in capsys.readouterr().out


def test_all_folder_problems_are_told_at_once(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, folders: dict[str, Path]
) -> None:
    """78, what is wrong with each node, and how the folders are named."""
    (folders["a"] / "rust-mule").chmod(0o644)
    (folders["a"] / "config.toml").write_text("port = \n")
    (folders["b"] / "rust-mule").unlink()
    assert soakctl("start") == 78
    err = capsys.readouterr().err
    a, b = folders["a"], folders["b"]
    assert f"node a: cannot use {a}/rust-mule: it is not executable; try chmod +x" in err
    assert f"node a: cannot use {a}/config.toml: it is not TOML" in err
    assert f"node b: cannot use {b}/rust-mule: it is not there" in err
    assert "A_SRC=/dist/mule-a B_SRC=/dist/mule-b soakctl start 7200" in err
    assert soakd.calls == []


def test_an_unknown_driver_is_78_with_the_known_ones(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, folders: dict[str, Path]
) -> None:
    """Nobody knows what its folders would have to hold."""
    assert soakctl("start", "--set", "driver=gone") == 78
    err = capsys.readouterr().err
    assert err.splitlines() == [
        "soakctl: cannot start: the plan is not valid",
        "  - driver: cannot use 'gone': there is no such driver; the known ones are: rust_mule",
    ]
    soakd.handlers["run.start"] = STARTED
    assert soakctl("start", "2h") == 0
    plan = _request(soakd)["plan"] | {"driver": "gone"}
    soakd.handlers["run.plan"] = {"id": "r7", "plan": plan, "sha256": {}}
    assert soakctl("start", "--again", "r7") == 78
    assert "driver: cannot use 'gone'" in capsys.readouterr().err


def test_a_missing_folder_is_named(
    soakctl: Soakctl, capsys: Capture, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a newcomer without A_SRC sees; a file is no folder either."""
    monkeypatch.setenv("A_SRC", "/nowhere")
    monkeypatch.setenv("B_SRC", str(folders["b"] / "config.toml"))
    assert soakctl("start") == 78
    err = capsys.readouterr().err
    assert "node a: cannot use /nowhere: there is no such folder" in err
    assert "config.toml: it is not a folder" in err


def test_odd_files_are_refused_without_being_opened(
    soakctl: Soakctl, capsys: Capture, folders: dict[str, Path]
) -> None:
    """A FIFO would block for ever, a dangling link is no program."""
    (folders["a"] / "rust-mule").unlink()
    os.mkfifo(folders["a"] / "rust-mule")
    (folders["a"] / "config.toml").unlink()
    os.mkfifo(folders["a"] / "config.toml")
    (folders["b"] / "rust-mule").unlink()
    (folders["b"] / "rust-mule").symlink_to("target/release/rust-mule")
    (folders["b"] / "config.toml").write_bytes(b"\xff")
    assert soakctl("start") == 78
    err = capsys.readouterr().err
    assert err.count("it is not a regular file") == 2
    assert "rust-mule: No such file or directory" in err
    assert "not UTF-8" in err


def test_a_folder_without_a_config_is_fine(
    soakd: FakeSoakd, soakctl: Soakctl, folders: dict[str, Path]
) -> None:
    """soakd makes one; a link to the program works too."""
    soakd.handlers["run.start"] = STARTED
    (folders["a"] / "config.toml").unlink()
    (folders["a"] / "rust-mule").rename(folders["a"] / "built")
    (folders["a"] / "rust-mule").symlink_to("built")
    assert soakctl("start") == 0


def test_bad_values_are_told_at_once_under_the_names_the_user_knows(
    soakctl: Soakctl, capsys: Capture, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables and flags together."""
    monkeypatch.setenv("WAIT_SEARCH", "soon")
    monkeypatch.setenv("A_URL", "example.org:80")
    assert soakctl("start", "--set", "nonsense") == 78
    err = capsys.readouterr().err
    assert "cannot start: the plan is not valid" in err
    assert "  - WAIT_SEARCH: " in err
    assert "  - A_URL: " in err
    assert "  - --set: " in err


def test_what_is_not_passed_to_the_nodes_is_named(
    soakd: FakeSoakd,
    soakctl: Soakctl,
    capsys: Capture,
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A debug variable that silently has no effect costs a day."""
    soakd.handlers["run.start"] = STARTED
    monkeypatch.setenv("RUST_LOG", "debug")
    monkeypatch.setenv("MALLOC_CONF", "x")
    soakctl("start", "--node-env", "MALLOC_CONF=x")
    err = capsys.readouterr().err
    assert (
        "set here but not passed to the nodes: RUST_LOG (pass on with --node-env RUST_LOG=…)" in err
    )


def test_a_plan_file_stands_instead_of_the_environment(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, folders: dict[str, Path], tmp_path: Path
) -> None:
    """Flags still win, and the variables that were ignored are named."""
    soakd.handlers["run.start"] = STARTED
    nodes = "".join(
        f'[[nodes]]\nname = "{name}"\nsource = "{folders[name]}"\nhost = "127.0.0.1"\n'
        f'port = {port}\nroles = ["{role}"]\n'
        for name, port, role in (("a", 20001, "publisher"), ("b", 20002, "searcher"))
    )
    (tmp_path / "plan.toml").write_text(f"wait_search_s = 3\nduration_s = 90\n{nodes}")
    assert soakctl("start", "--plan", "plan.toml", "--set", "wait_between_s=1") == 0
    plan = parse_plan(_request(soakd)["plan"])
    assert (plan.wait_search_s, plan.wait_between_s, plan.duration_s) == (3.0, 1.0, 90.0)
    assert "ignored, since --plan says everything: A_SRC B_SRC" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"), [(None, "No such file"), ("a =", "not TOML"), ("x = 1", "--plan")]
)
def test_a_bad_plan_file_is_78(
    soakctl: Soakctl, capsys: Capture, tmp_path: Path, content: str | None, words: str
) -> None:
    """Missing, broken, or of other content."""
    if content is not None:
        (tmp_path / "plan.toml").write_text(content)
    assert soakctl("start", "--plan", "plan.toml") == 78
    err = capsys.readouterr().err
    assert words in err or "the plan is not valid" in err
    assert "Traceback" not in err


def test_a_promise_is_told_from_an_estimate(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, folders: dict[str, Path]
) -> None:
    """Only the head of the queue has one."""
    times = {"expected_start": "2026-11-22T20:00:00.5Z", "reason": "slots"}
    for promised, word in ((True, "promised to start by"), (False, "estimated start")):
        soakd.handlers["run.start"] = STARTED | times | {"promised": promised}
        assert soakctl("start", "2h") == 0
        shown = capsys.readouterr().out
        assert shown == (
            f"r7 queued · position 1 · waits for: slots · {word} 2026-11-22 20:00:00Z\n"
        )


def test_ports_may_be_left_to_soakd(
    soakd: FakeSoakd, soakctl: Soakctl, folders: dict[str, Path]
) -> None:
    """A flag of its own, since everybody wants it."""
    soakd.handlers["run.start"] = STARTED
    assert soakctl("start", "2h", "--ports", "auto") == 0
    assert _request(soakd)["plan"]["ports"] == "auto"


def test_again_is_the_same_plan_under_a_new_tag(
    soakd: FakeSoakd, soakctl: Soakctl, folders: dict[str, Path]
) -> None:
    """With the label, and the programs as they are now."""
    soakd.handlers["run.start"] = STARTED
    assert soakctl("start", "2h", "--label", "nightly") == 0
    first = _request(soakd)
    (folders["a"] / "rust-mule").write_text("#!/bin/sh\n# new\n")
    soakd.handlers["run.plan"] = {"id": "r7", "plan": first["plan"], "sha256": first["sha256"]}
    assert soakctl("start", "--again", "r7") == 0
    assert soakd.calls[1] == ("run.plan", {"run": "r7"})
    again = soakd.calls[2][1]
    tag = again["plan"]["run_tag"]
    assert tag != first["plan"]["run_tag"]
    assert again["plan"] == first["plan"] | {"run_tag": tag}
    assert again["sha256"]["a"] != first["sha256"]["a"]
    assert again["sha256"]["b"] == first["sha256"]["b"]


def test_again_checks_the_folders_and_takes_nothing_else(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, folders: dict[str, Path]
) -> None:
    """Whoever wants another plan says so in a plan of their own."""
    soakd.handlers["run.start"] = STARTED
    assert soakctl("start", "2h") == 0
    soakd.handlers["run.plan"] = {"id": "r7", "plan": _request(soakd)["plan"], "sha256": {}}
    (folders["a"] / "rust-mule").unlink()
    assert soakctl("start", "--again", "r7") == 78
    assert "node a: cannot use" in capsys.readouterr().err
    assert soakctl("start", "4h", "--again", "r7", "--latest") == 2
    err = capsys.readouterr().err
    assert "cannot use --again with DURATION, --latest: it takes the plan as it was\n" in err
    assert "change it there: soakctl plan show r7\n" in err
    soakd.handlers["run.plan"] = {"id": "r7", "plan": {"colour": 1}, "sha256": {}}
    assert soakctl("start", "--again", "r7") == 78
    assert [method for method, _ in soakd.calls].count("run.start") == 1
