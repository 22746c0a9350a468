"""The life of a run: every state, every event, and a way out of each by time."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import get_args

import pytest

from soakd.core import run_state
from soakd.core.model import Cause
from soakd.core.plan import Plan, longest_round_s
from soakd.core.run_state import (
    CLEAN_UP_S,
    Aborted,
    AllReady,
    DeadlineReached,
    Event,
    Extended,
    Failed,
    Finished,
    IllegalTransition,
    LadderDone,
    Limits,
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
from tests.core.helpers import make_plan

LIMITS = Limits(
    staging_s=600.0,
    ready_s=1200.0,
    warmup_s=90.0,
    duration_s=7200.0,
    running_s=7400.0,
    stopping_s=25.0,
)
CAUSE = Cause("disk_full", "cannot write the record: no space left", None, "2026-11-22T17:00:00Z")
SOAK = Soak(2, 500, {"rounds": 3}, since_s=50.0, deadline_s=7200.0, gap_s=1.0, panics=1)
STATES: list[State] = [
    Queued(),
    Staging(10.0),
    Starting(10.0),
    Warming(10.0),
    Running(0.0, 7200.0, 7400.0),
    Stopping("completed", None, 10.0),
    Finished("stopped", CAUSE, "aborted", "stopped by alice"),
]
EVENTS: list[Event] = [
    SlotGranted(),
    Staged(),
    AllReady(),
    Warmed(),
    NotWarm("not warm"),
    DeadlineReached(),
    RoundsDone(),
    SoakAsked(SOAK),
    StopAsked("alice"),
    Extended(60.0),
    NodeExited("b", "exit status 1"),
    Failed(CAUSE),
    Aborted(CAUSE),
    TimedOut(),
    LadderDone("passed", "all gates hold"),
]
ENDS = {"StopAsked": "stopping", "Failed": "stopping", "Aborted": "stopping"}
LEGAL: dict[str, dict[str, str]] = {
    "queued": {
        "SlotGranted": "staging",
        "StopAsked": "finished",
        "Failed": "finished",
        "Aborted": "finished",
    },
    "staging": {"Staged": "starting", "Extended": "staging", "TimedOut": "stopping", **ENDS},
    "starting": {
        "AllReady": "warming",
        "Extended": "starting",
        "NodeExited": "stopping",
        "TimedOut": "stopping",
        **ENDS,
    },
    "warming": {
        "Warmed": "running",
        "NotWarm": "running",
        "Extended": "warming",
        "TimedOut": "running",
        "NodeExited": "stopping",
        **ENDS,
    },
    "running": {
        "DeadlineReached": "stopping",
        "RoundsDone": "stopping",
        "Warmed": "running",
        "NotWarm": "running",
        "Extended": "running",
        "NodeExited": "stopping",
        "TimedOut": "stopping",
        **ENDS,
    },
    "stopping": {
        "LadderDone": "finished",
        "TimedOut": "finished",
        "NodeExited": "stopping",
        **ENDS,
    },
    "finished": {"StopAsked": "finished"},
}


def _advance(state: State, *events: Event, now_s: float = 100.0) -> State:
    for event in events:
        state = run_state.advance(state, event, now_s, LIMITS)
    return state


def test_the_pairs_below_cover_every_state_and_event() -> None:
    """A new state or event must be entered in the table of legal pairs."""
    assert {type(state) for state in STATES} == set(get_args(State))
    assert {type(event) for event in EVENTS} == set(get_args(Event))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("state", STATES, ids=run_state.name)
def test_every_pair_is_legal_or_refused(state: State, event: Event) -> None:
    """Legal pairs lead where the table says; the rest raise."""
    wanted = LEGAL[run_state.name(state)].get(type(event).__name__)
    if wanted is None:
        with pytest.raises(IllegalTransition):
            _advance(state, event)
    else:
        assert run_state.name(_advance(state, event)) == wanted


@pytest.mark.parametrize("state", STATES, ids=run_state.name)
def test_every_state_but_the_ends_leaves_by_time(state: State) -> None:
    """Only a queued run waits without a time; all others move when `TimedOut` comes."""
    if isinstance(state, Queued | Finished):
        assert run_state.deadline_of(state) is None
        return
    assert run_state.deadline_of(state) is not None
    assert _advance(state, TimedOut()) != state


def test_an_extension_moves_the_deadline_and_the_end() -> None:
    """Before the rounds began there is none to move: the new limits have it; a count has none."""
    longer = _advance(Running(5.0, 7205.0, 7405.0, cold=True), Extended(60.0))
    assert longer == Running(5.0, 7265.0, 7465.0, cold=True)
    assert _advance(Staging(10.0), Extended(60.0)) == Staging(10.0)
    with pytest.raises(IllegalTransition):
        _advance(Running(5.0, None, 7405.0), Extended(60.0))


@pytest.mark.parametrize(
    ("state", "end_s"),
    [
        (Staging(10.0), 10.0 + 1200.0 + 90.0 + 7400.0 + 25.0),
        (Starting(10.0), 10.0 + 90.0 + 7400.0 + 25.0),
        (Warming(10.0), 10.0 + 7400.0 + 25.0),
        (Running(0.0, 7200.0, 7400.0), 7425.0),
        (Stopping("completed", None, 10.0), 10.0),
        (Queued(), None),
        (Finished("stopped", CAUSE, "aborted", "stopped by alice"), None),
    ],
)
def test_the_latest_end_counts_all_that_is_ahead(state: State, end_s: float | None) -> None:
    """As if every state ahead took as long as it may."""
    assert run_state.latest_end(state, LIMITS) == end_s
    assert LIMITS.all_s == 600.0 + 1200.0 + 90.0 + 7400.0 + 25.0


def test_a_run_to_its_deadline_completes() -> None:
    """Each state gets its own end, and the duration counts from the first round."""
    state = _advance(Queued(), SlotGranted(), now_s=0.0)
    assert state == Staging(600.0)
    state = _advance(state, Staged(), now_s=5.0)
    assert state == Starting(1205.0)
    state = _advance(state, AllReady(), now_s=200.0)
    assert state == Warming(290.0)
    state = _advance(state, Warmed(), now_s=210.0)
    assert state == Running(210.0, 7410.0, 7610.0, cold=False)
    state = _advance(state, DeadlineReached(), now_s=7420.0)
    assert state == Stopping("completed", None, 7445.0)
    assert _advance(state, LadderDone("passed", "all 5 gates hold")) == Finished(
        "completed", None, "passed", "all 5 gates hold"
    )


def test_a_warm_up_that_times_out_goes_on_cold() -> None:
    """The rounds are made all the same, and marked."""
    assert _advance(Warming(10.0), TimedOut()) == Running(100.0, 7300.0, 7500.0, cold=True)


def test_a_run_by_rounds_has_no_deadline_but_an_end() -> None:
    """`DeadlineReached` is impossible there, `TimedOut` is not."""
    limits = Limits.of(make_plan(duration_s=None, rounds=10))
    state = run_state.advance(Warming(10.0), Warmed(), 0.0, limits)
    round_s = longest_round_s(make_plan())
    assert state == Running(0.0, None, 11 * round_s)
    with pytest.raises(IllegalTransition):
        run_state.advance(state, DeadlineReached(), 1.0, limits)


def test_a_run_that_wants_no_cold_rounds_ends_when_the_warm_up_is_over() -> None:
    """Nobody is to blame: the result is `completed`, the cause says what was seen last."""
    limits = replace(LIMITS, needs_warmth=True)
    ended = run_state.advance(Warming(10.0), NotWarm("A live=0"), 100.0, limits)
    assert ended == Stopping("completed", Cause("warmup_timeout", "A live=0"), 125.0)
    hung = run_state.advance(Warming(10.0), TimedOut(), 100.0, limits)
    text = "the warm-up took too long"
    assert hung == Stopping("completed", Cause("warmup_timeout", text), 125.0)
    assert isinstance(run_state.advance(Warming(10.0), Warmed(), 1.0, limits), Running)
    plan = make_plan(warmup=["live > 0"], warmup_on_timeout="end")
    assert Limits.of(plan).needs_warmth
    assert not Limits.of(make_plan(warmup_on_timeout="end")).needs_warmth


def test_limits_follow_from_the_plan() -> None:
    """Running includes one whole round after the deadline; stopping the ladder's tail."""
    plan: Plan = make_plan(duration_s=60.0, stop_grace_s=4.0, staging_timeout_s=30.0)
    limits = Limits.of(plan)
    assert (limits.staging_s, limits.ready_s, limits.warmup_s) == (30.0, 1200.0, 5.0)
    assert (limits.duration_s, limits.stopping_s) == (60.0, 19.0 + CLEAN_UP_S)
    assert limits.running_s == 60.0 + longest_round_s(plan)


