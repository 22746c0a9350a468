"""The methods of the wire: who may call them and what they take.

`METHODS` is the only list of methods; the server checks access and parameters from it and a test
holds `docs/protocol.md` against it. What comes back is in `results`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from soakd.wire.errors import WireError

PROTOCOL_MAJOR = 1
PROTOCOL_MINOR = 0

Access: TypeAlias = Literal["any", "member", "owner", "admin"]
"""any: who can connect; member: root or in group soak; owner: the named run's, or admin; admin:
root or in soak-admin as well."""


class Param(NamedTuple):
    """One parameter: accepted types (also None when not required), and the range of an integer."""

    types: tuple[type, ...]
    required: bool = False
    minimum: int = 0
    maximum: int = (1 << 63) - 1


class Method(NamedTuple):
    """One method; with `stream`, notifications come first and the response last."""

    access: Access
    params: dict[str, Param]
    stream: bool = False


_RUN = Param((str,))
_NAMED_RUN = Param((str,), required=True)

METHODS: dict[str, Method] = {
    "hello": Method(
        "any", {"client": Param((str,), required=True), "protocol": Param((int,), required=True)}
    ),
    "run.start": Method(
        "member", {"plan": Param((dict,), required=True), "sha256": Param((dict,))}
    ),
    "run.list": Method("member", {"all": Param((bool,))}),
    "run.status": Method("member", {"run": _RUN}),
    "run.stop": Method("owner", {"run": _RUN}),
    "run.watch": Method("member", {"run": _RUN, "after": Param((int,))}, stream=True),
    "run.logs": Method(
        "owner",
        {
            "run": _RUN,
            "node": Param((str,)),
            "answers": Param((bool,)),
            "follow": Param((bool,)),
            "tail": Param((int,), maximum=1_000_000),
        },
        stream=True,
    ),
    "run.collect": Method(
        "owner",
        {"run": _RUN, "full": Param((bool,)), "keep_destinations": Param((bool,))},
        stream=True,
    ),
    "run.plan": Method("owner", {"run": _RUN}),
    "run.flows": Method("owner", {"run": _RUN}),
    "run.soak": Method("owner", {"run": _RUN, "soak": Param((dict,), required=True)}),
    "run.extend": Method(
        "owner",
        {
            "run": _NAMED_RUN,
            "by_s": Param((int,), required=True, minimum=1),
            "dry_run": Param((bool,)),
        },
    ),
    "run.label": Method("owner", {"run": _NAMED_RUN, "label": Param((str,))}),
    "run.forget": Method("admin", {"run": _NAMED_RUN}),
    "queue.list": Method("member", {}),
    "queue.hold": Method("owner", {"run": _NAMED_RUN}),
    "queue.release": Method("owner", {"run": _NAMED_RUN}),
    "queue.top": Method("admin", {"run": _NAMED_RUN}),
    "daemon.info": Method("member", {}),
    "daemon.drain": Method("admin", {}),
    "daemon.resume": Method("admin", {}),
    "daemon.shutdown": Method("admin", {}),
}

NOTIFICATIONS: tuple[str, ...] = ("run.event", "run.log", "run.chunk", "bye")
"""What the server sends unasked; `bye` carries an error map: the server ends the connection."""


PUBLIC_RUN_KEYS: tuple[str, ...] = (
    "id",
    "owner",
    "label",
    "state",
    "created_at",
    "started_at",
    "ended_at",
    "reason",
)


def format_run_id(number: int) -> str:
    """Return the name of a run on the wire and on the command line."""
    return f"r{number}"


def parse_run_id(text: str) -> int | None:
    """Return the number in `r7`, or None if the text is no run id (SQLite ids fit in 63 bits)."""
    digits = text[1:]
    is_number = digits.isascii() and digits.isdigit() and len(digits) <= 18
    if text[:1] != "r" or not is_number or digits[0] == "0":
        return None
    return int(digits)


def check_params(method_name: str, params: dict[str, object]) -> None:
    """Check parameters against `METHODS`, all problems together.

    Raises:
        WireError: `unknown_method`, or `bad_params` with `details.problems`.
    """
    method = METHODS.get(method_name)
    if method is None:
        raise WireError(
            "unknown_method", f"cannot call {method_name!r}: this soakd has no such method"
        )
    problems = [f"{name}: unknown parameter" for name in params if name not in method.params]
    for name, param in method.params.items():
        problem = _problem(param, params.get(name))
        if problem is not None:
            problems.append(f"{name}: {problem}")
    if problems:
        raise WireError(
            "bad_params",
            f"cannot call {method_name}: {'; '.join(problems)}",
            {"problems": problems},
        )


def _problem(param: Param, value: object) -> str | None:
    if value is None:
        return "missing" if param.required else None
    # bool is an int in Python, not on the wire.
    if type(value) not in param.types:
        wanted = " or ".join(_WIRE_NAMES[kind] for kind in param.types)
        return f"must be {wanted}, got {_WIRE_NAMES[type(value)]}"
    if type(value) is int and not param.minimum <= value <= param.maximum:
        return f"must be in [{param.minimum}, {param.maximum}], got {value}"
    return None


_WIRE_NAMES: dict[type, str] = {
    str: "a text",
    int: "an integer",
    bool: "a boolean",
    float: "a number",
    bytes: "bytes",
    dict: "a map",
    list: "an array",
}
