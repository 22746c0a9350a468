"""The life of one node process, as `status` shows it.

The run's task feeds it with what the shim and the readiness polls say. Whether all nodes
together are ready is decided in `soakd.core.readiness`.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any, TypeAlias, assert_never

from soakd.core.transitions import IllegalTransition

__all__ = [
    "Answers503",
    "Attached",
    "Exited",
    "Gone",
    "IllegalTransition",
    "Launched",
    "NodeEvent",
    "NodeState",
    "Ours",
    "Ready",
    "Turned200",
    "Warm",
    "advance",
    "exit_text",
    "name",
    "public_node",
]


@dataclass(frozen=True, slots=True)
class Launched:
    """Executing; its API has not answered yet."""

    pid: int
    ticks: int


@dataclass(frozen=True, slots=True)
class Warm:
    """Its API answers 503."""

    pid: int
    ticks: int


@dataclass(frozen=True, slots=True)
class Ready:
    """Its API has answered 200 once; later trouble is an event, not a state."""

    pid: int
    ticks: int
    since_s: float


@dataclass(frozen=True, slots=True)
class Exited:
    """Gone by exit status or by signal; neither is known if its shim was gone before it."""

    pid: int
    code: int | None
    signal: int | None
    at_s: float


@dataclass(frozen=True, slots=True)
class Attached:
    """Somebody else's process: that it answers is all that is known of it, and it never ends."""


Ours: TypeAlias = Launched | Warm | Ready | Exited
"""States of a node that is executed here: each has its pid."""

NodeState: TypeAlias = Attached | Ours


@dataclass(frozen=True, slots=True)
class Answers503:
    """The API is up, the node warms up."""


@dataclass(frozen=True, slots=True)
class Turned200:
    """The node is ready."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The shim reaped the node."""

    code: int | None
    signal: int | None


NodeEvent: TypeAlias = Answers503 | Turned200 | Gone


def advance(state: NodeState, event: NodeEvent, now_s: float) -> NodeState:
    """Take one event.

    Raises:
        IllegalTransition: The node is gone already, or its end is nobody's news.
    """
    if isinstance(state, Exited) or (isinstance(state, Attached) and isinstance(event, Gone)):
        raise IllegalTransition(state, event)
    if isinstance(state, Attached):
        return state
    match event:
        case Answers503():
            return state if isinstance(state, Ready) else Warm(state.pid, state.ticks)
        case Turned200():
            return state if isinstance(state, Ready) else Ready(state.pid, state.ticks, now_s)
        case Gone(code=code, signal=number):
            return Exited(state.pid, code, number, now_s)
        case _:
            assert_never(event)


def name(state: NodeState) -> str:
    """Return the state's word, as on the wire."""
    return type(state).__name__.lower()


def exit_text(code: int | None, number: int | None) -> str:
    """Return how a node ended, such as `exit status 1` or `SIGKILL`."""
    if number is None:
        return "unknown exit" if code is None else f"exit status {code}"
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def public_node(node: str, state: NodeState | None) -> dict[str, Any]:
    """Return the node's entry in `soakctl status --json`; None is a node not launched yet."""
    if state is None:
        return {"name": node, "pid": None, "state": "staged", "exit": None}
    if isinstance(state, Attached):
        return {"name": node, "pid": None, "state": name(state), "exit": None}
    if isinstance(state, Exited):
        ended = {"code": state.code, "signal": state.signal}
        return {"name": node, "pid": None, "state": name(state), "exit": ended}
    return {"name": node, "pid": state.pid, "state": name(state), "exit": None}
