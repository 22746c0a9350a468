from __future__ import annotations

import io
import json
import os
import socket
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from soakctl.plan_check import NODE_BYTES_PER_HOUR, RUN_BYTES_MAX
from soakd.core.plan import Plan, parse_plan, plan_to_dict
from soakd.core.plan_file import read_plan_file
from soakd.edge.config import Config
from soakd.wire.errors import WireError
from tests.soakctl.conftest import Soakctl
from tests.soakctl.fake_soakd import FakeSoakd

Capture = pytest.CaptureFixture[str]
EMPTY: dict[str, Any] = {"runs": [], "draining": False}


def nodes(folder: Path) -> str:
    """Two folders that can be started, and the tables that name them."""
    text = ""
    for name in "ab":
        (folder / f"mule-{name}").mkdir()
        program = folder / f"mule-{name}" / "rust-mule"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        text += f'[node.{name}]\nsource = "mule-{name}"\n'
    return text


@pytest.fixture
def plan_path(tmp_path: Path) -> Path:
    """Return a plan file of three runs, beside its node folders."""
    path = tmp_path / "night.toml"
    path.write_text(f"wait_search = [10, 20, 40]\nduration = '2h'\n{nodes(tmp_path)}")
    return path


def read(text: str) -> list[Plan]:
    """The plans that a text asks for."""
    file = read_plan_file(text, name="p.toml", folder="/", flags={}, run_tag_default="t")
    return [variant.plan for variant in file.variants]


def facts(text: str) -> dict[str, str]:
    """The comments behind a checked plan, by their headings."""
    rows = [line[2:] for line in text.splitlines() if line.startswith("# ")]
    return {row[:16].strip(): row[16:] for row in rows if row[:16].strip()}


def test_check_prints_the_resolved_plan_and_what_follows_from_it(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, plan_path: Path
) -> None:
    """The text is a plan file again; nothing is submitted."""
    soakd.handlers["queue.list"] = EMPTY
    assert soakctl("plan", "check", "night.toml") == 0
    out = capsys.readouterr().out
    assert "wait_search_s = [10, 20, 40]\n" in out
    assert "wait_publish_s = 20  # default\n" in out
    assert tomllib.loads(out)["node"]["b"]["source"] == str(plan_path.parent / "mule-b")
    assert [plan.wait_search_s for plan in read(out)] == [10.0, 20.0, 40.0]
    said = facts(out)
    assert said["runs"] == "3, as group night"
    assert "#                 night: wait_search_s=40\n" in out
    assert said["ports"].startswith("127.0.0.1:17835 node a")
    assert said["disk"].startswith("up to ")
    assert "MB for all 3" in said["disk"]
    assert said["latest end"].startswith("2 h 33 min after its start, which is 20")
    assert said["expected start"] == "now: nothing runs or waits"
    assert [method for method, _ in soakd.calls] == ["queue.list"]


def test_check_of_one_run_speaks_of_no_group(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, plan_path: Path
) -> None:
    """A list is ended by `--set`; ports that soakd is to choose are not looked at."""
    soakd.handlers["queue.list"] = EMPTY
    assert (
        soakctl("plan", "check", "night.toml", "--set", "wait_search=5", "--set", "ports=auto") == 0
    )
    out = capsys.readouterr().out
    assert "wait_search_s = 5\n" in out
    assert "runs" not in facts(out)
    assert facts(out)["ports"] == "2 of soakd's own range"


def test_a_port_in_use_is_marked(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, plan_path: Path
) -> None:
    """By whomever: the run would wait for a soak and fail for anybody else."""
    soakd.handlers["queue.list"] = EMPTY
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        sets = ["--set", f"node.a.port={taken}", "--set", "node.b.url=localhost:17836"]
        assert soakctl("plan", "check", "night.toml", *sets) == 0
    out = capsys.readouterr().out
    assert f"127.0.0.1:{taken} node a  in use now" in out
    assert "localhost:17836 node b\n" in out


