"""The driver's text half: what becomes of a user's config.toml."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
import tomlkit

from soakd.core.errors import NodeError
from soakd.core.plan import NodePlan, Plan
from soakd.drivers.rust_mule_config import check_config, edit_config
from soakd.drivers.rust_mule_names import session_name

A = NodePlan("a", "/dist/mule-a", "127.0.0.1", 20001, ("publisher",))
B = NodePlan("b", "/dist/mule-b", "127.0.0.1", 20002, ("searcher",))


def plan(**changes: Any) -> Plan:
    given: dict[str, Any] = {"nodes": (A, B), "duration_s": 60.0, "rounds": None, "run_tag": "tag"}
    return Plan(**(given | changes))


def values(text: str) -> dict[str, Any]:
    """`section.name` -> value of every key."""
    return {
        f"{section}.{name}": value
        for section, table in tomllib.loads(text).items()
        for name, value in table.items()
    }


WANTED = {
    "sam.session_name": "rust-mule-a-soak-tag-r7",
    "api.port": 20001,
    "general.data_dir": "data",
    "general.auto_open_ui": False,
    "sam.forward_port": 0,
    "kad.service_runtime_secs": 0,
    "api.rate_limit_enabled": False,
}


def test_missing_config_is_made() -> None:
    """Without one the program would write all its defaults and run with them."""
    config = edit_config(None, plan(), A, "r7")
    assert values(config.text) == WANTED
    assert {edit.key: edit.new for edit in config.edits} == WANTED
    assert all(edit.old is None for edit in config.edits)
    assert config.file("api.token") == "data/api.token"
    assert config.identity == (
        "data/sam.keys",
        "data/kad_udp_key_secret.dat",
        "data/api.token",
        "data/preferencesKad.dat",
    )


def test_rest_of_the_config_stays_as_it_was() -> None:
    """Comments, order, other keys and other sections are the user's."""
    text = (
        "# mine\n[api]\nport = 17835 # the usual\ncolour = 'red'\n\n"
        "[kad]\nservice_runtime_secs = 60\n"
        "[other]\nx = [1, 2]\n"
    )
    config = edit_config(text, plan(), A, "r7")
    assert config.text.startswith("# mine\n[api]\nport = 20001 # the usual\ncolour = 'red'\n")
    assert "[other]\nx = [1, 2]\n" in config.text
    edits = {edit.key: (edit.old, edit.new) for edit in config.edits}
    assert edits["api.port"] == (17835, 20001)
    assert edits["kad.service_runtime_secs"] == (60, 0)


def test_key_that_is_right_already_is_no_edit() -> None:
    """An edit is listed only if something changed; a second pass changes nothing."""
    once = edit_config(None, plan(), A, "r7")
    again = edit_config(once.text, plan(), A, "r7")
    assert again.edits == ()
    assert again.text == once.text


def test_false_is_not_zero() -> None:
    """`forward_port = false` equals 0 in Python and is refused by the node."""
    config = edit_config("[sam]\nforward_port = false\n", plan(), A, "r7")
    assert values(config.text)["sam.forward_port"] == 0
    assert not isinstance(values(config.text)["sam.forward_port"], bool)


def test_edits_read_well_and_travel() -> None:
    """For people and for the wire."""
    config = edit_config("[api]\nport = 1\n", plan(), A, "r7")
    edit = next(edit for edit in config.edits if edit.key == "api.port")
    assert edit.text == "a: api.port = 20001 (was 1)"
    assert edit.to_dict() == {"node": "a", "key": "api.port", "old": 1, "new": 20001}
    fresh = next(edit for edit in config.edits if edit.key == "sam.forward_port")
    assert fresh.text == "a: sam.forward_port = 0"


def test_keep_config_edits_only_what_would_collide() -> None:
    """`--keep-config`: session name, port and data dir, nothing else."""
    text = "[sam]\nforward_port = 4711\n[general]\nauto_open_ui = true\n"
    config = edit_config(text, plan(keep_config=True), A, "r7")
    assert {edit.key for edit in config.edits} == {
        "sam.session_name",
        "api.port",
        "general.data_dir",
    }
    assert values(config.text)["sam.forward_port"] == 4711


@pytest.mark.parametrize("configured", ["/var/mule", "../shared", "", ".", "x/../../y"])
def test_data_dir_outside_of_the_folder_is_moved_inside(configured: str) -> None:
    """A copy that wrote to the source's data dir would share its identity."""
    config = edit_config(f"[general]\ndata_dir = '{configured}'\n", plan(), A, "r7")
    assert config.data_dir == "data"
    assert values(config.text)["general.data_dir"] == "data"


