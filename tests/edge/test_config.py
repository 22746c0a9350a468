from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

import pytest

from soakd.core.errors import UserError
from soakd.edge.config import Config, Paths, default_paths, load_config


def test_root_serves_the_system() -> None:
    """Root's soakd lives in /run and /var/lib."""
    assert default_paths(0, {"XDG_RUNTIME_DIR": "/run/user/0"}) == Paths(
        "system",
        Path("/run/soakd/soakd.sock"),
        Path("/var/lib/soakd"),
        Path("/etc/soakd/soakd.toml"),
    )


def test_a_user_serves_themself_where_xdg_says() -> None:
    """The three XDG folders decide."""
    env = {"HOME": "/h", "XDG_RUNTIME_DIR": "/r", "XDG_STATE_HOME": "/s", "XDG_CONFIG_HOME": "/c"}
    assert default_paths(1000, env) == Paths(
        "user", Path("/r/soakd/soakd.sock"), Path("/s/soakd"), Path("/c/soakd/soakd.toml")
    )


def test_a_user_without_xdg_uses_tmp_and_home() -> None:
    """Relative XDG paths are ignored, as their specification demands."""
    assert default_paths(1000, {"HOME": "/h", "XDG_STATE_HOME": "relative"}) == Paths(
        "user",
        Path("/tmp/soakd-1000/soakd.sock"),
        Path("/h/.local/state/soakd"),
        Path("/h/.config/soakd/soakd.toml"),
    )


def test_a_user_without_home_is_looked_up() -> None:
    """The password database knows the home folder too."""
    nobody = 65534
    assert default_paths(nobody, {}).state.name == "soakd"


def test_no_file_means_defaults(tmp_path: Path) -> None:
    """An absent default file is not an error."""
    assert load_config(None, tmp_path / "soakd.toml") == Config()


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    """--config with a typing error must not start with defaults."""
    with pytest.raises(UserError, match="no such file") as caught:
        load_config(tmp_path / "typo.toml", tmp_path / "soakd.toml")
    assert caught.value.code == "bad_plan"


def test_every_setting_can_be_given(tmp_path: Path) -> None:
    """The file's keys are the names of the fields."""
    text = """
    max_running = 2
    running_per_user = 2
    queued_per_user = 5
    attached_per_user = 3
    max_duration_s = 3600
    submissions_per_minute = 6
    auto_ports = "28000-28010"
    node_disk_bytes_per_hour = 1000
    shim_python = "/usr/bin/python3"
    containment = "cgroup"
    disk_max_bytes = 1048576
    orphan_grace_s = 30
    max_connections_per_uid = 8
    """
    (tmp_path / "soakd.toml").write_text(text)
    config = load_config(None, tmp_path / "soakd.toml")
    assert config == Config(
        max_running=2,
        running_per_user=2,
        queued_per_user=5,
        attached_per_user=3,
        max_duration_s=3600,
        submissions_per_minute=6,
        auto_ports="28000-28010",
        node_disk_bytes_per_hour=1000,
        shim_python="/usr/bin/python3",
        containment="cgroup",
        disk_max_bytes=1048576,
        orphan_grace_s=30,
        max_connections_per_uid=8,
    )
    assert config.auto_range == range(28000, 28011)
    assert all(f.name in text for f in fields(Config))


def test_all_problems_come_together(tmp_path: Path) -> None:
    """One round of editing mends the file."""
    (tmp_path / "soakd.toml").write_text(
        "max_running = true\nshim_python = 'python3'\ncontainment = 'docker'\n"
        "orphan_grace_s = 'long'\ndisk_max_bytes = -1\ncolour = 1\n"
    )
    with pytest.raises(UserError) as caught:
        load_config(None, tmp_path / "soakd.toml")
    problems = caught.value.details["problems"]
    assert isinstance(problems, list)
    assert [p.partition(":")[0] for p in problems] == [
        "max_running", "shim_python", "containment", "orphan_grace_s", "disk_max_bytes",
        "colour",
    ]  # fmt: skip
    assert "\n  - containment: must be one of auto, cgroup, evidence, scope, got 'docker'\n" in (
        caught.value.message
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_runing = 2", "toml: max_runing: no such setting; did you mean max_running?"),
        ("colour = 1", "colour: no such setting; there are max_running, running_per_user, "),
        ("max_duration_s = 0", "max_duration_s: must be 1 to 1209600 s, got 0"),
    ],
)
def test_a_single_problem_stands_in_the_line_with_what_to_do(
    tmp_path: Path, text: str, said: str
) -> None:
    """The nearest name, or all; numbers as people write them."""
    (tmp_path / "soakd.toml").write_text(text)
    with pytest.raises(UserError) as caught:
        load_config(None, tmp_path / "soakd.toml")
    assert said in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("text", ["28000", "a-b", "28001-28000", "80-90", "65000-65536", ""])
def test_a_range_of_ports_has_two_ends(tmp_path: Path, text: str) -> None:
    """In order, and none that only root could bind."""
    (tmp_path / "soakd.toml").write_text(f"auto_ports = '{text}'\n")
    with pytest.raises(UserError, match="auto_ports: must be a range of ports from 1024 to 65535"):
        load_config(None, tmp_path / "soakd.toml")


@pytest.mark.parametrize(
    ("data", "cause"),
    [(b"max_running = ", "not TOML"), (b"\xff\xfe", "not UTF-8")],
)
def test_what_is_not_toml_is_refused(tmp_path: Path, data: bytes, cause: str) -> None:
    """A damaged file does not count as absent."""
    (tmp_path / "soakd.toml").write_bytes(data)
    with pytest.raises(UserError, match=cause):
        load_config(None, tmp_path / "soakd.toml")


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    """A folder in its place is a mistake worth a word."""
    (tmp_path / "soakd.toml").mkdir()
    with pytest.raises(UserError, match=os.strerror(21)):
        load_config(None, tmp_path / "soakd.toml")
