"""From the content of a plan file to data for the parser of plans. Part of `plan_file`.

Only what a file says in its own way is settled here: keys without their unit, tables of nodes,
durations and URLs as text, relative paths. Whatever is wrong otherwise goes on to the parser.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from soakd.core.duration import parse_duration
from soakd.core.errors import UserError
from soakd.core.model import ROLES
from soakd.core.plan_checks import show
from soakd.core.plan_env import parse_url
from soakd.core.plan_file_lines import Place
from soakd.core.plan_file_names import Origins
from soakd.core.plan_keys import KEYS, MAX_PORT, NODE_KEYS, canonical
from soakd.core.plan_nodes import MAX_NODES

FIRST_PORT: Final = 17835
DEFAULT_HOST: Final = "127.0.0.1"
FIXED: Final = "fixed"
_ENV: Final = "env"
_COUNT: Final = "count"


def lay_over(
    content: Mapping[str, Any], pairs: Mapping[Place, str]
) -> tuple[dict[str, Any], list[Place]]:
    """Return the content with values at other places, and the places that cannot take one.

    Args:
        content: As the file has it.
        pairs: Places below `node`, with text for each.
    """
    changed, refused = dict(content), []
    for place, text in pairs.items():
        table: Any = changed
        for part in place[:-1]:
            inner = table.get(part, {})
            if not isinstance(inner, dict):
                refused.append(place)
                break
            table[part] = table = dict(inner)
        else:
            is_port = place[2:] == ("port",) and text.isascii() and text.isdigit()
            table[place[-1]] = int(text) if is_port and len(text) <= 9 else text
    return changed, refused


def plan_data(content: Mapping[str, Any], origins: Origins, folder: str) -> dict[str, Any]:
    """Return the content under the names of `Plan`; a list of values stays a list.

    Args:
        content: As the file has it.
        origins: Learns where everything stands.
        folder: Where relative paths start, absolute.
    """
    data: dict[str, Any] = {}
    for key, value in content.items():
        field = canonical(key)
        if key == "node":
            continue
        if field in data:
            origins.problems.add(field, f"cannot be given twice, as {key} too")
            continue
        origins.note(field, (key,))
        _note_parts(field, (key,), value, origins)
        data[field] = _readable(value, field, origins, folder)
    if isinstance(data.get("nodes"), list):
        data["nodes"] = [
            _node(node, index, ("nodes", index), origins, folder)
            for index, node in enumerate(data["nodes"])
        ]
    if "node" in content:
        _take_nodes(content["node"], data, origins, folder)
    return data


def finished(data: Mapping[str, Any], origins: Origins) -> dict[str, Any]:
    """Return the data of one run with the nodes' defaults, and their URLs split."""
    nodes = data.get("nodes")
    if not isinstance(nodes, list):
        return dict(data)
    return {
        **data,
        "nodes": [
            _finished_node(node, index, _roles(data, index), origins)
            if isinstance(node, Mapping)
            else node
            for index, node in enumerate(nodes)
        ],
    }


