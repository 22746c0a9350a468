"""Who starts, in which order, and why the others do not."""

from __future__ import annotations

import pytest

from soakd.core.queue import Candidate, Capacity, Holder, Place, Promise, Snapshot, pick
from tests.core.queue_kit import PORTS, Host, candidate

ROOMY = Capacity(max_running=5, running_per_user=5)
HOUR_S = 3600.0


def reasons(
    queued: list[Candidate],
    holders: list[Holder] | None = None,
    capacity: Capacity = ROOMY,
    promise: Promise | None = None,
) -> dict[int, str]:
    """Return why each run waits at time 0."""
    snapshot = Snapshot(queued, holders or [], {}, promise)
    return {run: place.reason for run, place in pick(snapshot, capacity, 0.0).waiting.items()}


def starts(snapshot: Snapshot, capacity: Capacity, now_s: float = 0.0) -> list[int]:
    """Return the runs that start."""
    return [grant.id for grant in pick(snapshot, capacity, now_s).start]


def test_an_empty_queue_has_nothing_to_say() -> None:
    """No start, no promise."""
    assert pick(Snapshot(), Capacity(), 0.0) == ((), {}, None, None)


def test_runs_of_one_user_start_in_order_of_arrival() -> None:
    """As many as there are slots."""
    queued = [candidate(3), candidate(1), candidate(2)]
    assert starts(Snapshot(queued), Capacity(2, 5)) == [1, 2]


def test_the_user_with_the_least_recent_hours_goes_first() -> None:
    """Whoever came first, among users with as many."""
    queued = [candidate(1, 10), candidate(2, 20), candidate(3, 30), candidate(4, 20)]
    snapshot = Snapshot(queued, usage={10: 5.0, 20: 0.5, 30: 0.5})
    assert starts(snapshot, ROOMY) == [2, 3, 4, 1]


def test_an_admins_priority_goes_before_fairness() -> None:
    """And below it a negative one waits for all others."""
    queued = [candidate(1, 10, priority=-1), candidate(2, 10), candidate(3, 20, priority=2)]
    assert starts(Snapshot(queued, usage={20: 99.0}), ROOMY) == [3, 2, 1]


def test_the_head_of_a_full_host_is_promised_the_latest_end_of_the_holder() -> None:
    """The others get estimates: the same plan played on."""
    holder = Holder(7, 10, ends_by_s=2 * HOUR_S)
    queued = [candidate(8, 20, 3), candidate(9, 30, 1), candidate(10, 20, 1)]
    picked = pick(Snapshot(queued, [holder], {10: 1.0}), Capacity(), 0.0)
    assert picked.start == ()
    assert picked.promise == Promise(8, 2 * HOUR_S)
    assert picked.waiting == {
        8: Place(1, "slots", 2 * HOUR_S, is_promised=True),
        # r8 will have cost its user three hours by then.
        9: Place(2, "slots", 5 * HOUR_S),
        10: Place(3, "slots", 6 * HOUR_S),
    }


def test_a_port_is_named_with_the_run_that_holds_it() -> None:
    """The lowest of them."""
    holder = Holder(7, 10, PORTS, ends_by_s=HOUR_S)
    assert reasons([candidate(8, ports=PORTS)], [holder]) == {8: "port 17835 leased by r7"}


def test_session_and_identity_are_named_like_ports() -> None:
    """Keys carry their kind."""
    holder = Holder(7, 10, keys=frozenset({"session s1", "identity ab"}), ends_by_s=HOUR_S)
    queued = [
        candidate(8, keys=frozenset({"session s1"})),
        candidate(9, keys=frozenset({"identity ab"})),
    ]
    assert reasons(queued, [holder]) == {
        8: "session s1 leased by r7",
        9: "identity ab leased by r7",
    }


def test_two_queued_runs_that_want_the_same_never_start_together() -> None:
    """The second is told of the first, which has only just started."""
    queued = [candidate(1, ports=PORTS), candidate(2, ports=PORTS)]
    assert starts(Snapshot(queued), ROOMY) == [1]
    assert reasons(queued) == {2: "port 17835 leased by r1"}