def test_check_needs_no_soakd(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, plan_path: Path
) -> None:
    """Then the start is not known, and it says why."""
    assert soakctl("--socket", "/nowhere/s.sock", "plan", "check", "night.toml") == 0
    captured = capsys.readouterr()
    assert facts(captured.out)["expected start"].startswith("unknown: cannot reach soakd")
    assert soakd.calls == []


@pytest.fixture
def attached_path(tmp_path: Path) -> Path:
    """Return a plan file for two nodes that somebody else runs, beside their token files."""
    path = tmp_path / "theirs.toml"
    for name in "ab":
        (tmp_path / f"{name}.token").write_text("0123456789abcdef-secret")
    path.write_text(
        '[node.a]\ntoken_file = "a.token"\n\n[node.b]\ntoken_file = "b.token"\nurl = "[::1]:2001"\n'
    )
    return path


def test_check_of_attached_nodes_says_that_they_are_left_alone(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, attached_path: Path
) -> None:
    """No disk forecast and no queue; a port where nobody listens is what is odd."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = f"node.a.port={holder.getsockname()[1]}"
        assert soakctl("plan", "check", "theirs.toml", "--set", port) == 0
    out = capsys.readouterr().out
    said = facts(out)
    assert said["nodes"] == "somebody else's: they are not started, stopped or touched"
    assert said["ports"].endswith(" node a")
    assert "::1:2001 node b  nobody listens there now\n" in out
    assert said["expected start"] == "at once: it needs no slot"
    assert "disk" not in said
    assert "secret" not in out
    assert f'token_file = "{attached_path.parent / "a.token"}"' in out
    assert read(out)[0].is_attached
    assert soakd.calls == []
    assert soakctl("--json", "plan", "check", "theirs.toml") == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["disk_bytes"] == 0


def test_token_files_that_cannot_be_read_have_their_lines(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, attached_path: Path
) -> None:
    """All of them at once, and nothing of what they hold."""
    (attached_path.parent / "a.token").unlink()
    (attached_path.parent / "b.token").write_text("x" * 5000)
    assert soakctl("plan", "check", "theirs.toml") == 78
    said = capsys.readouterr().err
    assert "cannot start: the token files are not ready" in said
    assert "theirs.toml:2: node.a.token_file: cannot use" in said
    assert "theirs.toml:5: node.b.token_file: cannot use" in said
    assert "a token has no more than 4096 bytes, it has 5000" in said
    assert "xx" not in said


@pytest.mark.parametrize("kind", ["folder", "fifo", "broken link"])
def test_a_token_file_must_be_a_regular_file(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, attached_path: Path, kind: str
) -> None:
    """One that blocks would block the shim's reading, too."""
    path = attached_path.parent / "b.token"
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("nowhere")
    assert soakctl("plan", "check", "theirs.toml") == 78
    said = capsys.readouterr().err
    assert ("No such file" if kind == "broken link" else "it is not a regular file") in said


def _old(*_: object) -> None:
    raise WireError("unknown_method", "cannot call 'queue.list': this soakd has no such method")


@pytest.mark.parametrize(
    ("answer", "start"),
    [
        (
            {
                "draining": False,
                "runs": [
                    {"id": "r7", "ends_by": "2026-11-22T19:00:00Z"},
                    {"id": "r9", "ends_by": "2026-11-23T01:30:00Z"},
                ],
            },
            "by 2026-11-23 01:30:00Z if all of these go first and take their time: r7 r9",
        ),
        (
            {"draining": False, "runs": [{"id": "r7", "ends_by": None}]},
            "unknown: it is not known when these end: r7",
        ),
        (
            {"draining": True, "runs": []},
            "unknown: soakd starts nothing until an admin says `soakctl daemon resume`",
        ),
        (_old, "unknown: cannot call 'queue.list': this soakd has no such method"),
    ],
)
def test_the_expected_start_is_read_from_the_queue(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, plan_path: Path, answer: Any, start: str
) -> None:
    """Or it is unknown, for a reason."""
    soakd.handlers["queue.list"] = answer
    assert soakctl("plan", "check", "night.toml") == 0
    assert facts(capsys.readouterr().out)["expected start"] == start


