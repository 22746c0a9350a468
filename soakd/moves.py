"""What goes with the moves of a run from state to state, besides `core.run_state.advance`."""

from __future__ import annotations

from dataclasses import replace

from soakd.core import run_state
from soakd.core.errors import UserError
from soakd.core.plan import Plan
from soakd.core.rounds import Cut, NodeDown
from soakd.core.run_state import Limits
from soakd.edge.clock import rfc3339, wall_now

TAKE_UP_S = 60.0
"""What a state is given at least when an earlier soakd's run is taken up."""


def longer(plan: Plan, by_s: float) -> Plan:
    """The plan of a run whose rounds may start for so much longer."""
    assert plan.duration_s is not None, "a run without a deadline was extended"
    return replace(plan, duration_s=plan.duration_s + by_s)


def not_longer(run_id: int, state: str) -> UserError:
    """Why a run cannot be extended; `state` is its state's name."""
    why = f"it is {state}; start it again with `soakctl start --again r{run_id}`"
    if state not in ("stopping", "finished"):
        why = "it has no deadline, its number of rounds ends it; start another run for more"
    return UserError("refused", f"cannot extend r{run_id}: {why}")


def dated(state: run_state.State) -> run_state.State:
    """The state with a time on its cause."""
    if isinstance(state, run_state.Stopping | run_state.Finished):
        cause = state.cause
        if cause is not None and cause.at is None:
            return replace(state, cause=replace(cause, at=rfc3339(wall_now())))
    return state


def with_time_left(state: run_state.State, now_s: float, limits: Limits) -> run_state.State:
    """A state of the store as it is taken up: soakd's own absence must not time it out."""
    match state:
        case run_state.Stopping():
            return replace(state, until_s=now_s + limits.stopping_s)
        case run_state.Running() | run_state.Staging() | run_state.Starting():
            return replace(state, until_s=max(state.until_s, now_s + TAKE_UP_S))
        case _:
            return state


def interruption(stopping: run_state.Stopping) -> Cut | NodeDown:
    """How the round under way is ended when the run begins to stop."""
    cause = stopping.cause
    if cause is not None and cause.code == "node_exited" and cause.node is not None:
        return NodeDown(cause.node)
    return Cut("stop" if stopping.result == "stopped" else stopping.result)