def test_a_user_at_the_limit_is_passed_over() -> None:
    """Another user's run starts; the limit is told where it is what keeps the run."""
    queued = [candidate(8, 10), candidate(9, 20)]
    holder = Holder(7, 10, ends_by_s=HOUR_S)
    snapshot = Snapshot(queued, [holder])
    assert starts(snapshot, Capacity(3, 1)) == [9]
    assert reasons(queued, [holder], Capacity(3, 1)) == {8: "user limit 1 running"}


def test_on_a_host_of_one_slot_the_user_limit_keeps_nobody() -> None:
    """The slot does: so a user alone gets promises too."""
    picked = pick(
        Snapshot([candidate(8, 10)], [Holder(7, 10, ends_by_s=HOUR_S)]), Capacity(1, 1), 0.0
    )
    assert picked.waiting == {8: Place(1, "slots", HOUR_S, is_promised=True)}


def test_a_run_at_the_user_limit_has_an_estimate_and_no_promise() -> None:
    """The next one that others keep waiting is promised instead."""
    holders = [Holder(6, 20, ends_by_s=3 * HOUR_S), Holder(7, 10, ends_by_s=5 * HOUR_S)]
    queued = [candidate(8, 10, 9), candidate(9, 30, 1)]
    capacity = Capacity(2, 1)
    picked = pick(Snapshot([*queued], holders), capacity, 0.0)
    assert picked.promise == Promise(9, 3 * HOUR_S)
    assert picked.waiting[8] == Place(2, "user limit 1 running", 5 * HOUR_S)


def test_a_run_is_promised_its_time_by_the_pick_that_fills_the_host() -> None:
    """At the user limit it had no promise; once another took the last slot it waits for slots."""
    host = Host(Capacity(2, 1))
    host.holders = {1: Holder(1, 7, frozenset(), frozenset(), HOUR_S, 0, 0)}
    host.queued = {run.id: run for run in (candidate(2, 7), candidate(3, 8, hours=2))}
    picked = host.pick()
    assert [grant.id for grant in picked.start] == [3]
    assert picked.promise == Promise(2, HOUR_S)
    assert picked.moved is None
    assert host.pick().promise == picked.promise


def test_of_two_runs_in_the_way_the_same_is_named_by_every_pick() -> None:
    """The one that came first, though it started after the other."""
    host = Host(ROOMY)
    host.usage = {8: 1.0}
    first, second = candidate(1, 8, keys=frozenset({"session s"})), candidate(2, 7, ports=PORTS)
    third = candidate(3, 8, ports=PORTS, keys=frozenset({"session s"}))
    host.queued = {run.id: run for run in (first, second, third)}
    picked = host.pick()
    assert [grant.id for grant in picked.start] == [2, 1]
    assert picked.waiting[3].reason == "session s leased by r1"
    assert host.pick().waiting == picked.waiting


def test_ports_of_a_run_that_has_started_are_free_to_others_after_it() -> None:
    """The forecast of the pick that starts it does not keep them back for it."""
    host = Host(Capacity(3, 2, auto_range=range(1024, 1034)))
    host.usage = {3: 2.0, 4: 1.0}
    host.queued = {
        run.id: run
        for run in (
            candidate(100, 2, hours=10, ports=frozenset({1024, 1030}), auto_ports=3),
            candidate(101, 1, hours=5, ports=frozenset({1028}), auto_ports=2, priority=1),
            candidate(102, 3, hours=0.4, ports=frozenset({1027}), priority=1),
            candidate(103, 3, hours=7, auto_ports=1, priority=1),
            candidate(104, 4, hours=0.1, ports=frozenset({1026, 1028}), auto_ports=2),
        )
    }
    picked = host.pick()
    assert [grant.id for grant in picked.start] == [101, 102, 103]
    assert picked.waiting[104].start_s == 5 * HOUR_S
    assert host.pick().waiting == picked.waiting


def test_held_runs_stand_behind_all_and_have_no_time() -> None:
    """Whatever else would keep them."""
    picked = pick(
        Snapshot([candidate(1, held=True), candidate(2)], [Holder(7, 10, ends_by_s=HOUR_S)]),
        Capacity(),
        0.0,
    )
    assert picked.waiting[2].position == 1
    assert picked.waiting[1] == Place(2, "held")


