"""From plain data to a plan, with all problems at once. Import from `soakd.core.plan`.

soakctl calls it before it sends a plan and soakd again on what it received: a client is not
to be trusted.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from typing import Final, cast

from soakd.core.errors import UserError
from soakd.core.gates import parse_gate
from soakd.core.model import ROLES
from soakd.core.plan_checks import Names, Problems, Reader, has_control, show
from soakd.core.plan_keys import KEYS, NODE_KEYS, default
from soakd.core.plan_shape import DEFAULT_DURATION_S, NodePlan, Plan

MAX_NODES: Final = 16
MAX_LABEL_CHARS: Final = 64
MAX_PATH_CHARS: Final = 4095
MAX_GATES: Final = 32
MAX_ENV: Final = 64
MAX_ENV_CHARS: Final = 4096
MIN_READ_EVERY_S: Final = 0.05
_NODE_NAME = re.compile(r"[a-z][a-z0-9]{0,15}")
_RUN_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
# soakd builds these: a node that saw others would not be the submitter's, or not the run's.
_BUILT_ENV: Final = frozenset({"PATH", "HOME", "USER", "LOGNAME"})
_BUILT_PREFIX: Final = "SOAK_"


def parse_plan(mapping: Mapping[str, object]) -> Plan:
    """Read a plan from plain data.

    Raises:
        UserError: With code `bad_plan` and all problems in `details["problems"]`.
    """
    return parse_named(mapping, {})


def parse_named(mapping: Mapping[str, object], names: Names) -> Plan:
    """Read a plan whose problems are reported under the names that the user knows.

    Raises:
        UserError: As `parse_plan`.
    """
    problems = Problems(names)
    plan = read_plan(mapping, problems)
    raise_problems(problems)
    return plan


def raise_problems(problems: Problems) -> None:
    """Raise `bad_plan` if there is any problem."""
    if not problems.found:
        return
    listed = problems.listed()
    more = f" (and {len(problems.found) - 1} more)" if len(problems.found) > 1 else ""
    message = f"cannot use the plan: {listed[0]}{more}"
    raise UserError("bad_plan", message, {"problems": listed})


def read_plan(mapping: Mapping[str, object], problems: Problems) -> Plan:
    """Read every field, noting problems; the plan is a stand-in if there are any."""
    reader = Reader(cast("Mapping[object, object]", mapping), problems)
    reader.refuse_unknown(KEYS)
    duration_s, rounds = _extent(reader)
    return Plan(
        scenario=_choice(reader, "scenario"),
        nodes=(nodes := _nodes(reader, problems)),
        duration_s=duration_s,
        rounds=rounds,
        wait_publish_s=_seconds(reader, "wait_publish_s"),
        wait_search_s=_seconds(reader, "wait_search_s"),
        wait_between_s=_seconds(reader, "wait_between_s"),
        read_every_s=_read_every(reader),
        miss_recheck_attempts=_whole(reader, "miss_recheck_attempts"),
        miss_recheck_delay_s=_seconds(reader, "miss_recheck_delay_s"),
        ready_timeout_s=_seconds(reader, "ready_timeout_s"),
        fresh_identity=_flag(reader, "fresh_identity"),
        run_tag=_run_tag(reader),
        run_root=_path(reader, "run_root") if reader.value("run_root") is not None else None,
        label=_label(reader),
        keep_config=_flag(reader, "keep_config"),
        latest=_flag(reader, "latest"),
        node_env=_env(reader, "node_env"),
        ports=_choice(reader, "ports"),
        stop_grace_s=_seconds(reader, "stop_grace_s"),
        orphan_grace_s=_seconds(reader, "orphan_grace_s"),
        staging_timeout_s=_seconds(reader, "staging_timeout_s"),
        gates=_gates(reader, {node.name for node in nodes}),
    )


def _seconds(reader: Reader, name: str) -> float:
    key = KEYS[name]
    return reader.number(name, default(name), key.low, key.high)


def _whole(reader: Reader, name: str) -> int:
    key = KEYS[name]
    return reader.whole(name, default(name), int(key.low), int(key.high))


def _flag(reader: Reader, name: str) -> bool:
    return reader.flag(name, default=default(name))


def _choice(reader: Reader, name: str) -> str:
    return reader.choice(name, default(name), KEYS[name].choices)


def _extent(reader: Reader) -> tuple[float | None, int | None]:
    rounds = None
    if reader.value("rounds") is not None:
        key = KEYS["rounds"]
        rounds = reader.whole("rounds", 1, int(key.low), int(key.high))
    if reader.value("duration_s") is not None:
        key = KEYS["duration_s"]
        return reader.number("duration_s", DEFAULT_DURATION_S, key.low, key.high), rounds
    if rounds is None and reader.has("duration_s"):
        reader.bad("duration_s", "cannot do without an end: give a duration or rounds")
    return (DEFAULT_DURATION_S if rounds is None else None), rounds


def _read_every(reader: Reader) -> float:
    value = _seconds(reader, "read_every_s")
    if 0 < value < MIN_READ_EVERY_S:
        reader.bad("read_every_s", f"cannot be below {MIN_READ_EVERY_S:g} unless 0, got {value:g}")
    return value


def _run_tag(reader: Reader) -> str:
    tag = reader.text("run_tag", 64)
    if tag is not None and _RUN_TAG.fullmatch(tag) is None:
        reader.bad("run_tag", f"cannot use other than letters, digits and ._-, got {show(tag)}")
    return tag or ""


def _label(reader: Reader) -> str | None:
    if reader.value("label") is None:
        return None
    label = reader.text("label", MAX_LABEL_CHARS)
    # Stricter than other text: marks that turn the writing direction could fake a listing.
    if label is not None and (not label.isprintable() or not label.strip()):
        reader.bad("label", f"cannot be blank or unprintable, got {show(label)}")
    return label


def _path(reader: Reader, key: str) -> str:
    path = reader.text(key, MAX_PATH_CHARS)
    if path is None:
        return "/"
    if not path.startswith("/"):
        reader.bad(key, f"cannot be a relative path, got {show(path)}")
    return path


def _gates(reader: Reader, nodes: Collection[str]) -> tuple[str, ...]:
    """Read the gates; each one's problems are noted together, and those of all of them."""
    if not reader.has("gates"):
        return ()
    gates: list[str] = []
    for index, item in enumerate(reader.items("gates", MAX_GATES)):
        try:
            gate = parse_gate(item if isinstance(item, str) else "")
        except ValueError as error:
            reader.bad(f"gates[{index}]", f"{error}, got {show(item)}")
            continue
        gates.append(gate.text)
        if gate.node is not None and gate.node not in nodes:
            known = ", ".join(sorted(nodes))
            reader.bad(f"gates[{index}]", f"cannot judge node {gate.node}: the nodes are {known}")
    return tuple(gates)


def _env(reader: Reader, key: str) -> tuple[tuple[str, str], ...]:
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


def _nodes(reader: Reader, problems: Problems) -> tuple[NodePlan, ...]:
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
    return NodePlan(
        name or "",
        _path(reader, "source"),
        host or "",
        port,
        _roles(reader),
        _env(reader, "env"),
    )


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