def test_a_stop_names_who_asked() -> None:
    """The cause says by whom, in a live and in a queued run."""
    cause = Cause("stop_asked", "stopped by alice")
    assert _advance(Starting(10.0), StopAsked("alice")) == Stopping("stopped", cause, 125.0)
    assert _advance(Queued(), StopAsked("alice")) == Finished(
        "stopped", cause, "aborted", "stopped by alice"
    )


def test_a_node_exit_fails_the_run_and_names_the_node() -> None:
    """The cause is the node's, so that the verdict will be `failed`."""
    state = _advance(Running(0.0, None, 9.0), NodeExited("b", "exit status 1"))
    assert state == Stopping("failed", Cause("node_exited", "exit status 1", "b"), 125.0)


@pytest.mark.parametrize(
    ("state", "code", "text"),
    [
        (Staging(10.0), "staging_timeout", "cannot stage the nodes: not done after 600 s"),
        (Starting(10.0), "ready_timeout", "nodes not ready after 1200 s"),
        (Running(0.0, None, 9.0), "overrun", "the rounds took longer than 7400 s"),
    ],
)
def test_a_state_that_times_out_says_how_long_it_had(state: State, code: str, text: str) -> None:
    """The cause names the limit that was exceeded."""
    ended = _advance(state, TimedOut())
    assert isinstance(ended, Stopping)
    assert ended.result == "failed"
    assert ended.cause is not None
    assert ended.cause.code == code
    assert text in ended.cause.text