def test_a_drain_starts_nothing_and_promises_nothing() -> None:
    """Held runs stay held."""
    capacity = Capacity(5, 5, draining=True)
    queued = [candidate(1), candidate(2, held=True)]
    assert starts(Snapshot(queued), capacity) == []
    assert reasons(queued, capacity=capacity) == {1: "drain", 2: "held"}


@pytest.mark.parametrize("capacity", [Capacity(1, 1), Capacity(2, 1), Capacity(3, 3)])
def test_a_blocked_lease_is_named_with_its_first_pid(capacity: Capacity) -> None:
    """Whether its slot, its user's limit or its ports are what is missing: no time is known."""
    blocked = Holder(7, 10, PORTS, blocked_pids=(4711, 4712))
    picked = pick(Snapshot([candidate(8, 10, ports=PORTS)], [blocked]), capacity, 0.0)
    assert picked.waiting == {8: Place(1, "blocked lease pid 4711 of r7")}
    assert picked.promise is None


def test_a_blocked_slot_is_not_what_is_waited_for_while_another_will_be_free() -> None:
    """Nor does it keep those that can do without its ports."""
    blocked = Holder(7, 10, PORTS, blocked_pids=(4711,))
    other = Holder(6, 10, ends_by_s=HOUR_S)
    picked = pick(Snapshot([candidate(8, 20)], [blocked, other]), Capacity(2, 5), 0.0)
    assert picked.waiting == {8: Place(1, "slots", HOUR_S, is_promised=True)}


def test_a_run_that_waits_for_something_of_unknown_end_is_passed_over() -> None:
    """Nobody would gain if all others waited with it."""
    lost = Holder(7, 10, PORTS)
    queued = [candidate(8, 20, ports=PORTS), candidate(9, 30)]
    assert starts(Snapshot(queued, [lost]), ROOMY) == [9]
    assert reasons(queued, [lost]) == {8: "port 17835 leased by r7"}


def test_a_run_for_which_the_disk_is_too_small_waits() -> None:
    """What holders may still write is not free; those that fit pass."""
    holder = Holder(7, 10, ends_by_s=HOUR_S, growth_bytes=600)
    queued = [candidate(8, disk_bytes=500), candidate(9, disk_bytes=300), candidate(10)]
    capacity = Capacity(5, 5, free_disk_bytes=1000)
    picked = pick(Snapshot(queued, [holder]), capacity, 0.0)
    assert [grant.id for grant in picked.start] == [9, 10]
    assert picked.waiting == {8: Place(1, "disk forecast")}


def test_runs_that_start_together_share_the_disk() -> None:
    """Each takes its forecast from what is left."""
    queued = [candidate(8, disk_bytes=600), candidate(9, disk_bytes=600)]
    assert starts(Snapshot(queued), Capacity(5, 5, free_disk_bytes=1000)) == [8]


def test_auto_ports_are_the_lowest_that_nobody_has() -> None:
    """Not those of holders, of strangers, or of the run itself."""
    capacity = Capacity(5, 5, range(27000, 27010), foreign_ports=frozenset({27001}))
    holder = Holder(7, 10, frozenset({27000}), ends_by_s=HOUR_S)
    run = candidate(8, ports=frozenset({27002}), auto_ports=2)
    picked = pick(Snapshot([run, candidate(9, auto_ports=2)], [holder]), capacity, 0.0)
    assert picked.start == ((8, (27003, 27004)), (9, (27005, 27006)))


def test_auto_ports_leave_alone_what_others_in_the_queue_have_fixed() -> None:
    """Unless nothing else is left."""
    fixed = candidate(9, ports=frozenset({27000}), held=True)
    capacity = Capacity(5, 5, range(27000, 27002))
    one = pick(Snapshot([candidate(8, auto_ports=1), fixed]), capacity, 0.0)
    two = pick(Snapshot([candidate(8, auto_ports=2), fixed]), capacity, 0.0)
    assert one.start == ((8, (27001,)),)
    assert two.start == ((8, (27001, 27000)),)


