"""Reads and checks `config.toml` as the real program does, plus the `[sim]` section.

Unknown keys and sections are ignored, a wrong type or range is a parse failure, a failed check
names the value. A missing file is written with all defaults and the node runs with them.
"""

from __future__ import annotations

import ipaddress
import json
import os
import tomllib
from typing import Any, NamedTuple

from soakd.simnode.fatal import FatalError, os_error, quoted
from soakd.simnode.knobs import BadValueError, Sim, read_sim

FILE = "config.toml"

DEFAULTS: dict[str, dict[str, Any]] = {
    "sam": {
        "host": "127.0.0.1",
        "port": 7656,
        "udp_port": 7655,
        "session_name": "rust-mule",
        "datagram_transport": "tcp",
        "forward_host": "127.0.0.1",
        "forward_port": 0,
        "control_timeout_secs": 120,
    },
    "kad": {
        "bootstrap_nodes_path": "nodes.dat",
        "preferences_kad_path": "preferencesKad.dat",
        "service_enabled": True,
        "service_runtime_secs": 0,
        "service_status_every_secs": 60,
        "service_crawl_every_secs": 3,
        "service_alpha": 3,
        "service_persist_every_secs": 300,
        "service_max_persist_nodes": 5000,
        "service_req_contacts": 31,
        "service_req_timeout_secs": 45,
        "service_req_min_interval_secs": 15,
        "service_bootstrap_every_secs": 1800,
        "service_bootstrap_batch": 1,
        "service_bootstrap_min_interval_secs": 21600,
        "service_hello_every_secs": 10,
        "service_hello_batch": 2,
        "service_hello_min_interval_secs": 900,
        "service_hello_dual_obfuscated": False,
        "service_maintenance_every_secs": 5,
        "service_max_failures": 5,
        "service_evict_age_secs": 86400,
        "service_refresh_interval_secs": 2700,
        "service_refresh_buckets_per_tick": 1,
        "service_refresh_underpopulated_min_contacts": 60,
        "service_refresh_underpopulated_every_secs": 60,
        "service_refresh_underpopulated_buckets_per_tick": 2,
        "service_refresh_underpopulated_alpha": 5,
        "service_keyword_require_interest": True,
        "service_keyword_interest_ttl_secs": 86400,
        "service_keyword_results_ttl_secs": 86400,
        "service_keyword_max_keywords": 64,
        "service_keyword_max_total_hits": 50000,
        "service_keyword_max_hits_per_keyword": 2000,
        "service_store_keyword_max_keywords": 1024,
        "service_store_keyword_max_total_hits": 200000,
        "service_store_keyword_evict_age_secs": 1209600,
    },
    "general": {
        "log_level": "info",
        "data_dir": "data",
        "log_to_file": True,
        "log_file_name": "rust-mule.log",
        "log_file_level": "debug",
        "auto_open_ui": True,
    },
    "api": {
        "port": 17835,
        "enable_debug_endpoints": True,
        "auth_mode": "local_ui",
        "rate_limit_enabled": True,
        "rate_limit_window_secs": 60,
        "rate_limit_auth_bootstrap_max_per_window": 30,
        "rate_limit_session_max_per_window": 30,
        "rate_limit_token_rotate_max_per_window": 10,
    },
}
_PORTS = {("sam", "port"), ("sam", "udp_port"), ("sam", "forward_port"), ("api", "port")}
_CHOICES = {
    ("sam", "datagram_transport"): ("tcp", "udp_forward"),
    ("api", "auth_mode"): ("local_ui", "headless_remote"),
}
_OLD_BOOTSTRAP_KEY = "rate_limit_dev_auth_max_per_window"
_BOOTSTRAP_KEY = "rate_limit_auth_bootstrap_max_per_window"


class Config(NamedTuple):
    """All sections with defaults filled in, and the knobs of the simulation."""

    values: dict[str, dict[str, Any]]
    sim: Sim
    sim_table: dict[str, Any]

    def get(self, section: str, key: str) -> Any:
        """Return the value of a known key."""
        return self.values[section][key]

    def data_path(self, name: str) -> str:
        """Return `name` inside the data dir; an absolute name stays."""
        return os.path.join(self.get("general", "data_dir"), name)


