"""A plan from what the user typed: defaults < environment < flags.

The variables are those of the shell scripts that soakd replaces, so that a user's habits and
wrappers go on working. As in the scripts, an empty variable counts as unset. Import from
`soakd.core.plan`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

from soakd.core.duration import parse_duration
from soakd.core.errors import UserError
from soakd.core.plan_checks import Problems, show
from soakd.core.plan_keys import KEYS, Kind, canonical
from soakd.core.plan_parse import raise_problems, read_plan
from soakd.core.plan_shape import Plan

_DEFAULT_URLS: Final = {"A_URL": "127.0.0.1:17835", "B_URL": "127.0.0.1:17836"}
_ROLES: Final = {"a": "publisher", "b": "searcher"}

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_UNREADABLE = object()


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except UserError as error:
        raise ValueError(error.message) from error


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        why = f"cannot read a whole number, got {show(text)}"
        raise ValueError(why)
    return int(text)


def _flag(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    why = f"cannot read 1 or 0, got {show(text)}"
    raise ValueError(why)


_KINDS: Final[Mapping[Kind, Callable[[str], object]]] = {
    "seconds": _seconds,
    "whole": _whole,
    "flag": _flag,
    "choice": str,
    "text": str,
    "path": str,
}
_READERS: Final[Mapping[str, Callable[[str], object]]] = {
    name: _KINDS[key.kind] for name, key in KEYS.items() if key.is_single
}
"""How the text of a variable or of `--set` is read; other fields take no text."""

_VARIABLES: Final = {
    "WAIT_PUBLISH": "wait_publish_s",
    "WAIT_SEARCH": "wait_search_s",
    "WAIT_BETWEEN": "wait_between_s",
    "READ_EVERY": "read_every_s",
    "MISS_RECHECK_ATTEMPTS": "miss_recheck_attempts",
    "MISS_RECHECK_DELAY": "miss_recheck_delay_s",
    "READY_TIMEOUT_SECS": "ready_timeout_s",
    "SOAK_FRESH_IDENTITY": "fresh_identity",
    "SOAK_RUN_TAG": "run_tag",
}

ENVIRONMENT_NAMES: Final[tuple[str, ...]] = (
    "ROOT",
    "A_SRC",
    "B_SRC",
    *_DEFAULT_URLS,
    "RUN_ROOT",
    *_VARIABLES,
)
"""Every variable that shapes a plan; with a plan file they are ignored."""


def plan_from_environment(
    env: Mapping[str, str], *, cwd: str, flags: Mapping[str, object], run_tag_default: str
) -> Plan:
    """Make a plan of the environment and of flags, which win.

    Args:
        env: The user's environment.
        cwd: The current folder, absolute; relative paths start there.
        flags: By field of `Plan`; None counts as not given. `duration_s` and the other
            fields may be text as typed; `node_env` is a list of `K=V`; `set` is a list of
            `field=value`, which the other flags override; `gates` are added to a plan file's;
            `nodes` has by node's name the keys of `NodePlan` that are to be other ones, None for
            none at all; `names` has by path of a problem the flag that was typed.
        run_tag_default: The run tag if neither names one.

    Raises:
        UserError: With code `bad_plan` and all problems, each under the name of its variable
            or flag.
    """
    names: dict[str, str] = {}
    problems = Problems(names)
    data: dict[str, object] = {"run_tag": run_tag_default}
    changes = flags.get("nodes") or {}
    assert isinstance(changes, Mapping), "nodes are changed by name"
    data["nodes"] = [
        _without_none(node | dict(changes.get(node["name"], {})))
        for node in _env_nodes(env, cwd, names, problems, changes)
    ]
    names.update(_typed(flags))
    flags = {name: value for name, value in flags.items() if name != "nodes"}
    for variable, field in _VARIABLES.items():
        if env.get(variable):
            names[field] = variable
            _put(data, field, env[variable], problems)
    if env.get("RUN_ROOT"):
        names["run_root"] = "RUN_ROOT"
        data["run_root"] = _absolute(env["RUN_ROOT"], cwd)
    plan = read_plan(with_flags(data, flags, names, problems), problems)
    raise_problems(problems)
    return plan


def with_flags(
    data: Mapping[str, object],
    flags: Mapping[str, object],
    names: dict[str, str],
    problems: Problems,
) -> dict[str, Any]:
    """Return the data of a plan with flags laid over it.

    Args:
        data: By field of `Plan`.
        flags: As `plan_from_environment` takes them.
        names: By field, what the user wrote it as; learns the names of flags.
        problems: Where unreadable texts are noted; such a field is left out, since a value that
            stood in for it might be reported a second time.
    """
    changed = dict(data)
    _apply_flags(changed, flags, names, problems)
    return {key: value for key, value in changed.items() if value is not _UNREADABLE}


def read_flags(flags: Mapping[str, object]) -> dict[str, Any]:
    """Return what flags alone say, by field of `Plan`; values are not checked further.

    Raises:
        UserError: With code `bad_plan` and what could not be read.
    """
    names: dict[str, str] = {}
    problems = Problems(names)
    data = with_flags({}, flags, names, problems)
    raise_problems(problems)
    # A count without a duration says so in a plan; here that is nothing that was asked for.
    return {key: value for key, value in data.items() if value is not None}


def ignored_node_env(env: Mapping[str, str], passed: Collection[str] = ()) -> tuple[str, ...]:
    """Return the variables that shape a node elsewhere, are set here and are not passed on.

    Args:
        env: The user's environment.
        passed: Names given by `--node-env`.
    """
    return tuple(
        name
        for name in sorted(env)
        if (name.startswith("RUST_") or name in {"MALLOC_CONF", "LD_PRELOAD"})
        and name not in passed
    )


def _put(data: dict[str, object], field: str, text: str, problems: Problems) -> None:
    try:
        data[field] = _READERS[field](text)
    except ValueError as error:
        problems.add(field, str(error))
        data[field] = _UNREADABLE


def _apply_flags(
    data: dict[str, object], flags: Mapping[str, object], names: dict[str, str], problems: Problems
) -> None:
    given = {key: value for key, value in flags.items() if value is not None}
    for pair in _texts(given.pop("set", ())):
        key, equals, text = pair.partition("=")
        field = canonical(key)
        if not equals:
            problems.add("--set", f"cannot set a field, expected FIELD=VALUE, got {show(pair)}")
            continue
        if field not in _READERS:
            near = get_close_matches(key, _READERS, n=1)
            hint = f"did you mean {near[0]}?" if near else "docs/plan.md has them all"
            problems.add("--set", f"cannot set {show(key)}: there is no such field; {hint}")
            continue
        names[field] = f"--set {key}"
        _put(data, field, text, problems)
    if "node_env" in given:
        _add_env(data, given.pop("node_env"), names, problems)
    _add_gates(data, _texts(given.pop("gates", ())), names)
    typed = _typed(given)
    given.pop("names", None)
    for field, value in given.items():
        names.pop(field, None)
        if field in typed:
            names[field] = typed[field]
        if isinstance(value, str) and field in _READERS:
            _put(data, field, value, problems)
        else:
            data[field] = value
    # A round count alone has no deadline, whatever an older layer said of neither.
    if data.get("rounds") not in (None, _UNREADABLE):
        data.setdefault("duration_s", None)


def _add_gates(data: dict[str, object], gates: Sequence[str], names: dict[str, str]) -> None:
    """Put the gates of `--gate` behind those of the plan file."""
    before = data.get("gates", [])
    if gates and isinstance(before, list):
        for index in range(len(before), len(before) + len(gates)):
            names[f"gates[{index}]"] = "--gate"
        data["gates"] = [*before, *gates]


def _typed(flags: Mapping[str, object]) -> Mapping[str, str]:
    """By path of a problem the flag that was typed, where a command has flags of its own."""
    typed = flags.get("names") or {}
    assert isinstance(typed, Mapping), "flags are named by path"
    return typed


def _texts(value: object) -> Sequence[str]:
    return [str(item) for item in value] if isinstance(value, list | tuple) else ()


def _add_env(
    data: dict[str, object], pairs: object, names: dict[str, str], problems: Problems
) -> None:
    """Lay the variables of `--node-env` over those of the plan file."""
    if not isinstance(pairs, list | tuple):
        data["node_env"] = pairs
        return
    before = data.get("node_env")
    variables = dict(before) if isinstance(before, Mapping) else {}
    for pair in pairs:
        name, equals, text = str(pair).partition("=")
        if equals:
            variables[name] = text
            names[f"node_env.{name}"] = f"--node-env {name}"
        else:
            problems.add("--node-env", f"cannot set a variable, expected K=V, got {show(pair)}")
    data["node_env"] = variables


def _env_nodes(
    env: Mapping[str, str],
    cwd: str,
    names: dict[str, str],
    problems: Problems,
    changes: Mapping[str, Mapping[str, object]],
) -> list[dict[str, object]]:
    root = _absolute(env.get("ROOT") or cwd, cwd)
    nodes: list[dict[str, object]] = []
    for index, (name, role) in enumerate(_ROLES.items()):
        source, url = f"{name.upper()}_SRC", f"{name.upper()}_URL"
        names[f"nodes[{index}].source"] = source if env.get(source) else f"{source} (default)"
        names[f"nodes[{index}].host"] = names[f"nodes[{index}].port"] = url
        # Where flags say where it is, a variable has nothing to say, be it readable or not.
        is_elsewhere = "port" in changes.get(name, {})
        try:
            host, port = parse_url((not is_elsewhere and env.get(url)) or _DEFAULT_URLS[url])
        except ValueError as error:
            problems.add(f"nodes[{index}].port", str(error))
            host, port = "127.0.0.1", 65534 + index
        nodes.append(
            {
                "name": name,
                "source": _absolute(env.get(source) or f"{root}/../../mule-{name}", cwd),
                "host": host,
                "port": port,
                "roles": [role],
            }
        )
    return nodes


def _without_none(node: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in node.items() if value is not None}


def parse_url(text: str) -> tuple[str, int]:
    """Split `127.0.0.1:17835`, with or without `http://`, into host and port.

    Raises:
        ValueError: The text is no such URL; the message says why.
    """
    rest = text.removesuffix("/")
    if rest[:7].lower() == "http://":
        rest = rest[7:]
    host, _, port = rest.rpartition(":")
    plain = port.isascii() and port.isdigit() and len(port) <= 5
    if not plain or not host or any(mark in host for mark in "/?#@"):
        why = f"cannot read a URL: expected 127.0.0.1:17835, got {show(text)}"
        raise ValueError(why)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return host, int(port)


def _absolute(path: str, cwd: str) -> str:
    return path if path.startswith("/") else f"{cwd.rstrip('/')}/{path}"
