"""The round machine: whole rounds, every cut, every illegal pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from soakd.core import rounds
from soakd.core.round_states import (
    DatingReading,
    DecidingReading,
    Done,
    EarlyReading,
    Publishing,
    Rechecking,
    Record,
    Searching,
    Snapshotting,
    WaitingPublish,
    WaitingRecheck,
    WaitingSearch,
)
from soakd.core.rounds import (
    Answered,
    CallFailed,
    Cut,
    DatingRead,
    DecidingRead,
    EarlyRead,
    Event,
    Finished,
    IllegalTransition,
    NodeDown,
    NodeIdle,
    Publish,
    RoundResult,
    RoundSpec,
    RoundState,
    Search,
    SleepUntil,
    TakeSnapshots,
    Woke,
)

SPEC = RoundSpec(
    number=1,
    measurement="source_probe",
    publisher="a",
    searcher="b",
    flow="a>b",
    file_id="0" * 32,
    file_size=1024,
    cold=False,
    wait_publish_s=20.0,
    wait_search_s=20.0,
    read_every_s=5.0,
    recheck_attempts=1,
    recheck_delay_s=20.0,
)
EAGER = replace(SPEC, wait_publish_s=0.0, wait_search_s=0.0, recheck_delay_s=0.0)
QUEUED = Answered('{"queued":true}')
EMPTY = Answered('{"sources":[]}')
FOUND = Answered('{"sources":[{}]}', ("11",))
BROKEN = CallFailed("timeout")


class Round:
    """Drives one round on a clock of its own: sleeps take their time, calls take none."""

    def __init__(self, spec: RoundSpec) -> None:
        self.now_s = 100.0
        self.state: RoundState = rounds.begin(spec, self.now_s)
        self.phases = ["publish"]

    def feed(self, *events: Event) -> Round:
        """Feed answers to calls, sleeping whenever the machine asks for it."""
        for event in events:
            self.sleep()
            self._take(event)
        self.sleep()
        return self

    def sleep(self) -> None:
        """Sleep as long as sleeping is what is to be done."""
        while isinstance(do := rounds.todo(self.state), SleepUntil):
            self.now_s = do.t_s
            self._take(Woke())

    def _take(self, event: Event) -> None:
        self.state = rounds.advance(self.state, event, self.now_s)
        self.phases.append(rounds.phase(self.state))

    @property
    def result(self) -> RoundResult:
        """The result of a finished round."""
        do = rounds.todo(self.state)
        assert isinstance(do, Finished)
        return do.result


def test_a_hit_passes_every_phase_in_order() -> None:
    """The plain round, with dating reads at 5, 10 and 15 s of the search wait."""
    driven = Round(SPEC).feed(QUEUED, EMPTY, QUEUED, EMPTY, EMPTY, EMPTY, FOUND, Answered(""))
    dating = ["wait_search", "dating_read"] * 3
    assert driven.phases == [
        "publish",
        "wait_publish",
        "early_read",
        "search",
        *dating,
        "wait_search",
        "read",
        "snapshot",
        "finished",
    ]
    result = driven.result
    assert (result.outcome, result.cause, result.error, result.rechecks) == ("hit", None, None, 0)
    assert (result.publish_at_s, result.first_seen_s, result.ended_at_s) == (100.0, 40.0, 140.0)
    assert result.source_ids == ("11",)
    assert (result.publish_body, result.search_body) == (QUEUED.body, QUEUED.body)
    assert result.final_body == FOUND.body
    assert not result.prestored


def test_the_machine_orders_what_each_phase_is_for() -> None:
    """Each state translates to one order, and a recheck says which one it is."""
    record = Record(SPEC, 0.0)
    assert rounds.todo(Publishing(record)) == Publish()
    assert rounds.todo(WaitingPublish(record, 7.0)) == SleepUntil(7.0)
    assert rounds.todo(EarlyReading(record)) == EarlyRead()
    assert rounds.todo(Searching(record)) == Search()
    assert rounds.todo(WaitingSearch(record, 9.0, 8.0)) == SleepUntil(8.0)
    assert rounds.todo(WaitingSearch(record, 9.0, None)) == SleepUntil(9.0)
    assert rounds.todo(DatingReading(record, 9.0)) == DatingRead()
    assert rounds.todo(DecidingReading(record)) == DecidingRead(0)
    assert rounds.todo(WaitingRecheck(record, 2, 9.0)) == SleepUntil(9.0)
    assert rounds.todo(Rechecking(record, 2)) == DecidingRead(2)
    assert rounds.todo(Snapshotting(record, "hit", None)) == TakeSnapshots()


def test_waits_of_zero_are_no_sleeps() -> None:
    """Waits 0 ask for nothing but the six calls and the recheck."""
    driven = Round(EAGER).feed(QUEUED, EMPTY, QUEUED, EMPTY, EMPTY, Answered(""))
    assert driven.phases == [
        "publish",
        "early_read",
        "search",
        "read",
        "recheck",
        "snapshot",
        "finished",
    ]
    assert driven.result.outcome == "miss"
    assert driven.now_s == 100.0


def test_a_recheck_that_finds_the_file_is_late() -> None:
    """Empty at first, there on the recheck."""
    driven = Round(EAGER).feed(QUEUED, EMPTY, QUEUED, EMPTY, FOUND, Answered(""))
    assert (driven.result.outcome, driven.result.rechecks) == ("late", 1)
    assert driven.result.final_body == FOUND.body


def test_rechecks_wait_and_end_after_the_last_attempt() -> None:
    """Two attempts mean two delays, then a miss with the last body."""
    spec = replace(SPEC, recheck_attempts=2, read_every_s=0.0)
    last = Answered('{"sources":[] }')
    driven = Round(spec).feed(QUEUED, EMPTY, QUEUED, EMPTY, EMPTY, last, Answered(""))
    assert driven.phases[-6:] == [
        "wait_recheck",
        "recheck",
        "wait_recheck",
        "recheck",
        "snapshot",
        "finished",
    ]
    assert (driven.result.outcome, driven.result.rechecks) == ("miss", 2)
    assert driven.result.final_body == last.body
    assert driven.now_s == 180.0


def test_no_rechecks_make_a_miss_at_once() -> None:
    """`recheck_attempts` 0 is a value, not an absence."""
    spec = replace(EAGER, recheck_attempts=0)
    driven = Round(spec).feed(QUEUED, EMPTY, QUEUED, EMPTY, Answered(""))
    assert (driven.result.outcome, driven.result.rechecks) == ("miss", 0)


def test_a_file_seen_before_the_search_is_prestored_and_dated() -> None:
    """The early read dates the file, so no dating read follows; the deciding one decides."""
    driven = Round(SPEC).feed(QUEUED, FOUND, QUEUED, FOUND, Answered(""))
    assert "dating_read" not in driven.phases
    assert driven.result.prestored
    assert (driven.result.outcome, driven.result.first_seen_s) == ("hit", 20.0)


def test_dating_reads_end_once_the_file_is_seen() -> None:
    """First seen is the dating read's time; the deciding read still comes at the end."""
    driven = Round(SPEC).feed(QUEUED, EMPTY, QUEUED, EMPTY, FOUND, FOUND, Answered(""))
    assert driven.phases.count("dating_read") == 2
    assert (driven.result.outcome, driven.result.first_seen_s) == ("hit", 30.0)
    assert driven.now_s == 140.0
    assert not driven.result.prestored


