"""Tests of soakd.bundle.secret_files."""

from __future__ import annotations

from pathlib import Path

import pytest

from soakd.bundle.secret_files import SecretFiles, is_peer_list, is_secret_name, values_in
from soakd.bundle.spec import Secret

TOKEN = "0123456789abcdef" * 4
PUBLIC = "P" * 516
TAIL = "k" * 368


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("api.token", True),
        ("API.token", True),
        ("api.token.old", True),
        ("api.tmp", True),
        ("sam.keys", True),
        ("sam.keys~", True),
        ("sam.tmp", True),
        ("kad_udp_key_secret.dat", True),
        ("preferencesKad.dat", False),
        ("nodes.dat", False),
        ("config.toml", False),
    ],
)
def test_names_that_never_enter_a_bundle(name: str, *, secret: bool) -> None:
    """The three files, what the program writes before renaming, and users' copies."""
    assert is_secret_name(name) is secret


@pytest.mark.parametrize(
    ("name", "peers"),
    [
        ("nodes.dat", True),
        ("nodes.initseed.dat", True),
        ("NODES.tmp", True),
        ("nodes.dat.bak", True),
        ("known.met", False),
        ("nodes.log", False),
    ],
)
def test_names_of_files_full_of_raw_destinations(name: str, *, peers: bool) -> None:
    """Each entry is a destination, in no spelling that anybody can replace."""
    assert is_peer_list(name) is peers


def test_token_is_the_trimmed_text() -> None:
    """The program trims it too."""
    assert values_in(f"  {TOKEN}\n") == [Secret("token", TOKEN)]
    assert values_in("") == []
    assert values_in("short") == []


def test_private_key_is_what_follows_its_public_part() -> None:
    """The destination is not secret by itself and gets a pseudonym; the rest of PRIV is the key."""
    found = values_in(f"PUB={PUBLIC}\nPRIV={PUBLIC}{TAIL}\n")
    assert found == [Secret("key", TAIL), Secret("destination", PUBLIC)]


def test_private_key_behind_a_padded_public_part() -> None:
    """A destination with a certificate ends in `==`, which the private key continues over."""
    found = values_in(f"PUB={PUBLIC}12==\nPRIV={PUBLIC}12{TAIL}")
    assert found == [Secret("key", TAIL), Secret("destination", PUBLIC + "12")]


@pytest.mark.parametrize("text", [f"PRIV={TAIL}", f"# old\n\n PRIV = {TAIL}\nPUB={PUBLIC}"])
def test_private_key_that_does_not_begin_with_a_public_one_is_secret_whole(text: str) -> None:
    """Comments, blanks and order do not matter."""
    assert values_in(text)[0] == Secret("key", TAIL)


def test_private_key_with_almost_nothing_behind_its_public_part_is_secret_whole() -> None:
    """Two characters cannot be masked everywhere."""
    assert values_in(f"PUB={PUBLIC}\nPRIV={PUBLIC}xy")[0] == Secret("key", PUBLIC + "xy")


def test_values_are_found_at_any_depth_and_told_once(tmp_path: Path) -> None:
    """The data folder has a free name; a second question returns only news."""
    hidden = tmp_path / "some" / "data dir"
    hidden.mkdir(parents=True)
    (hidden / "api.token").write_text(TOKEN)
    files = SecretFiles([str(tmp_path), str(tmp_path / "missing")], 1000)
    assert files.changed() == [Secret("token", TOKEN)]
    assert files.changed() == []
    assert files.complete


def test_a_rotated_token_and_new_keys_are_news(tmp_path: Path) -> None:
    """A node may make its files, or change them, while its folder is being packed."""
    data = tmp_path / "data"
    data.mkdir()
    files = SecretFiles([str(tmp_path)], 1000)
    assert files.changed() == []
    (data / "sam.keys").write_text(f"PRIV={TAIL}")
    assert files.changed() == [Secret("key", TAIL)]
    (data / "api.tmp").write_text(TOKEN)
    (data / "api.tmp").rename(data / "api.token")
    assert files.changed() == [Secret("token", TOKEN)]


def test_values_behind_links_count(tmp_path: Path) -> None:
    """A data folder may be a link, also into a circle."""
    real = tmp_path / "real"
    real.mkdir()
    (real / "api.token").write_text(TOKEN)
    node = tmp_path / "node"
    node.mkdir()
    (node / "data").symlink_to(real)
    (real / "back").symlink_to(node)
    assert SecretFiles([str(node)], 1000).changed() == [Secret("token", TOKEN)]


def test_an_endless_folder_is_searched_in_part_and_says_so(tmp_path: Path) -> None:
    """The shallow folders come first, so the usual places are never missed."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "api.token").write_text(TOKEN)
    for number in range(20):
        (tmp_path / f"file{number}").touch()
    files = SecretFiles([str(tmp_path)], 10)
    assert not files.complete
    assert files.changed() == [Secret("token", TOKEN)]


def test_a_very_deep_folder_is_searched_in_part_and_says_so(tmp_path: Path) -> None:
    """Depth is bounded like breadth."""
    tmp_path.joinpath(*["d"] * 14).mkdir(parents=True)
    assert not SecretFiles([str(tmp_path)], 1000).complete
