"""The life of a run: one pure `advance` makes every transition.

The scheduler and the run's task feed it; each new state is one transaction of the store.
Every state but `Queued` and `Finished` carries an end by time (`deadline_of`): the run's task
sleeps until then and sends `TimedOut`.

A run that ends before its nodes exist still goes through `Stopping`, since its shim is a
process too and must be gone before its slot is free. Only a queued run ends at once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, assert_never, get_args

from soakd.core.gates import verdict
from soakd.core.model import WARMUP_TIMEOUT, Cause
from soakd.core.run_limits import CLEAN_UP_S, Limits
from soakd.core.run_types import (
    Aborted,
    AllReady,
    DeadlineReached,
    Event,
    Extended,
    Failed,
    Finished,
    LadderDone,
    NodeExited,
    NotWarm,
    Queued,
    RoundsDone,
    Running,
    SlotGranted,
    Soak,
    SoakAsked,
    Staged,
    Staging,
    Starting,
    State,
    StopAsked,
    Stopping,
    TimedOut,
    Warmed,
    Warming,
)
from soakd.core.transitions import IllegalTransition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from soakd.core.model import Result

__all__ = [
    "CLEAN_UP_S",
    "Aborted",
    "AllReady",
    "DeadlineReached",
    "Event",
    "Extended",
    "Failed",
    "Finished",
    "IllegalTransition",
    "LadderDone",
    "Limits",
    "NodeExited",
    "NotWarm",
    "Queued",
    "RoundsDone",
    "Running",
    "SlotGranted",
    "Soak",
    "SoakAsked",
    "Staged",
    "Staging",
    "Starting",
    "State",
    "StopAsked",
    "Stopping",
    "TimedOut",
    "Warmed",
    "Warming",
    "advance",
    "deadline_of",
    "from_dict",
    "latest_end",
    "name",
    "to_dict",
]


def advance(state: State, event: Event, now_s: float, limits: Limits) -> State:
    """Take one event and return the next state.

    A stop asked of a run that is ending or over is legal and changes nothing.

    Raises:
        IllegalTransition: The event cannot happen in this state.
    """
    match state:
        case Queued():
            return _from_queued(state, event, now_s, limits)
        case Staging() | Starting() | Warming() | Running():
            new = _from_live(state, event, now_s, limits)
            if isinstance(state, Running) and isinstance(new, Stopping):
                return replace(new, soak=state.soak)
            return new
        case Stopping():
            return _from_stopping(state, event)
        case Finished():
            if isinstance(event, StopAsked):
                return state
            raise IllegalTransition(state, event)
        case _:
            assert_never(state)


def name(state: State) -> str:
    """Return the state's word, as in the store and on the wire."""
    return type(state).__name__.lower()


def deadline_of(state: State) -> float | None:
    """Return when the state ends by itself; None only for queued and finished runs."""
    match state:
        case Queued() | Finished():
            return None
        case Staging() | Starting() | Warming() | Running() | Stopping():
            return state.until_s
        case _:
            assert_never(state)


def latest_end(state: State, limits: Limits) -> float | None:
    """Return when the run is over at the latest; None if that is not for time to say."""
    match state:
        case Queued() | Finished():
            return None
        case Staging():
            rest_s = limits.ready_s + limits.warmup_s + limits.running_s
        case Starting():
            rest_s = limits.warmup_s + limits.running_s
        case Warming():
            rest_s = limits.running_s
        case Running():
            rest_s = 0.0
        case Stopping():
            return state.until_s
        case _:
            assert_never(state)
    return state.until_s + rest_s + limits.stopping_s


def to_dict(state: State) -> dict[str, Any]:
    """Return plain data for the store; the times in it are of one boot only."""
    data: dict[str, Any] = {"state": name(state)}
    for field in type(state).__slots__:
        value = getattr(state, field)
        if isinstance(value, Cause):
            value = value.to_dict()
        elif isinstance(value, Soak):
            value = {name: getattr(value, name) for name in Soak.__slots__}
        data[field] = value
    return data


def from_dict(data: Mapping[str, Any]) -> State:
    """Read what `to_dict` wrote.

    Raises:
        ValueError: The data are of no state that this release knows.
    """
    kinds: dict[str, type[State]] = {kind.__name__.lower(): kind for kind in get_args(State)}
    kind = kinds.get(data.get("state", ""))
    if kind is None:
        text = f"cannot read the state of a run: unknown state {data.get('state')!r}"
        raise ValueError(text)
    fields = {field: data[field] for field in kind.__slots__ if field in data}
    if fields.get("cause") is not None:
        fields["cause"] = Cause.from_dict(fields["cause"])
    try:
        if fields.get("soak") is not None:
            fields["soak"] = Soak(**fields["soak"])
        return kind(**fields)
    except TypeError as error:
        text = f"cannot read the state of a run: {error}"
        raise ValueError(text) from error


def _from_queued(state: Queued, event: Event, now_s: float, limits: Limits) -> State:
    match event:
        case SlotGranted():
            return Staging(now_s + limits.staging_s)
        case StopAsked(who=who):
            return _finished("stopped", _stopped_by(who))
        case Failed(cause=cause):
            return _finished("failed", cause)
        case Aborted(cause=cause):
            return _finished("aborted", cause)
        case _:
            raise IllegalTransition(state, event)


def _from_live(
    state: Staging | Starting | Warming | Running, event: Event, now_s: float, limits: Limits
) -> State:
    if isinstance(event, Extended):
        return _extended(state, event)
    if isinstance(state, Running) and limits.keeps:
        kept = _from_kept(state, event, now_s, limits)
        if kept is not None:
            return kept
    ended = _ending(event, now_s, limits)
    if ended is not None:
        return ended
    return _onward(state, event, now_s, limits)