def test_data_dir_inside_of_the_folder_stays() -> None:
    """And everything is looked for there."""
    config = edit_config("[general]\ndata_dir = 'my/data'\n", plan(), A, "r7")
    assert config.file("sam.keys") == "my/data/sam.keys"
    assert config.identity[0] == "my/data/sam.keys"


def test_preferences_outside_of_the_folder_are_moved_inside() -> None:
    """One Kad id for source and copies: such nodes ignore each other."""
    for path in ("/home/ann/p.dat", "../p.dat", ""):
        config = edit_config(f"[kad]\npreferences_kad_path = '{path}'\n", plan(), A, "r7")
        assert values(config.text)["kad.preferences_kad_path"] == "preferencesKad.dat"
    config = edit_config("[kad]\npreferences_kad_path = 'own.dat'\n", plan(), A, "r7")
    assert config.identity[-1] == "data/own.dat"


def test_config_that_is_no_toml_is_the_nodes_fault() -> None:
    """The message says which file to mend."""
    with pytest.raises(NodeError, match=r"mend it in /dist/mule-a/config.toml") as error:
        edit_config("[api\nport = 1", plan(), A, "r7")
    assert error.value.code == "bad_config"


def test_section_that_is_no_table_is_named() -> None:
    """`api = 3` cannot get a port."""
    with pytest.raises(NodeError, match=r"\[api\] is not a table"):
        edit_config("api = 3\n", plan(), A, "r7")


@pytest.mark.parametrize(
    "text",
    [
        "api = { port = 1 }\n",
        "api.port = 1\n",
        "[kad]\nx = 1\n[api]\nport = 1\n[kad.more]\ny = 2\n",
        "[api]\nport = 1\n[kad.more]\ny = 2\n[api.more]\nz = 3\n",
        "[api]\r\nport = 1\r\n",
    ],
    ids=["inline table", "dotted key", "split section", "split and implied", "CRLF"],
)
def test_every_way_to_write_a_table_can_be_edited(text: str) -> None:
    """The node reads any TOML, so the driver must."""
    config = edit_config(text, plan(), A, "r7")
    found = values(config.text)
    assert {key: found[key] for key in WANTED} == WANTED


def test_key_that_could_not_be_set_is_an_error() -> None:
    """Never a silent default."""
    with pytest.raises(NodeError, match="cannot set api.port = 5 .* reads back as 4"):
        check_config("[api]\nport = 4\n", {"api.port": 5}, A)
    with pytest.raises(NodeError, match="reads back as None"):
        check_config("api = 3\n", {"api.port": 5}, A)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 60),
        ("[kad]\nservice_status_every_secs = 30\n", 30),
        ("[kad]\nservice_status_every_secs = 1\n", 5),
        ("[kad]\nservice_status_every_secs = 'often'\n", 60),
        ("[sim]\nstatus_every_secs = 0.5\n", 0.5),
        ("[sim]\nstatus_every_secs = 0\n[kad]\nservice_status_every_secs = 7\n", 7),
        ("kad = 1\nsim = 2\n", None),
    ],
)
def test_status_window_is_the_nodes_own(text: str, seconds: float | None) -> None:
    """Half of it is how often soakd looks."""
    if seconds is None:
        with pytest.raises(NodeError):
            edit_config(text, plan(), A, "r7")
        return
    assert edit_config(text, plan(), A, "r7").status_window_s == seconds


@pytest.mark.parametrize(
    "text",
    [
        "[kad]\nservice_status_every_secs = nan\n",
        "[kad]\nservice_status_every_secs = -inf\n",
        "[kad]\nservice_status_every_secs = inf\n",
        "[sim]\nstatus_every_secs = nan\n",
        "[sim]\nstatus_every_secs = 1e-9\n",
        "[sim]\nstatus_every_secs = -3\n",
        "[sim]\nstatus_every_secs = inf\n",
    ],
)
def test_status_window_is_a_time_that_can_be_waited_for(text: str) -> None:
    """The config is a user's: no number in it may spin soakd or break its sleep."""
    window_s = edit_config(text, plan(), A, "r7").status_window_s
    assert 0.01 <= window_s <= 86_400


def test_session_name_is_unique_per_node_and_run() -> None:
    """A newcomer with the same name destroys the other's session."""
    names = {session_name(plan(), node, run) for node in "ab" for run in ("r1", "r2")}
    assert len(names) == 4


def test_edited_config_is_still_toml_for_others() -> None:
    """tomlkit writes it, the node's own parser reads it."""
    config = edit_config("[api]\nport=1\n[x]\ny=1979-05-27T07:32:00Z\n", plan(), A, "r7")
    assert tomlkit.parse(config.text) == tomllib.loads(config.text)
