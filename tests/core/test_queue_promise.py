"""What was promised is kept; what may move it says so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from soakd.core.queue import (
    Capacity,
    Extension,
    Holder,
    Moved,
    Place,
    Promise,
    Snapshot,
    extension,
    pick,
)
from tests.core.queue_kit import PORTS, Host, candidate

HOUR_S = 3600.0


def promised(capacity: Capacity | None = None, **more: object) -> Host:
    """Return a host where r7 soaks for two hours and r8 is promised what it gives back."""
    host = Host(capacity or Capacity())
    host.submit(candidate(7, 10, 2, ports=PORTS))
    host.submit(candidate(8, 20, 3, ports=PORTS, **more))
    assert host.promise == Promise(8, 2 * HOUR_S)
    return host


def test_a_fairer_newcomer_does_not_move_a_promise() -> None:
    """The user of r8 has soaked a lot; the newcomer has not, and waits."""
    host = promised()
    host.usage[20] = 100.0
    host.submit(candidate(9, 30, 1))
    assert host.promise == Promise(8, 2 * HOUR_S)
    assert host.picked.waiting[9] == Place(2, "slots", 5 * HOUR_S)
    host.pass_time(2 * HOUR_S)
    assert host.started[8] == 2 * HOUR_S
    assert host.moved == []


def test_a_promise_stays_when_the_holder_ends_early() -> None:
    """The run starts at once, before its time."""
    host = promised()
    host.pass_time(HOUR_S)
    host.end(7)
    assert host.started[8] == HOUR_S
    assert (host.promise, host.moved) == (None, [])


def test_a_promise_is_not_drawn_nearer() -> None:
    """What ends early leaves room for backfill up to the time that was said."""
    host = Host(Capacity(3, 3))
    host.submit(candidate(1, 10, 2, ports=frozenset({20001})))
    host.submit(candidate(2, 10, 9, ports=frozenset({20002})))
    host.submit(candidate(8, 20, 1, ports=frozenset({20001, 20002})))
    assert host.promise == Promise(8, 9 * HOUR_S)
    host.end(2)
    assert host.promise == Promise(8, 9 * HOUR_S)
    host.submit(candidate(9, 30, 9, ports=frozenset({20002})))
    assert host.started[9] == 0.0
    host.pass_time(9 * HOUR_S)
    assert host.started[8] == 9 * HOUR_S


def test_a_higher_priority_takes_the_promise() -> None:
    """Whoever lost it is told."""
    host = promised()
    host.submit(candidate(9, 30, 1, priority=1))
    assert host.promise == Promise(9, 2 * HOUR_S)
    assert host.moved == [Moved(Promise(8, 2 * HOUR_S), "r9 goes first: higher priority")]
    assert host.picked.waiting[8] == Place(2, "slots", 3 * HOUR_S)


def test_a_higher_priority_that_starts_at_once_may_move_the_promise() -> None:
    """The same run has a new one then."""
    host = promised(Capacity(2, 2))
    host.submit(candidate(9, 30, 5, ports=frozenset({20000}), priority=1))
    assert (host.started[9], host.moved) == (0.0, [])
    host.end(9)
    host.queued[8] = replace(host.queued[8], ports=PORTS | {20000})
    host.submit(candidate(10, 30, 5, ports=frozenset({20000}), priority=1))
    assert host.started[10] == 0.0
    assert host.moved == [Moved(Promise(8, 2 * HOUR_S), "r10 goes first: higher priority")]
    assert host.promise == Promise(8, 5 * HOUR_S)


def test_a_run_whose_own_user_took_its_place_loses_the_promise() -> None:
    """The user's limit keeps it now, and that is no reason for others to wait."""
    host = promised(Capacity(2, 1))
    host.submit(candidate(9, 20, 5, priority=1))
    assert host.started[9] == 0.0
    assert [moved.why for moved in host.moved] == ["r9 goes first: higher priority"]
    assert host.promise is None
    assert host.picked.waiting[8] == Place(1, "user limit 1 running", 5 * HOUR_S)


def test_a_hold_takes_the_promise_back() -> None:
    """The next in line gets one."""
    host = promised()
    host.submit(candidate(9, 30))
    host.queued[8] = replace(host.queued[8], held=True)
    host.pick()
    assert host.moved == [Moved(Promise(8, 2 * HOUR_S), "held")]
    assert host.promise == Promise(9, 2 * HOUR_S)


def test_a_drain_takes_the_promise_back() -> None:
    """After it there is a new one."""
    host = promised()
    host.capacity = Capacity(draining=True)
    host.pick()
    assert host.moved == [Moved(Promise(8, 2 * HOUR_S), "drain")]
    host.capacity = Capacity()
    host.pass_time(HOUR_S)
    host.pick()
    assert host.promise == Promise(8, 2 * HOUR_S)
    assert len(host.moved) == 1


@pytest.mark.parametrize("is_drained", [True, False])
def test_a_cancelled_run_had_no_promise_to_lose(*, is_drained: bool) -> None:
    """Nobody is told of it."""
    host = promised(Capacity())
    host.capacity = Capacity(draining=is_drained)
    del host.queued[8]
    host.pick()
    assert (host.promise, host.moved) == (None, [])