def test_check_as_json(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, plan_path: Path
) -> None:
    """Each run with its plan and figures."""
    soakd.handlers["queue.list"] = EMPTY
    assert soakctl("--json", "plan", "check", "night.toml") == 0
    out = json.loads(capsys.readouterr().out)
    assert (out["group"], out["ports"]) == ("night", [17835, 17836])
    assert out["expected_start"].startswith("20")
    assert [run["label"] for run in out["runs"]] == [
        f"night: wait_search_s={seconds}" for seconds in (10, 20, 40)
    ]
    last = out["runs"][-1]
    assert last["values"] == {"wait_search_s": 40}
    assert parse_plan(last["plan"]).wait_search_s == 40.0
    # Two nodes for two and a half hours.
    assert 250_000_000 < last["disk_bytes"] < 260_000_000
    assert last["latest_end_s"] > 7200 + last["longest_round_s"]


def test_the_forecast_is_soakds_own() -> None:
    """As long as it was told and has measured nothing else."""
    config = Config()
    assert config.node_disk_bytes_per_hour == NODE_BYTES_PER_HOUR
    assert config.disk_max_bytes == RUN_BYTES_MAX


def test_a_plan_with_problems_is_78_with_all_of_them(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, plan_path: Path
) -> None:
    """Of the file, of the flags, and of the folders that it names, in the order of lines."""
    plan_path.write_text(
        'wait_serch = 3\nrounds = [1, 0]\n[node.a]\nsource = "gone"\n[node.b]\nport = 1\n'
    )
    gone = plan_path.parent / "gone"
    for command in (["plan", "check"], ["start", "--plan"]):
        assert soakctl(*command, "night.toml", "--set", "keep_config=maybe") == 78
        err = capsys.readouterr().err.splitlines()
        assert err[-7:] == [
            "soakctl: cannot start: the plan is not valid",
            "  - night.toml:1: wait_serch: cannot use an unknown key",
            "  - night.toml:2: rounds: cannot be outside 1 to 1000000, got 0",
            f"  - night.toml:4: node.a.source: cannot use {gone}: there is no such folder",
            "  - night.toml:5: node.b.source: cannot be missing",
            "  - night.toml:6: node.b.port: cannot be outside 1024 to 65535, got 1",
            "  - --set keep_config: cannot read 1 or 0, got 'maybe'",
        ]
    assert soakd.calls == []


def test_folders_that_are_not_ready_are_78(
    soakctl: Soakctl, capsys: Capture, plan_path: Path
) -> None:
    """Each folder once, whatever the number of runs; told by its line."""
    (plan_path.parent / "mule-a" / "rust-mule").chmod(0o644)
    assert soakctl("plan", "check", "night.toml") == 78
    err = capsys.readouterr().err
    assert err.count("it is not executable") == 1
    assert "  - night.toml:4: node.a.source: cannot use " in err


def test_an_unknown_driver_is_78_and_told_once(
    soakctl: Soakctl, capsys: Capture, plan_path: Path
) -> None:
    """Whatever the number of runs."""
    plan_path.write_text(f"driver = 'gone'\n{plan_path.read_text()}")
    assert soakctl("plan", "check", "night.toml") == 78
    assert capsys.readouterr().err.count("driver: cannot use 'gone'") == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read plan night.toml: No such file or directory"),
        (
            b"rounds = 1\n\xff = 2",
            "cannot read plan night.toml: it is not TOML: line 2 is not UTF-8",
        ),
        (b"rounds = \n", "night.toml:1: cannot read TOML: invalid value"),
    ],
)
def test_a_file_that_is_no_plan_is_78(
    soakctl: Soakctl, capsys: Capture, tmp_path: Path, content: bytes | None, words: str
) -> None:
    """Missing, not text, not TOML."""
    if content is not None:
        (tmp_path / "night.toml").write_bytes(content)
    assert soakctl("plan", "check", "night.toml") == 78
    assert words in capsys.readouterr().err