def test_a_range_that_is_used_up_is_waited_for() -> None:
    """Until enough holders of its ports have ended; for more than it has nobody can wait."""
    capacity = Capacity(5, 5, range(27000, 27004))
    holders = [
        Holder(5, 10, frozenset({27000, 27001}), ends_by_s=2 * HOUR_S),
        Holder(6, 10, frozenset({27002, 27003}), ends_by_s=HOUR_S),
    ]
    queued = [candidate(8, auto_ports=3), candidate(9, auto_ports=5)]
    picked = pick(Snapshot(queued, holders), capacity, 0.0)
    assert picked.waiting == {
        8: Place(1, "auto ports all leased", 2 * HOUR_S, is_promised=True),
        9: Place(2, "auto ports all leased"),
    }


def test_auto_ports_wait_for_a_slot_like_all() -> None:
    """With the range free, the slot is what counts."""
    capacity = Capacity(1, 5, range(27000, 27004))
    holder = Holder(7, 10, ends_by_s=HOUR_S)
    picked = pick(Snapshot([candidate(8, auto_ports=2)], [holder]), capacity, 0.0)
    assert picked.promise == Promise(8, HOUR_S)


def test_a_later_run_starts_first_if_it_ends_before_the_promise() -> None:
    """Backfill: to the second, and not a second more."""
    holder = Holder(7, 10, PORTS, ends_by_s=2 * HOUR_S)
    head = candidate(8, 10, 5, ports=PORTS | {20000})
    for hours, fits in ((2.0, True), (2.001, False)):
        late = candidate(9, 10, hours, ports=frozenset({20000}))
        snapshot = Snapshot([head, late], [holder])
        assert starts(snapshot, ROOMY) == ([9] if fits else [])


def test_a_later_run_starts_first_if_it_takes_nothing_that_the_promise_needs() -> None:
    """However long it is; where it would take the last slot it waits behind the head."""
    holder = Holder(7, 10, PORTS, ends_by_s=2 * HOUR_S)
    head, late = candidate(8, 10, 5, ports=PORTS), candidate(9, 10, 1000)
    snapshot = Snapshot([head, late], [holder])
    assert starts(snapshot, Capacity(2, 5)) == [9]
    both = [holder, Holder(6, 10, ends_by_s=3 * HOUR_S)]
    assert starts(Snapshot([head, late], both), Capacity(3, 5)) == [9]
    wide = candidate(8, 10, 5, ports=PORTS | {20001})
    narrow = candidate(9, 10, 1000, ports=frozenset({20001}))
    assert reasons([wide, narrow], both) == {8: "port 17835 leased by r7", 9: "behind r8"}


def test_a_user_whose_first_run_cannot_start_may_start_another() -> None:
    """Ports that one run wants say nothing of the next; a third that wants them waits, too."""
    holder = Holder(7, 10, PORTS, ends_by_s=2 * HOUR_S)
    queued = [candidate(8, 20, ports=PORTS), candidate(9, 30, ports=PORTS), candidate(10, 30)]
    queued += [candidate(11, 30, ports=PORTS), candidate(12, 30)]
    assert starts(Snapshot(queued, [holder]), ROOMY) == [10, 12]
    assert starts(Snapshot(queued, [holder]), Capacity(5, 1)) == [10]


def test_a_later_run_must_leave_the_head_its_disk() -> None:
    """Disk is not given back by the end of a run."""
    holder = Holder(7, 10, PORTS, ends_by_s=HOUR_S)
    head, late = candidate(8, ports=PORTS, disk_bytes=600), candidate(9, hours=0.1, disk_bytes=500)
    capacity = Capacity(5, 5, free_disk_bytes=1000)
    assert reasons([head, late], [holder], capacity)[9] == "behind r8"


def test_no_slot_at_all_is_no_reason_to_fail() -> None:
    """A host of no slots keeps everybody waiting, for nobody knows how long."""
    assert pick(Snapshot([candidate(8)]), Capacity(0), 0.0).waiting == {8: Place(1, "slots")}
