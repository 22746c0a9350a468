"""The nodes and variables of a plan. Part of `plan_parse`."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final

from soakd.core.model import ROLES
from soakd.core.plan_checks import Problems, Reader, has_control, show
from soakd.core.plan_keys import NODE_KEYS
from soakd.core.plan_shape import NodePlan

MAX_NODES: Final = 50
MAX_PATH_CHARS: Final = 4095
MAX_WORD_CHARS: Final = 200
MAX_ENV: Final = 64
MAX_ENV_CHARS: Final = 4096
_NODE_NAME = re.compile(r"[a-z][a-z0-9]{0,15}")
_FILE_ID = re.compile(r"[0-9a-fA-F]{32}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
# soakd builds these: a node that saw others would not be the submitter's, or not the run's.
_BUILT_ENV: Final = frozenset({"PATH", "HOME", "USER", "LOGNAME"})
_BUILT_PREFIX: Final = "SOAK_"


def read_path(reader: Reader, key: str) -> str:
    """Read an absolute path; `/` stands in for a problem."""
    path = reader.text(key, MAX_PATH_CHARS)
    if path is None:
        return "/"
    if not path.startswith("/"):
        reader.bad(key, f"cannot be a relative path, got {show(path)}")
    return path


def read_optional_text(reader: Reader, name: str, max_chars: int) -> str | None:
    """Read text that may be left out."""
    return None if reader.value(name) is None else reader.text(name, max_chars)


def read_env(reader: Reader, key: str) -> tuple[tuple[str, str], ...]:
    """Read a table of variables."""
    value = reader.value(key)
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        reader.bad(key, f"cannot read a map of names to values, got {show(value)}")
        return ()
    if len(value) > MAX_ENV:
        reader.bad(key, f"cannot have more than {MAX_ENV} entries, got {len(value)}")
        return ()
    for name, text in value.items():
        _check_env(reader, key, name, text)
    return tuple((str(name), str(text)) for name, text in value.items())


def _check_env(reader: Reader, table: str, name: object, text: object) -> None:
    if not isinstance(name, str) or _ENV_NAME.fullmatch(name) is None:
        reader.bad(table, f"cannot use the name {show(name)}: letters, digits and _ only")
        return
    key = f"{table}.{name}"
    if name in _BUILT_ENV or name.startswith(_BUILT_PREFIX):
        reader.bad(key, "cannot be overridden: soakd sets it")
    if not isinstance(text, str):
        reader.bad(key, f"cannot read text, got {show(text)}")
    elif has_control(text):
        reader.bad(key, f"cannot contain control characters, got {show(text)}")
    elif len(text) > MAX_ENV_CHARS:
        reader.bad(key, f"cannot be longer than {MAX_ENV_CHARS} characters, got {show(text)}")


def read_nodes(reader: Reader, problems: Problems) -> tuple[NodePlan, ...]:
    """Read the nodes and check them together."""
    nodes: list[NodePlan] = []
    items = reader.items("nodes", MAX_NODES)
    for index, item in enumerate(items):
        if isinstance(item, Mapping):
            nodes.append(_node(Reader(item, problems, f"nodes[{index}].")))
        else:
            reader.bad(f"nodes[{index}]", f"cannot read a node, got {show(item)}")
    _check_together(reader, nodes)
    if isinstance(reader.value("nodes"), list | tuple) and len(nodes) == len(items):
        _check_roles(reader, nodes)
    return tuple(nodes)


def _node(reader: Reader) -> NodePlan:
    reader.refuse_unknown(NODE_KEYS)
    name = reader.text("name", 64)
    if name is not None and _NODE_NAME.fullmatch(name) is None:
        reader.bad("name", f"cannot be other than a short lower-case word, got {show(name)}")
    if name == "env":
        reader.bad("name", "cannot be env: in a plan file [node.env] is the variables of all nodes")
    host = reader.text("host", 64)
    if host is not None and not _is_loopback(host):
        reader.bad("host", f"cannot be other than a loopback address, got {show(host)}")
    port = 0
    if reader.value("port") is None:
        reader.bad("port", "cannot be missing")
    else:
        key = NODE_KEYS["port"]
        port = reader.whole("port", 0, int(key.low), int(key.high))
    token_file = read_path(reader, "token_file") if reader.value("token_file") is not None else None
    return NodePlan(
        name or "",
        _source(reader, is_attached=token_file is not None),
        host or "",
        port,
        _roles(reader),
        read_env(reader, "env"),
        read_optional_text(reader, "query", MAX_WORD_CHARS),
        _file_id(reader),
        _filename(reader),
        token_file,
    )


def _source(reader: Reader, *, is_attached: bool) -> str:
    """Read the folder of a node; one that somebody else runs has none."""
    if not is_attached:
        return read_path(reader, "source")
    if reader.value("source") not in (None, ""):
        reader.bad("source", "cannot be given beside token_file: a node is started or attached to")
    return ""


def _file_id(reader: Reader) -> str | None:
    file_id = read_optional_text(reader, "file_id", MAX_WORD_CHARS)
    if file_id is not None and _FILE_ID.fullmatch(file_id) is None:
        reader.bad("file_id", f"cannot be other than 32 hex digits, got {show(file_id)}")
    return None if file_id is None else file_id.lower()


def _filename(reader: Reader) -> str | None:
    filename = read_optional_text(reader, "filename", MAX_WORD_CHARS)
    if filename is not None and "/" in filename:
        reader.bad("filename", f"cannot be a path, got {show(filename)}")
    return filename


def _roles(reader: Reader) -> tuple[str, ...]:
    roles = reader.items("roles", len(ROLES))
    for role in roles:
        if role not in ROLES:
            reader.bad("roles", f"cannot be other than {' or '.join(ROLES)}, got {show(role)}")
    return tuple(str(role) for role in roles)


def _check_together(reader: Reader, nodes: list[NodePlan]) -> None:
    """Check what no node can break alone; port 0 and empty names are noted already."""
    for index, node in enumerate(nodes):
        before = nodes[:index]
        if node.name and any(other.name == node.name for other in before):
            reader.bad(f"nodes[{index}].name", f"cannot be used twice, got {show(node.name)}")
        if node.port and any(other.port == node.port for other in before):
            reader.bad(f"nodes[{index}].port", f"cannot be used twice, got {node.port}")


def _check_roles(reader: Reader, nodes: list[NodePlan]) -> None:
    publishers = [index for index, node in enumerate(nodes) if "publisher" in node.roles]
    searchers = [index for index, node in enumerate(nodes) if "searcher" in node.roles]
    if not any(a != b for a in publishers for b in searchers):
        reader.bad("nodes", "cannot make rounds without a publisher and another searcher")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # Python releases disagree on ::ffff:127.0.0.1, and ::1%lo would not do for a URL.
    return address.is_loopback and (address.version == 4 or str(address) == "::1")