def _ending(event: Event, now_s: float, limits: Limits) -> Stopping | None:
    """Return the state after an event that ends a live run in any of its states."""
    until_s = now_s + limits.stopping_s
    match event:
        case StopAsked(who=who):
            return Stopping("stopped", _stopped_by(who), until_s)
        case Failed(cause=cause):
            return Stopping("failed", cause, until_s)
        case Aborted(cause=cause):
            return Stopping("aborted", cause, until_s)
        case _:
            return None


def _extended(state: Staging | Starting | Warming | Running, event: Extended) -> State:
    if not isinstance(state, Running):
        # Its rounds are still ahead: the new limits say how long they may take.
        return replace(state)
    if state.deadline_s is None:
        raise IllegalTransition(state, event)
    deadline_s = state.deadline_s + event.by_s
    soak = state.soak
    if soak is not None and soak.deadline_s == state.deadline_s:
        # It was cut at the run's end: now it has more of the time that it wanted.
        wanted_s = soak.keys.get("duration_s")
        own_s = deadline_s if wanted_s is None else min(soak.since_s + wanted_s, deadline_s)
        soak = replace(soak, deadline_s=own_s)
    return replace(state, deadline_s=deadline_s, until_s=state.until_s + event.by_s, soak=soak)


def _onward(
    state: Staging | Starting | Warming | Running, event: Event, now_s: float, limits: Limits
) -> State:
    until_s = now_s + limits.stopping_s
    match state, event:
        case Staging(), Staged():
            return Starting(now_s + limits.ready_s)
        case Starting(), AllReady():
            return Warming(now_s + limits.warmup_s)
        case Warming(), Warmed() | NotWarm() | TimedOut():
            return _after_warmup(event, now_s, limits)
        case Running(), Warmed() | NotWarm():
            # The last sample and the state's own time-out came at once: the time-out was first.
            return state
        case Starting() | Warming() | Running(), NodeExited(node=node, text=text):
            return Stopping("failed", Cause("node_exited", text, node), until_s)
        case Running(deadline_s=float()), DeadlineReached():
            return Stopping("completed", None, until_s)
        case Running(), RoundsDone():
            return Stopping("completed", None, until_s)
        case Staging() | Starting() | Running(), TimedOut(detail=detail):
            return Stopping("failed", _overdue(state, limits, detail), until_s)
        case _:
            raise IllegalTransition(state, event)


def _from_kept(
    state: Running, event: Event, now_s: float, limits: Limits
) -> Running | Stopping | None:
    """Return what an event comes to that means something else where nodes are kept."""
    match event:
        case SoakAsked(soak=soak) if state.soak is None:
            return replace(state, soak=soak)
        case RoundsDone() if state.soak is not None:
            return replace(state, soak=None)
        case DeadlineReached() if state.soak is not None and not _is_over(state, now_s):
            return replace(state, soak=None)
        case StopAsked(who=who) if state.soak is None:
            # This is how kept nodes end: what was measured on them is whole.
            return Stopping("completed", _stopped_by(who), now_s + limits.stopping_s)
        case RoundsDone():
            raise IllegalTransition(state, event)
        case _:
            return None


def _is_over(state: Running, now_s: float) -> bool:
    return state.deadline_s is not None and now_s >= state.deadline_s


def _after_warmup(
    event: Warmed | NotWarm | TimedOut, now_s: float, limits: Limits
) -> Running | Stopping:
    if isinstance(event, Warmed) or not limits.needs_warmth:
        # Out of patience is no reason to end: the rounds are marked and judged apart.
        return _running(now_s, limits, cold=not isinstance(event, Warmed))
    text = event.text if isinstance(event, NotWarm) else "the warm-up took too long"
    return Stopping("completed", Cause(WARMUP_TIMEOUT, text), now_s + limits.stopping_s)


def _from_stopping(state: Stopping, event: Event) -> State:
    match event:
        case LadderDone(verdict=ruling, why=why):
            return Finished(state.result, state.cause, ruling, why)
        case TimedOut():
            why = "cannot stop the run: processes are left after the last rung"
            return Finished(state.result, state.cause, "harness_error", why)
        case StopAsked() | NodeExited() | Failed() | Aborted():
            # The first reason stands: later ones are mostly consequences of the stop.
            return state
        case _:
            raise IllegalTransition(state, event)


def _running(now_s: float, limits: Limits, *, cold: bool) -> Running:
    deadline_s = None if limits.duration_s is None else now_s + limits.duration_s
    return Running(now_s, deadline_s, now_s + limits.running_s, cold)


def _finished(result: Result, cause: Cause) -> Finished:
    return Finished(result, cause, *verdict(result, cause, ()))


def _stopped_by(who: str) -> Cause:
    return Cause("stop_asked", f"stopped by {who}")


def _overdue(state: Staging | Starting | Running, limits: Limits, detail: str) -> Cause:
    match state:
        case Staging():
            text = f"cannot stage the nodes: not done after {limits.staging_s:g} s"
            return Cause("staging_timeout", text)
        case Starting():
            text = f"cannot start the rounds: nodes not ready after {limits.ready_s:g} s"
            text += f"; the last answers: {detail}" if detail else ""
            return Cause("ready_timeout", text)
        case Running():
            text = f"cannot go on: the rounds took longer than {limits.running_s:g} s"
            return Cause("overrun", text)
        case _:
            assert_never(state)
