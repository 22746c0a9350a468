"""A round: a pure machine that says what to do next.

The driver loop is `do = todo(state)`, carry it out, `state = advance(state, event, now_s)`,
until `do` is `Finished`. The machine exists because a stop, a dead node or a failed call may
come in any step, and because `late` against `miss` must be decided in one place.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, assert_never

from soakd.core.round_states import (
    DatingReading,
    DecidingReading,
    Done,
    EarlyReading,
    OpenRound,
    Publishing,
    Rechecking,
    Record,
    RoundState,
    Searching,
    Snapshotting,
    WaitingPublish,
    WaitingRecheck,
    WaitingSearch,
)
from soakd.core.round_types import (
    Answered,
    CallFailed,
    Cut,
    DatingRead,
    DecidingRead,
    Do,
    EarlyRead,
    Event,
    Finished,
    NodeDown,
    NodeIdle,
    Publish,
    RoundResult,
    RoundSpec,
    Search,
    SleepUntil,
    TakeSnapshots,
    Woke,
)
from soakd.core.transitions import IllegalTransition

if TYPE_CHECKING:
    from soakd.core.model import Outcome

__all__ = [
    "Answered",
    "CallFailed",
    "Cut",
    "DatingRead",
    "DecidingRead",
    "Do",
    "EarlyRead",
    "Event",
    "Finished",
    "IllegalTransition",
    "NodeDown",
    "NodeIdle",
    "Publish",
    "RoundResult",
    "RoundSpec",
    "RoundState",
    "Search",
    "SleepUntil",
    "TakeSnapshots",
    "WaitingRecheck",
    "Woke",
    "advance",
    "begin",
    "phase",
    "todo",
]


_PHASES = {
    Publishing: "publish",
    WaitingPublish: "wait_publish",
    EarlyReading: "early_read",
    Searching: "search",
    WaitingSearch: "wait_search",
    DatingReading: "dating_read",
    DecidingReading: "read",
    WaitingRecheck: "wait_recheck",
    Rechecking: "recheck",
    Snapshotting: "snapshot",
    Done: "finished",
}


def begin(spec: RoundSpec, now_s: float) -> RoundState:
    """Return the first state of a round that starts now."""
    if spec.published_s is not None:
        return EarlyReading(Record(spec, started_at_s=now_s, publish_at_s=spec.published_s))
    return Publishing(Record(spec, started_at_s=now_s))


def phase(state: RoundState) -> str:
    """Return the name of the step under way, as `status` shows it."""
    return _PHASES[type(state)]


def todo(state: RoundState) -> Do:  # noqa: C901, PLR0911  (one case for each state)
    """Return what the driver has to do now."""
    match state:
        case Publishing():
            return Publish()
        case EarlyReading():
            return EarlyRead()
        case Searching():
            return Search()
        case DatingReading():
            return DatingRead()
        case DecidingReading():
            return DecidingRead()
        case Rechecking(attempt=attempt):
            return DecidingRead(attempt)
        case Snapshotting(outcome=outcome):
            return TakeSnapshots(outcome == "miss")
        case WaitingPublish(until_s=until_s) | WaitingRecheck(until_s=until_s):
            return SleepUntil(until_s)
        case WaitingSearch(until_s=until_s, dating_at_s=dating_at_s):
            return SleepUntil(until_s if dating_at_s is None else dating_at_s)
        case Done(result=result):
            return Finished(result)
        case _:
            assert_never(state)


def advance(state: RoundState, event: Event, now_s: float) -> RoundState:
    """Take one event.

    Raises:
        IllegalTransition: The event cannot happen in this state.
    """
    if isinstance(state, Done):
        raise IllegalTransition(state, event)
    match event:
        case Answered():
            return _answered(state, event, now_s)
        case CallFailed():
            return _call_failed(state, event, now_s)
        case Woke():
            return _woke(state, event, now_s)
        case Cut(why=why):
            return _ended(state, "skipped", f"cut:{why}", None, now_s)
        case NodeDown(node=node):
            error = (phase(state), f"node {node} is down")
            return _ended(state, "error", f"node_down:{node}", error, now_s)
        case NodeIdle():
            return _idle(state, event, now_s)
        case _:
            assert_never(event)


def _answered(state: OpenRound, event: Answered, now_s: float) -> RoundState:
    match state:
        case Publishing(record=record):
            record = replace(record, publish_body=event.body, publish_at_s=now_s)
            wait_s = record.spec.wait_publish_s
            return WaitingPublish(record, now_s + wait_s) if wait_s > 0 else EarlyReading(record)
        case EarlyReading(record=record):
            record = _seen(record, event.sources, now_s)
            return Searching(replace(record, prestored=bool(event.sources)))
        case Searching(record=record):
            record = replace(record, search_body=event.body)
            return _wait_search(record, now_s + record.spec.wait_search_s, now_s)
        case DatingReading(record=record, until_s=until_s):
            if event.sources and record.spec.first_sight_decides:
                return _decided(record, event, 0, now_s)
            return _wait_search(_seen(record, event.sources, now_s), until_s, now_s)
        case DecidingReading(record=record):
            return _decided(record, event, 0, now_s)
        case Rechecking(record=record, attempt=attempt):
            return _decided(record, event, attempt, now_s)
        case Snapshotting(record=record, outcome=outcome, error=error):
            return Done(_result(record, outcome, None, error, now_s))
        case WaitingPublish() | WaitingSearch() | WaitingRecheck():
            raise IllegalTransition(state, event)
        case _:
            assert_never(state)


def _call_failed(state: OpenRound, event: CallFailed, now_s: float) -> RoundState:
    step, text = phase(state), event.text
    match state:
        case Publishing(record=record):
            return Snapshotting(replace(record, publish_body=event.body), "error", (step, text))
        case Searching(record=record):
            return Snapshotting(replace(record, search_body=event.body), "error", (step, text))
        case DecidingReading(record=record) | Rechecking(record=record):
            # The body of a failed read is no final read: half an answer may look like a hit.
            return Snapshotting(record, "error", (step, text))
        case EarlyReading(record=record):
            return Searching(_noted(record, step, text))
        case DatingReading(record=record, until_s=until_s):
            return _wait_search(_noted(record, step, text), until_s, now_s)
        case Snapshotting(record=record, outcome=outcome, error=error):
            return Done(_result(_noted(record, step, text), outcome, None, error, now_s))
        case WaitingPublish() | WaitingSearch() | WaitingRecheck():
            raise IllegalTransition(state, event)
        case _:
            assert_never(state)


def _idle(state: OpenRound, event: NodeIdle, now_s: float) -> RoundState:
    """A miss says something of the network only if both nodes did their part."""
    if not isinstance(state, Snapshotting) or state.outcome != "miss":
        raise IllegalTransition(state, event)
    error = (phase(state), event.text)
    return Done(_result(state.record, "error", f"node_idle:{event.node}", error, now_s))


def _woke(state: OpenRound, event: Woke, now_s: float) -> RoundState:
    match state:
        case WaitingPublish(record=record, until_s=until_s):
            return EarlyReading(record) if now_s >= until_s else state
        case WaitingRecheck(record=record, attempt=attempt, until_s=until_s):
            return _recheck(record, attempt) if now_s >= until_s else state
        case WaitingSearch(record=record, until_s=until_s, dating_at_s=dating_at_s):
            if now_s >= until_s:
                return DecidingReading(record)
            if dating_at_s is not None and now_s >= dating_at_s:
                return DatingReading(record, until_s)
            return state
        case (
            Publishing()
            | EarlyReading()
            | Searching()
            | DatingReading()
            | DecidingReading()
            | Rechecking()
            | Snapshotting()
        ):
            raise IllegalTransition(state, event)
        case _:
            assert_never(state)


def _wait_search(record: Record, until_s: float, now_s: float) -> RoundState:
    """Wait on for the search, with a dating read if the file is still unseen."""
    is_decided = record.spec.first_sight_decides and record.first_seen_s is not None
    if now_s >= until_s or is_decided:
        return DecidingReading(record)
    every_s = record.spec.read_every_s
    dating_at_s = now_s + every_s
    # The deciding read dates as well, so a dating read at its very instant is left out.
    if every_s > 0 and record.first_seen_s is None and dating_at_s < until_s:
        return WaitingSearch(record, until_s, dating_at_s)
    return WaitingSearch(record, until_s, None)


def _decided(record: Record, event: Answered, attempt: int, now_s: float) -> RoundState:
    record = replace(_seen(record, event.sources, now_s), final_body=event.body)
    if event.sources:
        return Snapshotting(record, "late" if attempt else "hit", None)
    if attempt >= record.spec.recheck_attempts:
        return Snapshotting(record, "miss", None)
    delay_s = record.spec.recheck_delay_s
    if delay_s > 0:
        return WaitingRecheck(record, attempt + 1, now_s + delay_s)
    return _recheck(record, attempt + 1)


def _recheck(record: Record, attempt: int) -> RoundState:
    return Rechecking(replace(record, rechecks=attempt), attempt)


def _seen(record: Record, sources: tuple[str, ...], now_s: float) -> Record:
    if not sources:
        return record
    first_seen_s = record.first_seen_s
    if first_seen_s is None and record.publish_at_s is not None:
        first_seen_s = now_s - record.publish_at_s
    return replace(record, source_ids=sources, first_seen_s=first_seen_s)


def _noted(record: Record, step: str, text: str) -> Record:
    return replace(record, notes=(*record.notes, (step, text)))


def _ended(
    state: OpenRound, outcome: Outcome, cause: str, error: tuple[str, str] | None, now_s: float
) -> RoundState:
    """End the round from outside; what is classified already stays classified."""
    if isinstance(state, Snapshotting):
        record = _noted(state.record, phase(state), cause)
        return Done(_result(record, state.outcome, None, state.error, now_s))
    return Done(_result(state.record, outcome, cause, error, now_s))


def _result(
    record: Record,
    outcome: Outcome,
    cause: str | None,
    error: tuple[str, str] | None,
    now_s: float,
) -> RoundResult:
    return RoundResult(
        spec=record.spec,
        outcome=outcome,
        cause=cause,
        prestored=record.prestored,
        source_ids=record.source_ids,
        first_seen_s=record.first_seen_s,
        rechecks=record.rechecks,
        error=error,
        notes=record.notes,
        publish_body=record.publish_body,
        search_body=record.search_body,
        final_body=record.final_body,
        publish_at_s=record.publish_at_s,
        started_at_s=record.started_at_s,
        ended_at_s=now_s,
    )