@pytest.mark.parametrize(
    "event", [StopAsked("bob"), Failed(CAUSE), Aborted(CAUSE), NodeExited("a", "SIGINT")]
)
def test_the_first_reason_to_stop_stands(event: Event) -> None:
    """What comes while stopping is a consequence, not a new result."""
    state = Stopping("completed", None, 10.0)
    assert _advance(state, event) is state


def test_a_finished_run_is_never_overwritten() -> None:
    """A later stop is accepted and changes nothing."""
    state = Finished("completed", None, "passed", "all 5 gates hold")
    assert _advance(state, StopAsked("alice")) is state


def test_a_ladder_that_does_not_end_is_the_hosts_failure() -> None:
    """The result stays what it was; the verdict is not the node's."""
    state = _advance(Stopping("completed", None, 10.0), TimedOut())
    assert isinstance(state, Finished)
    assert (state.result, state.verdict) == ("completed", "harness_error")


def test_a_queued_run_that_fails_is_judged_at_once() -> None:
    """There is nothing to stop, hence no ladder."""
    assert _advance(Queued(), Failed(CAUSE)) == Finished(
        "failed", CAUSE, "harness_error", CAUSE.text
    )
    assert _advance(Queued(), Aborted(CAUSE)) == Finished("aborted", CAUSE, "aborted", CAUSE.text)


@pytest.mark.parametrize("state", STATES, ids=run_state.name)
def test_states_survive_the_store(state: State) -> None:
    """What is written as JSON reads back equal."""
    data = json.loads(json.dumps(run_state.to_dict(state)))
    assert data["state"] == run_state.name(state)
    assert run_state.from_dict(data) == state