def test_a_plan_may_come_from_standard_input(
    soakd: FakeSoakd,
    soakctl: Soakctl,
    capsys: Capture,
    plan_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its relative paths start at the current folder."""
    soakd.handlers["queue.list"] = EMPTY
    stdin = io.TextIOWrapper(io.BytesIO(plan_path.read_bytes()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert soakctl("plan", "check", "-") == 0
    out = capsys.readouterr().out
    assert f'source = "{plan_path.parent}/mule-a"' in out
    assert facts(out)["runs"] == "3, as group stdin"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("plan",), "check|show"),
        (("plan", "check"), "cannot check a plan without its file: soakctl plan check FILE"),
        (("plan", "show", "r7", "--set", "rounds=1"), "cannot --set a key of a run"),
        (("plan", "draw", "x"), "check|show"),
    ],
)
def test_what_is_missing_is_said(
    soakctl: Soakctl, capsys: Capture, argv: tuple[str, ...], words: str
) -> None:
    """Usage, exit status 2."""
    assert soakctl(*argv) == 2
    assert words in capsys.readouterr().err


PLAN = {
    "nodes": [
        {
            "name": name,
            "source": f"/dist/mule-{name}",
            "host": "127.0.0.1",
            "port": port,
            "roles": [role],
            "env": {"LEVEL": name},
        }
        for name, port, role in (("a", 20001, "publisher"), ("b", 20002, "searcher"))
    ],
    "run_tag": "20261122T165900Z-ab12",
    "rounds": 5,
    "wait_search_s": 7.5,
    "label": 'a "label"',
    "latest": True,
    "gates": ["hit_rate >= 0.5"],
    "node_env": {"RUST_LOG": "info"},
}
ANSWER = {
    "id": "r7",
    "state": "finished",
    "created_at": "2026-11-22T16:59:00Z",
    "plan": plan_to_dict(parse_plan(PLAN)),
    "sha256": {"a": "ab" * 32, "b": "cd" * 32},
}


def test_show_prints_what_start_takes_again(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """The same plan but for the run tag, and which programs it was."""
    soakd.handlers["run.plan"] = ANSWER
    assert soakctl("plan", "show", "r7") == 0
    out = capsys.readouterr().out
    assert out.startswith("# r7, submitted 2026-11-22 16:59:00Z\n")
    assert f"# program of node b: SHA-256 {'cd' * 32}, or what it was later: latest = true\n" in out
    assert "20261122T165900Z-ab12" in out
    assert read(out) == [parse_plan({**PLAN, "run_tag": "t"})]
    assert soakd.calls == [("run.plan", {"run": "r7"})]


def test_show_without_a_run_means_the_latest(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """As everywhere; JSON is the answer itself."""
    soakd.handlers["run.plan"] = ANSWER
    assert soakctl("--json", "plan", "show") == 0
    assert json.loads(capsys.readouterr().out) == ANSWER
    assert soakd.calls == [("run.plan", {"run": None})]


def test_a_plan_of_a_newer_soakd_is_no_fault_of_anybody(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture
) -> None:
    """It has keys that this soakctl does not know: one of the two is to be upgraded."""
    newer = {**ANSWER, "plan": {**PLAN, "moon_phase": "full"}}
    soakd.handlers["run.plan"] = newer
    assert soakctl("plan", "show", "r7") == 5
    err = capsys.readouterr().err
    assert "cannot read the plan of r7: cannot use the plan: moon_phase" in err
    assert "use the soakctl installed with that soakd" in err


def test_a_folder_that_a_group_shares_is_named(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, plan_path: Path
) -> None:
    """Each run of it takes over what the one before left there."""
    soakd.handlers["queue.list"] = EMPTY
    assert soakctl("plan", "check", "night.toml", "--set", "run_root=/srv/soak") == 0
    assert facts(capsys.readouterr().out)["run_root"].startswith("shared by them")