def given_keys(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the keys that have a value before defaults come to it."""
    yield from data
    nodes = data.get("nodes")
    for node in nodes if isinstance(nodes, list) else ():
        if isinstance(node, Mapping):
            for key in node:
                parts = ("host", "port") if key == "url" else (key,)
                yield from (f"node.{node.get('name')}.{part}" for part in parts)


def _take_nodes(tables: object, data: dict[str, Any], origins: Origins, folder: str) -> None:
    """Read `[node.a]` and the like, and `[node.env]`."""
    if "nodes" in data:
        origins.problems.add("nodes", "cannot be given beside [node.NAME]: choose one of them")
        return
    origins.note("nodes", ("node",))
    if not isinstance(tables, Mapping):
        data["nodes"] = tables
        return
    nodes: list[object] = []
    for name, table in tables.items():
        if name != _ENV:
            nodes += _named_nodes(name, table, len(nodes), origins, folder)
        elif "node_env" in data:
            origins.problems.add("node_env", "cannot be given beside [node.env]")
        else:
            origins.note("node_env", ("node", _ENV))
            _note_parts("node_env", ("node", _ENV), table, origins)
            data["node_env"] = table
    data["nodes"] = nodes


def _named_nodes(
    name: str, table: object, index: int, origins: Origins, folder: str
) -> list[object]:
    """The node of a table; with `count` several, whose names and ports are counted up."""
    if not isinstance(table, Mapping) or _COUNT not in table:
        return [_named_node(name, name, table, index, origins, folder)]
    rest = {key: value for key, value in table.items() if key != _COUNT}
    count = table[_COUNT]
    if type(count) is not int or not 1 <= count <= MAX_NODES:
        origins.note(f"nodes[{index}].{_COUNT}", ("node", name, _COUNT))
        what = f"cannot be other than a whole number from 1 to {MAX_NODES}, got {show(count)}"
        origins.problems.add(f"nodes[{index}].{_COUNT}", what)
        count = 1
    return [
        _named_node(f"{name}{place + 1}", name, _moved(rest, place), index + place, origins, folder)
        for place in range(count)
    ]


def _moved(table: Mapping[str, Any], by: int) -> dict[str, Any]:
    """A node's table with a port that is higher by so much; what is none is the parser's."""
    moved = dict(table)
    if type(moved.get("port")) is int:
        moved["port"] += by
    if isinstance(moved.get("url"), str) and by:
        # Of the first node the URL stays: a problem of it is told once.
        try:
            moved["host"], port = parse_url(moved["url"])
        except ValueError:
            return {key: value for key, value in moved.items() if key != "url"}
        moved["port"] = port + by
        del moved["url"]
    return moved


def _named_node(
    name: str, heading: str, table: object, index: int, origins: Origins, folder: str
) -> object:
    place = ("node", heading)
    node = _node(table, index, place, origins, folder)
    if isinstance(node, dict):
        if "name" in node:
            what = "cannot be given in a table [node.NAME]: the heading names the node"
            origins.problems.add(f"nodes[{index}].name", what)
        node = {"name": name, **{key: value for key, value in node.items() if key != "name"}}
        origins.note(f"nodes[{index}].name", place)
    return node


def _node(table: object, index: int, place: Place, origins: Origins, folder: str) -> object:
    path = f"nodes[{index}]"
    origins.note(path, place)
    if not isinstance(table, Mapping):
        return table
    for key in (*NODE_KEYS, "url"):
        # A key that is missing is missed where the table begins.
        origins.note(f"{path}.{key}", (*place, key), stands_at=place)
    for key, value in table.items():
        origins.note(f"{path}.{key}", (*place, key))
        _note_parts(f"{path}.{key}", (*place, key), value, origins)
    node = dict(table)
    for key in ("source", "token_file"):
        if key in node and not origins.is_by_flag((*place, key)):
            node[key] = _absolute(node[key], folder)
    if "url" in node and ("host" in node or "port" in node):
        origins.problems.add(f"{path}.url", "cannot be given beside host or port: choose one")
    return node


def _note_parts(path: str, place: Place, value: object, origins: Origins) -> None:
    if not path.isprintable():
        # The parser shows it escaped.
        origins.note(show(path), place)
    if isinstance(value, Mapping):
        for key in value:
            origins.note(f"{path}.{key}", (*place, key))
    elif isinstance(value, list):
        for index in range(len(value)):
            origins.note(f"{path}[{index}]", (*place, index))


def _readable(value: object, field: str, origins: Origins, folder: str) -> object:
    kind = KEYS[field].kind if field in KEYS else None
    if kind == "seconds":
        return _seconds(value, field, origins)
    return _absolute(value, folder) if kind == "path" else value


def _seconds(value: object, path: str, origins: Origins) -> object:
    """Read durations that are written as text; after a problem a value stands in."""
    if isinstance(value, list):
        return [_seconds(part, f"{path}[{index}]", origins) for index, part in enumerate(value)]
    if not isinstance(value, str):
        return value
    try:
        return parse_duration(value)
    except UserError as error:
        origins.problems.add(path, error.message)
        return 1.0


def _absolute(value: object, folder: str) -> object:
    if isinstance(value, list):
        return [_absolute(part, folder) for part in value]
    if not isinstance(value, str) or not value or value.startswith("/"):
        return value
    return f"{folder.rstrip('/')}/{value}"


def _roles(data: Mapping[str, Any], index: int) -> list[str]:
    """The roles of a node that names none: with several pairs every node does everything."""
    if data.get("pairs", FIXED) != FIXED:
        return list(ROLES)
    return ["searcher" if index else "publisher"]


def _finished_node(
    node: Mapping[str, Any], index: int, roles: list[str], origins: Origins
) -> dict[str, Any]:
    path = f"nodes[{index}]"
    where: dict[str, Any] = {"host": DEFAULT_HOST, "port": FIRST_PORT + index}
    if "url" in node:
        for key in where:
            origins.names[f"{path}.{key}"] = origins.names[f"{path}.url"]
        try:
            where["host"], where["port"] = parse_url(str(node["url"]))
        except ValueError as error:
            origins.problems.add(f"{path}.url", str(error))
            where["port"] = MAX_PORT - index
    if "url" in node:
        # Of a URL beside host or port only the URL is looked at: it is a problem anyway.
        node = {key: value for key, value in node.items() if key not in {"url", *where}}
    return {"roles": roles, **where, **node}