def test_a_blocked_lease_takes_the_promise_back() -> None:
    """Nobody knows when it ends, so the others go on without the run."""
    host = promised(Capacity(2, 2))
    host.holders[7] = replace(host.holders[7], ends_by_s=None, blocked_pids=(4711,))
    host.submit(candidate(9, 30, 100))
    assert host.moved == [Moved(Promise(8, 2 * HOUR_S), "blocked lease pid 4711 of r7")]
    assert host.promise is None
    assert host.started[9] == 0.0


def test_a_disk_that_filled_up_takes_the_promise_back() -> None:
    """Nothing in the queue gives space back."""
    host = promised(Capacity(free_disk_bytes=1000), disk_bytes=900)
    host.capacity = Capacity(free_disk_bytes=100)
    host.pick()
    assert [moved.why for moved in host.moved] == ["slots"]
    assert host.picked.waiting[8] == Place(1, "slots")


def test_a_holder_past_its_latest_end_takes_the_promise_back() -> None:
    """It is named; a second of delay is no news."""
    host = promised()
    host.now_s = 2 * HOUR_S + 0.5
    host.holders[7] = replace(host.holders[7], ends_by_s=host.now_s)
    host.pick()
    assert host.moved == []
    host.now_s += 10.0
    host.pick()
    assert host.moved == [Moved(Promise(8, 2 * HOUR_S), "r7 is past its latest end")]


def test_a_holder_that_was_given_more_time_moves_the_promise() -> None:
    """It is named, also among others that stay longer."""
    host = promised(Capacity(3, 3))
    host.submit(candidate(9, 30, 100))
    host.holders[7] = replace(host.holders[7], ends_by_s=4 * HOUR_S)
    host.pick()
    assert host.moved == [Moved(Promise(8, 2 * HOUR_S), "r7 holds on beyond that time")]
    assert host.promise == Promise(8, 4 * HOUR_S)


def test_a_promise_that_soakd_slept_through_is_told() -> None:
    """The run starts as soon as it is back."""
    host = promised()
    del host.holders[7]
    host.now_s = 9 * HOUR_S
    host.pick()
    assert host.started[8] == 9 * HOUR_S
    assert host.moved == [Moved(Promise(8, 2 * HOUR_S), "soakd was not there in time")]


def test_an_extension_goes_up_to_the_promise() -> None:
    """Beyond it, the longest possible one is told, and whom it would have delayed."""
    host = promised()
    host.submit(candidate(9, 30, 1))
    host.promise = Promise(8, 2.5 * HOUR_S)
    said = extension(host.snapshot(), host.capacity, 0.0, 7, HOUR_S)
    # r8 is delayed against its promise, r9 against what it could expect.
    assert said == Extension(0.5 * HOUR_S, host.promise, {8: 0.5 * HOUR_S, 9: HOUR_S})


def test_an_extension_to_the_very_second_of_the_promise_is_allowed() -> None:
    """One second more is not."""
    host = promised()
    host.promise = Promise(8, 2.5 * HOUR_S)
    snapshot = host.snapshot()
    assert extension(snapshot, host.capacity, 0.0, 7, 0.5 * HOUR_S).promise is None
    assert extension(snapshot, host.capacity, 0.0, 7, 0.5 * HOUR_S + 1).promise == host.promise


def test_an_extension_that_harms_no_promise_is_free() -> None:
    """Also where it delays those that have only an estimate."""
    host = promised()
    host.submit(candidate(9, 30, 1))
    said = extension(host.snapshot(), host.capacity, 0.0, 8, HOUR_S)
    assert said == Extension(HOUR_S, None, {9: HOUR_S})
    assert extension(host.snapshot(), host.capacity, 0.0, 9, HOUR_S) == (HOUR_S, None, {})


def test_an_extension_without_any_promise_is_free() -> None:
    """Nobody waits, or for somebody else only."""
    host = Host(Capacity(2, 2))
    host.submit(candidate(7, 10, 2))
    assert extension(host.snapshot(), host.capacity, 0.0, 7, HOUR_S) == (HOUR_S, None, {})
    host.submit(candidate(6, 10, 3, ports=PORTS))
    host.submit(candidate(8, 20, 3, ports=PORTS))
    host.holders[6] = replace(host.holders[6], ends_by_s=None)
    host.pick()
    assert extension(host.snapshot(), host.capacity, 0.0, 6, HOUR_S) == (HOUR_S, None, {})
    assert extension(host.snapshot(), host.capacity, 0.0, 7, HOUR_S) == (HOUR_S, None, {})


def test_a_higher_priority_may_be_extended_beyond_a_promise() -> None:
    """The effect says what it costs."""
    host = promised()
    host.holders[7] = replace(host.holders[7], priority=1)
    said = extension(host.snapshot(), host.capacity, 0.0, 7, HOUR_S)
    assert said == Extension(HOUR_S, None, {8: HOUR_S})


def test_a_run_that_holds_on_longer_than_promised_cannot_be_extended_at_all() -> None:
    """Not by less than nothing."""
    host = promised()
    host.promise = Promise(8, HOUR_S)
    assert extension(host.snapshot(), host.capacity, 0.0, 7, 1.0).longest_s == 0.0


def test_a_pick_does_not_depend_on_the_promise_of_a_run_that_is_gone() -> None:
    """It is dropped without a word."""
    snapshot = Snapshot([candidate(9)], [Holder(7, 10, ends_by_s=HOUR_S)], {}, Promise(8, 5.0))
    picked = pick(snapshot, Capacity(), 0.0)
    assert (picked.promise, picked.moved) == (Promise(9, HOUR_S), None)
