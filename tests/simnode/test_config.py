from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from soakd.simnode.config import load
from soakd.simnode.fatal import FatalError

OLD_KEY = "rate_limit_dev_auth_max_per_window"
NEW_KEY = "rate_limit_auth_bootstrap_max_per_window"


def loaded(tmp_path: Path, text: str) -> str:
    """Return the fatal text of a configuration, or "" for none."""
    path = tmp_path / "config.toml"
    path.write_text(text)
    try:
        load(str(path))
    except FatalError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[sam", "LoadConfig(ParseToml { path: "),
        ("[sam]\nport = 'x'", "LoadConfig(ParseToml { path: "),
        ("[sam]\nport = 65536", "LoadConfig(ParseToml { path: "),
        ("[sam]\ndatagram_transport = 'smoke'", "LoadConfig(ParseToml { path: "),
        ("sam = 1", "LoadConfig(ParseToml { path: "),
        ("sim = 1", "LoadConfig(ParseToml { path: "),
        ("[sim]\nhit_rate = 1.5", "LoadConfig(ParseToml { path: "),
        ("[sim]\nhit_rate = 0.9\nlate_rate = 0.9", "LoadConfig(ParseToml { path: "),
        ("[sim]\noutcomes = ['luck']", "LoadConfig(ParseToml { path: "),
        ("[sim]\nkeyword_late_rate = 0.1", "LoadConfig(ParseToml { path: "),
        ("[sim]\nkeyword_outcomes = ['prestored']", "LoadConfig(ParseToml { path: "),
        ("[sim]\nkeyword_elsewhere = 1", "LoadConfig(ParseToml { path: "),
        ("[sim]\nnetwork = 1", "LoadConfig(ParseToml { path: "),
        ("[sim]\nudp_first_port = 80", "LoadConfig(ParseToml { path: "),
        ("[sam]\nport = 0", "InvalidConfig(InvalidSamPort(0))"),
        ("[sam]\nsession_name = ' '", 'InvalidConfig(InvalidSessionName(" "))'),
        ("[sam]\ncontrol_timeout_secs = 0", "InvalidConfig(InvalidControlTimeout(0))"),
        ("[api]\nport = 0", "InvalidConfig(InvalidApiPort(0))"),
        (
            "[sam]\nhost = 'localhost'",
            'InvalidConfig(InvalidSamHost { host: "localhost", source: AddrParseError(Ip) })',
        ),
        (
            "[sam]\ndatagram_transport = 'udp_forward'\nudp_port = 0",
            "InvalidConfig(InvalidSamUdpPort(0))",
        ),
        (f"[api]\n{OLD_KEY} = 1\n{NEW_KEY} = 1", "LoadConfig(ParseToml { path: "),
    ],
)
def test_a_bad_configuration_is_refused_in_the_words_of_the_program(
    tmp_path: Path, text: str, error: str
) -> None:
    """Harnesses match the beginning of the line."""
    assert loaded(tmp_path, text).startswith(error)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[sam]\nprot = 0\n[nonsense]\nx = 1",
        "[sam]\nudp_port = 0",
        "[sim]\nunheard_of = 1",
        f"[api]\n{OLD_KEY} = 1",
    ],
)
def test_unknown_keys_are_ignored(tmp_path: Path, text: str) -> None:
    """A misspelt key has no effect, as in the real program."""
    assert loaded(tmp_path, text) == ""


def test_a_missing_file_is_written_with_all_defaults(tmp_path: Path) -> None:
    """And the node runs with them."""
    path = tmp_path / "config.toml"
    config = load(str(path))
    assert config.get("api", "port") == 17835
    written = tomllib.loads(path.read_text())
    assert written["api"] == config.values["api"]
    assert "sim" not in written


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    """A folder in its place is the case that root can test too."""
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(FatalError, match=r"^LoadConfig\(Read \{ path: "):
        load(str(tmp_path / "config.toml"))


def test_whole_numbers_are_good_for_fractional_knobs(tmp_path: Path) -> None:
    """TOML has both kinds, users write either."""
    path = tmp_path / "config.toml"
    path.write_text("[sim]\nwarmup_secs = 2\noutcomes = ['hit']\n")
    sim = load(str(path)).sim
    assert (sim.warmup_secs, sim.outcomes) == (2, ("hit",))


def test_keyword_knobs_are_read_like_those_of_sources(tmp_path: Path) -> None:
    """Rates that fit together, a script of their own outcomes, and two switches."""
    path = tmp_path / "config.toml"
    path.write_text(
        "[sim]\nkeyword_hit_rate = 0.5\nkeyword_late_rate = 0.25\nkeyword_miss_rate = 0.25\n"
        "keyword_outcomes = ['local', 'hit']\nkeyword_elsewhere = false\ntell_keyword_id = false\n"
    )
    sim = load(str(path)).sim
    assert sim.keyword_odds == (0.5, 0.25, 0.25, ("local", "hit"))
    assert (sim.keyword_elsewhere, sim.tell_keyword_id) == (False, False)