def test_a_dating_read_decides_nothing() -> None:
    """Seen on the way but gone at the deciding read is a miss."""
    driven = Round(replace(SPEC, recheck_attempts=0))
    driven.feed(QUEUED, EMPTY, QUEUED, FOUND, EMPTY, Answered(""))
    assert (driven.result.outcome, driven.result.first_seen_s) == ("miss", 25.0)
    assert driven.result.source_ids == ("11",)


def test_a_slow_dating_read_leads_straight_to_the_deciding_one() -> None:
    """A dating read that outlasts the wait delays nothing further."""
    record = Record(SPEC, 0.0, publish_at_s=0.0)
    state = rounds.advance(DatingReading(record, 40.0), EMPTY, 41.0)
    assert rounds.phase(state) == "read"


def test_a_poll_that_finds_it_ends_the_wait_where_the_first_sight_decides() -> None:
    """The round is a hit as soon as it is seen, with that answer as its final one."""
    played = Round(replace(SPEC, first_sight_decides=True))
    played.feed(QUEUED, EMPTY, QUEUED, EMPTY, FOUND, Answered(""))
    result = played.result
    assert (result.outcome, result.final_body) == ("hit", FOUND.body)
    assert result.first_seen_s == 20.0 + 2 * SPEC.read_every_s
    missed = Round(replace(SPEC, first_sight_decides=True, recheck_attempts=0))
    missed.feed(QUEUED, EMPTY, QUEUED, EMPTY, EMPTY, EMPTY, EMPTY, Answered(""))
    assert missed.result.outcome == "miss"