@pytest.mark.parametrize("data", [{}, {"state": "paused"}, {"state": "staging"}])
def test_a_state_of_another_release_is_refused(data: dict[str, str]) -> None:
    """Unknown or incomplete states raise instead of being guessed."""
    with pytest.raises(ValueError, match="cannot read the state of a run"):
        run_state.from_dict(data)


# -- kept nodes --------------------------------------------------------------------------------

KEPT = replace(LIMITS, keeps=True)
IDLE = Running(0.0, 7200.0, 7400.0)
BUSY = replace(IDLE, soak=SOAK)


def _kept(state: State, event: Event, now_s: float = 100.0) -> State:
    return run_state.advance(state, event, now_s, KEPT)


def test_kept_nodes_are_used_and_idle_again() -> None:
    """By the number of rounds, or by the soak's own time."""
    assert _kept(IDLE, SoakAsked(SOAK)) == BUSY
    assert _kept(BUSY, RoundsDone()) == IDLE
    assert _kept(BUSY, DeadlineReached()) == IDLE


def test_the_end_of_the_run_ends_a_soak_and_the_run() -> None:
    """Whoever notices it; without a soak it is the end as well."""
    ended = Stopping("completed", None, 7225.0)
    assert _kept(BUSY, DeadlineReached(), 7200.0) == replace(ended, soak=SOAK)
    assert _kept(IDLE, DeadlineReached(), 7200.0) == ended


def test_whatever_ends_a_run_in_a_soak_leaves_the_soak_to_be_judged() -> None:
    """So that a soakd that takes over a run that is stopping can still do it."""
    for event in (NodeExited("b", "exit status 1"), Failed(CAUSE), Aborted(CAUSE), TimedOut()):
        new = _kept(BUSY, event)
        assert isinstance(new, Stopping)
        assert new.soak == SOAK
        stored = json.loads(json.dumps(run_state.to_dict(new)))
        assert run_state.from_dict(stored) == new
        del stored["soak"]
        assert run_state.from_dict(stored) == replace(new, soak=None)


def test_stopping_nodes_that_idle_is_how_such_a_run_ends() -> None:
    """In the middle of a soak it cuts something off."""
    cause = Cause("stop_asked", "stopped by alice")
    assert _kept(IDLE, StopAsked("alice")) == Stopping("completed", cause, 125.0)
    assert _kept(BUSY, StopAsked("alice")) == Stopping("stopped", cause, 125.0, SOAK)


def test_one_soak_at_a_time_and_only_on_kept_nodes() -> None:
    """A second one, and rounds that nobody asked for, are bugs."""
    for state, event in ((BUSY, SoakAsked(SOAK)), (IDLE, RoundsDone())):
        with pytest.raises(IllegalTransition):
            _kept(state, event)
    with pytest.raises(IllegalTransition):
        _advance(IDLE, SoakAsked(SOAK))
    assert Limits.of(make_plan(no_rounds=True)).keeps


@pytest.mark.parametrize(
    ("keys", "soak_ends_s", "then_s"),
    [
        ({"rounds": 9}, 7200.0, 7300.0),
        ({"duration_s": 7150}, 7200.0, 7250.0),
        ({"duration_s": 9000}, 7200.0, 7300.0),
        ({"duration_s": 60}, 160.0, 160.0),
    ],
)
def test_a_soak_that_the_runs_end_cuts_is_extended_with_the_run(
    keys: dict[str, float], soak_ends_s: float, then_s: float
) -> None:
    """By no more than it wanted; the others keep their time."""
    busy = replace(IDLE, soak=Soak(1, 0, keys, 100.0, soak_ends_s))
    longer = _kept(busy, Extended(100.0))
    assert isinstance(longer, Running)
    assert longer.soak is not None
    assert (longer.deadline_s, longer.soak.deadline_s) == (7300.0, then_s)


def test_a_soak_is_stored_and_an_older_state_has_none() -> None:
    """As JSON, with what it was asked for."""
    stored = json.loads(json.dumps(run_state.to_dict(BUSY)))
    assert run_state.from_dict(stored) == BUSY
    del stored["soak"]
    assert run_state.from_dict(stored) == IDLE