def load(path: str = FILE) -> Config:
    """Read the configuration; write one with all defaults where there is none.

    Raises:
        FatalError: in the words of the real program.
    """
    try:
        with open(path, "rb") as file:
            text = file.read().decode()
    except FileNotFoundError:
        config = Config(fill({}), Sim(), {})
        write(config, path)
        return config
    except (OSError, UnicodeDecodeError) as error:
        cause = os_error(error) if isinstance(error, OSError) else "stream did not contain UTF-8"
        raise FatalError(f"LoadConfig(Read {{ path: {quoted(path)}, source: {cause} }})") from error
    try:
        table = tomllib.loads(text)
        config = Config(fill(table), read_sim(table.get("sim", {})), dict(table.get("sim", {})))
    except (tomllib.TOMLDecodeError, BadValueError) as error:
        raise FatalError(
            f"LoadConfig(ParseToml {{ path: {quoted(path)}, "
            f"source: Error {{ message: {quoted(str(error))} }} }})"
        ) from error
    check(config.values)
    return config


def fill(table: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return all known sections with the values of `table` over the defaults.

    Raises:
        BadValueError: a known key has a value of the wrong kind.
    """
    filled: dict[str, dict[str, Any]] = {}
    for section, defaults in DEFAULTS.items():
        given = table.get(section, {})
        if not isinstance(given, dict):
            raise BadValueError(f"{section}: invalid type, expected a table")
        if section == "api" and _OLD_BOOTSTRAP_KEY in given:
            if _BOOTSTRAP_KEY in given:
                raise BadValueError(f"duplicate field `{_BOOTSTRAP_KEY}`")
            given = {**given, _BOOTSTRAP_KEY: given[_OLD_BOOTSTRAP_KEY]}
        filled[section] = {
            key: _taken(section, key, given[key], default) if key in given else default
            for key, default in defaults.items()
        }
    return filled


def _taken(section: str, key: str, value: object, default: object) -> object:
    if type(value) is not type(default):
        raise BadValueError(f"{section}.{key}: invalid type: {value!r}")
    if isinstance(value, int) and not isinstance(value, bool):
        top = 65535 if (section, key) in _PORTS else (1 << 63) - 1
        if not 0 <= value <= top:
            raise BadValueError(f"{section}.{key}: invalid value: integer `{value}`")
    choices = _CHOICES.get((section, key))
    if choices is not None and value not in choices:
        raise BadValueError(f"{section}.{key}: unknown variant `{value}`")
    return value


def check(values: dict[str, dict[str, Any]]) -> None:
    """Check the values that parse but make no sense.

    Raises:
        FatalError: `InvalidConfig(…)`.
    """
    sam = values["sam"]
    _check_ip("InvalidSamHost", sam["host"])
    problems = [
        (not sam["port"], "InvalidSamPort(0)"),
        (
            not str(sam["session_name"]).strip(),
            f"InvalidSessionName({quoted(sam['session_name'])})",
        ),
        (not sam["control_timeout_secs"], "InvalidControlTimeout(0)"),
    ]
    if sam["datagram_transport"] == "udp_forward":
        problems.append((not sam["udp_port"], "InvalidSamUdpPort(0)"))
        _check_ip("InvalidForwardHost", sam["forward_host"])
    problems.append((not values["api"]["port"], "InvalidApiPort(0)"))
    for wrong, text in problems:
        if wrong:
            raise FatalError(f"InvalidConfig({text})")


def _check_ip(name: str, host: str) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        raise FatalError(
            f"InvalidConfig({name} {{ host: {quoted(host)}, source: AddrParseError(Ip) }})"
        ) from error


def write(config: Config, path: str = FILE) -> None:
    """Write all keys explicitly, through `config.tmp`; comments are lost as in the real program.

    Raises:
        OSError: the folder cannot be written.
    """
    tables = dict(config.values)
    if config.sim_table:
        tables["sim"] = config.sim_table
    temporary = os.path.splitext(path)[0] + ".tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(dumped(tables))
    os.replace(temporary, path)


def dumped(tables: dict[str, dict[str, Any]]) -> str:
    """Return TOML text of flat tables of strings, numbers, booleans and lists of them."""
    lines: list[str] = []
    for name, table in tables.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {_toml(value)}" for key, value in table.items()]
        lines.append("")
    return "\n".join(lines)


def _toml(value: object) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, str):
        # JSON's escapes are TOML's, except that TOML also wants DEL escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