def test_a_round_may_look_for_what_the_one_before_has_published() -> None:
    """It begins with the early read, and dates from that publish."""
    played = Round(replace(SPEC, published_s=70.0))
    assert rounds.phase(played.state) == "early_read"
    played.feed(FOUND, QUEUED, FOUND, Answered(""))
    assert played.result.prestored
    assert played.result.first_seen_s == 30.0
    assert played.now_s == 120.0


def test_where_the_first_sight_decides_what_is_there_already_needs_no_wait() -> None:
    """The deciding read follows the search at once."""
    played = Round(replace(SPEC, published_s=70.0, first_sight_decides=True))
    played.feed(FOUND, QUEUED, FOUND, Answered(""))
    assert (played.result.outcome, played.now_s) == ("hit", 100.0)


def test_waking_early_changes_nothing() -> None:
    """A sleep may end before its time; the machine then asks for the rest of it."""
    record = Record(SPEC, 0.0)
    sleeping: list[RoundState] = [
        WaitingPublish(record, 10.0),
        WaitingSearch(record, 10.0, 5.0),
        WaitingSearch(record, 10.0, None),
        WaitingRecheck(record, 1, 10.0),
    ]
    for state in sleeping:
        assert rounds.advance(state, Woke(), 4.9) is state


@pytest.mark.parametrize(
    ("answers", "step"),
    [
        ([], "publish"),
        ([QUEUED, EMPTY], "search"),
        ([QUEUED, EMPTY, QUEUED], "read"),
        ([QUEUED, EMPTY, QUEUED, EMPTY], "recheck"),
    ],
)
def test_a_failed_call_that_counts_makes_an_error(answers: Sequence[Event], step: str) -> None:
    """Publish, search, deciding read and recheck: snapshots are still taken."""
    driven = Round(EAGER).feed(*answers, BROKEN)
    assert rounds.todo(driven.state) == TakeSnapshots()
    result = driven.feed(Answered("")).result
    assert (result.outcome, result.error, result.cause) == ("error", (step, "timeout"), None)


def test_failed_early_dating_and_snapshot_reads_are_only_noted() -> None:
    """They say nothing about the round's outcome."""
    spec = replace(SPEC, read_every_s=15.0)
    driven = Round(spec).feed(QUEUED, BROKEN, QUEUED, BROKEN, FOUND, BROKEN)
    assert driven.result.outcome == "hit"
    assert driven.result.error is None
    assert driven.result.notes == (
        ("early_read", "timeout"),
        ("dating_read", "timeout"),
        ("snapshot", "timeout"),
    )


def test_bodies_of_failed_posts_are_kept_but_not_of_failed_reads() -> None:
    """A broken read must not look like a hit to those who grep field 6 for sources."""
    torn = CallFailed("garbage", '{"sources":[{')
    assert Round(EAGER).feed(torn, Answered("")).result.publish_body == torn.body
    searched = Round(EAGER).feed(QUEUED, EMPTY, torn, Answered("")).result
    assert searched.search_body == torn.body
    read = Round(EAGER).feed(QUEUED, EMPTY, QUEUED, torn, Answered("")).result
    assert read.final_body == ""


def test_a_failed_recheck_keeps_the_body_of_the_read_before() -> None:
    """The final body is that of the last deciding read that was answered."""
    result = Round(EAGER).feed(QUEUED, EMPTY, QUEUED, EMPTY, BROKEN, Answered("")).result
    assert result.final_body == EMPTY.body
    assert result.rechecks == 1


