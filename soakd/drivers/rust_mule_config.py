"""How the rust-mule driver edits a node's `config.toml`.

Decides which keys are set and why, and what counts as identity. Pure text in, text out: the shim
touches the files. Facts come from the node contract (rust-mule 0.1.0): the folder §1, the keys §2.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from pathlib import PurePosixPath
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from soakd.core.errors import NodeError
from soakd.core.plan import NodePlan, Plan
from soakd.drivers.driver import Edit, NodeConfig
from soakd.drivers.rust_mule_names import CONFIG, IDENTITY_FILES, session_name

DEFAULT_PREFERENCES = "preferencesKad.dat"
DEFAULT_STATUS_WINDOW_S = 60.0
MIN_STATUS_WINDOW_S = 5.0
MIN_SIM_WINDOW_S = 0.2
MAX_STATUS_WINDOW_S = 3600.0


def edit_config(text: str | None, plan: Plan, node: NodePlan, run: str) -> NodeConfig:
    """Sets what a soak needs in a node's configuration; the rest stays, comments included.

    Args:
        text: the source's `config.toml`; None where there is none (then one is made, since the
            program would write all defaults and run with them).
        plan: the run's plan; with `keep_config` only the keys that would collide with another node
            are set.
        node: the node the configuration is for.
        run: the run's id, such as `r7`.

    Raises:
        NodeError: the text is not TOML, or a section is not a table.
    """
    document = _parse(text or "", node)
    wanted = _wanted(document, plan, node, run)
    edits = []
    for key, value in wanted.items():
        section, name = key.split(".")
        table = document.setdefault(section, tomlkit.table())
        if not isinstance(table, MutableMapping):
            raise NodeError(
                "bad_config",
                f"cannot edit {CONFIG} of node {node.name}: [{section}] is not a table; mend it in"
                f" {node.source}/{CONFIG}",
            )
        old = table.get(name)
        if old != value or type(old) is bool is not type(value):
            table[name] = value
            edits.append(Edit(node.name, key, _plain(old), value))
    new_text = tomlkit.dumps(document)
    config = NodeConfig(
        text=new_text,
        edits=tuple(edits),
        data_dir=str(wanted["general.data_dir"]),
        identity=(),
        status_window_s=_status_window_s(document),
    )
    preferences = str(_get(document, "kad", "preferences_kad_path") or DEFAULT_PREFERENCES)
    identity = tuple(config.file(name) for name in (*IDENTITY_FILES, preferences))
    check_config(new_text, wanted, node)
    return NodeConfig(config.text, config.edits, config.data_dir, identity, config.status_window_s)


def check_config(text: str, wanted: Mapping[str, str | int | bool], node: NodePlan) -> None:
    """Reads back what was written: a key that could not be set is an error, never a silent default.

    Raises:
        NodeError: a wanted key does not have its value in `text`.
    """
    document = _parse(text, node)
    for key, value in wanted.items():
        section, name = key.split(".")
        found = _get(document, section, name)
        if found != value:
            raise NodeError(
                "bad_config",
                f"cannot set {key} = {value!r} in {CONFIG} of node {node.name}: it reads back as"
                f" {found!r}",
            )


def _wanted(
    document: tomlkit.TOMLDocument, plan: Plan, node: NodePlan, run: str
) -> dict[str, str | int | bool]:
    wanted: dict[str, str | int | bool] = {
        "sam.session_name": session_name(plan, node.name, run),
        "api.port": node.port,
        "general.data_dir": _data_dir(document),
    }
    preferences = _get(document, "kad", "preferences_kad_path")
    if preferences is not None and not _stays_inside(str(preferences)):
        # An absolute path would share one Kad id between the source and every copy of it: such
        # nodes ignore each other (contract §1).
        wanted["kad.preferences_kad_path"] = DEFAULT_PREFERENCES
    if not plan.keep_config:
        wanted |= {
            "general.auto_open_ui": False,
            # A fixed port makes a re-creation of the SAM session fatal (contract §3.5).
            "sam.forward_port": 0,
            "kad.service_runtime_secs": 0,
            # Rate limits also serve all limited routes one at a time: one slow call would delay
            # every status (contract §5.2).
            "api.rate_limit_enabled": False,
        }
    return wanted


def _data_dir(document: tomlkit.TOMLDocument) -> str:
    configured = _get(document, "general", "data_dir")
    if isinstance(configured, str) and configured and _stays_inside(configured):
        return str(configured)
    return "data"


def _stays_inside(path: str) -> bool:
    pure = PurePosixPath(path)
    return not pure.is_absolute() and ".." not in pure.parts and pure.parts != ()


def _status_window_s(document: tomlkit.TOMLDocument) -> float:
    """How often the node closes a status window, within what a sampler can bear."""
    simulated = _seconds(_get(document, "sim", "status_every_secs"))
    if simulated:
        return min(max(simulated, MIN_SIM_WINDOW_S), MAX_STATUS_WINDOW_S)
    configured = _seconds(_get(document, "kad", "service_status_every_secs"))
    if configured is None:
        return DEFAULT_STATUS_WINDOW_S
    return min(max(configured, MIN_STATUS_WINDOW_S), MAX_STATUS_WINDOW_S)


def _seconds(value: object) -> float | None:
    """A finite number that is not negative; a node's own configuration may hold anything."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return min(max(float(value), 0.0), 1e6) if abs(value) < 1e300 else None


def _parse(text: str, node: NodePlan) -> tomlkit.TOMLDocument:
    try:
        return tomlkit.parse(text)
    except TOMLKitError as error:
        raise NodeError(
            "bad_config",
            f"cannot read {CONFIG} of node {node.name}: {error}; mend it in {node.source}/{CONFIG}",
        ) from error


def _get(document: tomlkit.TOMLDocument, section: str, name: str) -> Any:
    table = document.get(section)
    return _plain(table.get(name)) if isinstance(table, Mapping) else None


def _plain(value: Any) -> Any:
    return value.unwrap() if hasattr(value, "unwrap") else value