STATES: dict[str, RoundState] = {
    rounds.phase(state): state
    for state in (
        Publishing(Record(SPEC, 0.0)),
        WaitingPublish(Record(SPEC, 0.0), 10.0),
        EarlyReading(Record(SPEC, 0.0)),
        Searching(Record(SPEC, 0.0)),
        WaitingSearch(Record(SPEC, 0.0), 10.0, None),
        DatingReading(Record(SPEC, 0.0), 10.0),
        DecidingReading(Record(SPEC, 0.0)),
        WaitingRecheck(Record(SPEC, 0.0), 1, 10.0),
        Rechecking(Record(SPEC, 0.0), 1),
        Snapshotting(Record(SPEC, 0.0), "miss", None),
        Done(Round(EAGER).feed(BROKEN, Answered("")).result),
    )
}
SLEEPS = {"wait_publish", "wait_search", "wait_recheck"}
LEGAL: dict[type[Event], set[str]] = {
    Answered: set(STATES) - SLEEPS - {"finished"},
    CallFailed: set(STATES) - SLEEPS - {"finished"},
    Woke: SLEEPS,
    Cut: set(STATES) - {"finished"},
    NodeDown: set(STATES) - {"finished"},
    NodeIdle: {"snapshot"},
}
EVENTS: list[Event] = [EMPTY, BROKEN, Woke(), Cut("stop"), NodeDown("a"), NodeIdle("a", "504")]


def test_a_miss_is_an_error_if_a_node_did_not_do_its_part() -> None:
    """It says nothing of the network; asked only of what looks like a miss."""
    driven = Round(EAGER).feed(QUEUED, EMPTY, QUEUED, EMPTY, EMPTY)
    assert rounds.todo(driven.state) == TakeSnapshots(doubts=True)
    result = driven.feed(NodeIdle("a", "HTTP 504")).result
    assert (result.outcome, result.cause) == ("error", "node_idle:a")
    assert result.error == ("snapshot", "HTTP 504")
    hit = Round(EAGER).feed(QUEUED, EMPTY, QUEUED, FOUND)
    with pytest.raises(IllegalTransition):
        hit.feed(NodeIdle("a", "HTTP 504"))


def test_the_pairs_below_cover_every_state() -> None:
    """A new state or event must be entered in the table of legal pairs."""
    assert set(STATES) == set(rounds._PHASES.values())
    assert {type(event) for event in EVENTS} == set(LEGAL)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("phase", STATES)
def test_every_pair_is_legal_or_refused(phase: str, event: Event) -> None:
    """An illegal pair raises, names both sides and leaves the state as it was."""
    state = STATES[phase]
    if phase in LEGAL[type(event)]:
        assert rounds.phase(rounds.advance(state, event, 50.0)) in STATES
        return
    with pytest.raises(IllegalTransition, match=type(event).__name__):
        rounds.advance(state, event, 50.0)
    assert STATES[phase] is state


@pytest.mark.parametrize(
    "phase", [phase for phase in STATES if phase not in {"snapshot", "finished"}]
)
def test_a_cut_skips_the_rest_of_an_unclassified_round(phase: str) -> None:
    """Whatever was under way, the round is skipped and finished."""
    state = rounds.advance(STATES[phase], Cut("stop"), 50.0)
    assert isinstance(state, Done)
    assert (state.result.outcome, state.result.cause) == ("skipped", "cut:stop")
    assert (state.result.error, state.result.ended_at_s) == (None, 50.0)


@pytest.mark.parametrize(
    "phase", [phase for phase in STATES if phase not in {"snapshot", "finished"}]
)
def test_a_dead_node_makes_an_error_of_an_unclassified_round(phase: str) -> None:
    """The step says where it was; no snapshot of a dead node is tried."""
    state = rounds.advance(STATES[phase], NodeDown("b"), 50.0)
    assert isinstance(state, Done)
    assert (state.result.outcome, state.result.cause) == ("error", "node_down:b")
    assert state.result.error == (phase, "node b is down")


@pytest.mark.parametrize(
    ("event", "cause"), [(Cut("stop"), "cut:stop"), (NodeDown("b"), "node_down:b")]
)
def test_a_classified_round_stays_classified(event: Event, cause: str) -> None:
    """A stop during the snapshots must not lose a hit or a miss; it is noted."""
    state = rounds.advance(STATES["snapshot"], event, 50.0)
    assert isinstance(state, Done)
    assert (state.result.outcome, state.result.cause) == ("miss", None)
    assert state.result.notes == (("snapshot", cause),)


def test_every_order_is_met_within_a_bounded_number_of_steps() -> None:
    """No sequence of empty answers keeps a round going for ever."""
    driven = Round(replace(SPEC, recheck_attempts=3))
    steps = 0
    while not isinstance(driven.state, Done):
        driven.feed(EMPTY)
        steps += 1
    assert steps == 4 + 3 + 3 + 1
