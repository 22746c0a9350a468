"""What holds for every queue: searched for by hypothesis."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from soakd.core.queue import (
    Candidate,
    Capacity,
    Holder,
    Picked,
    Promise,
    Snapshot,
    extension,
    pick,
)
from tests.core.helpers import steady
from tests.core.queue_kit import Host, candidate

pytestmark = pytest.mark.unmeasured

HOUR_S = 3600.0
AUTO = range(1024, 1034)

_ports = st.frozensets(st.integers(1024, 1030), max_size=3)
_keys = st.frozensets(st.sampled_from(["session s", "session t", "identity i"]), max_size=2)
_uids = st.integers(1, 4)
_capacities = st.builds(
    Capacity,
    max_running=st.integers(1, 4),
    running_per_user=st.integers(1, 3),
    auto_range=st.just(AUTO),
    foreign_ports=st.frozensets(st.sampled_from(AUTO), max_size=2),
    free_disk_bytes=st.none() | st.integers(0, 1000),
)


def _candidates(ids: st.SearchStrategy[int]) -> st.SearchStrategy[Candidate]:
    return st.builds(
        Candidate,
        id=ids,
        uid=_uids,
        ports=_ports,
        auto_ports=st.integers(0, 3),
        keys=_keys,
        length_s=st.integers(1, 100).map(lambda tenths: tenths * 360.0),
        disk_bytes=st.sampled_from([0, 100, 400]),
    )


@st.composite
def _snapshots(draw: st.DrawFn) -> Snapshot:
    queued = draw(st.lists(_candidates(st.integers(100, 199)), unique_by=lambda r: r.id))
    queued = [
        replace(run, held=draw(st.booleans()), priority=draw(st.integers(0, 1))) for run in queued
    ]
    holders: list[Holder] = []
    for run in draw(
        st.lists(_candidates(st.integers(1, 99)), max_size=4, unique_by=lambda r: r.id)
    ):
        if all(h.ports.isdisjoint(run.ports) and h.keys.isdisjoint(run.keys) for h in holders):
            ends_by_s = draw(st.none() | st.integers(-10, 100).map(lambda n: n * 360.0))
            pids = draw(st.sampled_from([(), (4711,)]))
            growth = run.disk_bytes
            holders.append(Holder(run.id, run.uid, run.ports, run.keys, ends_by_s, growth, 0, pids))
    usage = draw(st.dictionaries(_uids, st.floats(0, 1000)))
    promise = draw(st.none() | st.builds(Promise, st.integers(100, 199), st.floats(0, 40_000)))
    return Snapshot(queued, holders, usage, promise)


@settings(steady, max_examples=120)
@given(snapshot=_snapshots(), capacity=_capacities, seed=st.integers(0, 999))
def test_what_holds_for_every_queue(snapshot: Snapshot, capacity: Capacity, seed: int) -> None:
    """Nothing is given twice, everybody is told, order says nothing, and a second look is idle.

    One search for all four: to draw a queue takes longer than to look at what was picked of it.
    """
    picked = pick(snapshot, capacity, 0.0)
    _nothing_is_given_twice(snapshot, capacity, picked)
    _every_queued_run_starts_or_is_told_why_not(snapshot, picked)
    _the_order_of_what_is_given_says_nothing(snapshot, capacity, picked, seed)
    _a_pick_after_a_pick_changes_nothing(snapshot, capacity)


def _nothing_is_given_twice(snapshot: Snapshot, capacity: Capacity, picked: Picked) -> None:
    """Slots, a user's share, ports, names, disk: what starts fits beside all that is there."""
    queued = {run.id: run for run in snapshot.queued}
    started = [(queued[grant.id], grant.auto_ports) for grant in picked.start]
    holders = list(snapshot.holders)
    assert len(started) <= max(0, capacity.max_running - len(holders))
    ports = [port for holder in holders for port in holder.ports]
    keys = [key for holder in holders for key in holder.keys]
    uids = [holder.uid for holder in holders]
    growth = sum(holder.growth_bytes for holder in holders)
    for run, auto_ports in started:
        assert not run.held
        assert len(auto_ports) == run.auto_ports
        assert set(auto_ports) <= set(AUTO) - capacity.foreign_ports
        assert not {*run.ports, *auto_ports}.intersection(ports)
        assert not run.keys.intersection(keys)
        assert uids.count(run.uid) < capacity.running_per_user
        ports += [*run.ports, *auto_ports]
        keys += run.keys
        uids.append(run.uid)
        growth += run.disk_bytes
        assert capacity.free_disk_bytes is None or growth <= capacity.free_disk_bytes
    assert len(set(ports)) == len(ports)


def _every_queued_run_starts_or_is_told_why_not(snapshot: Snapshot, picked: Picked) -> None:
    """With positions from 1, times that are not past, and the promise only for its own run."""
    started = [grant.id for grant in picked.start]
    assert sorted([*started, *picked.waiting]) == sorted(run.id for run in snapshot.queued)
    positions = [place.position for place in picked.waiting.values()]
    assert positions == list(range(1, len(positions) + 1))
    for run_id, place in picked.waiting.items():
        assert place.reason
        assert place.start_s is None or place.start_s >= 0.0
        is_promised = picked.promise is not None and picked.promise.id == run_id
        assert place.is_promised == is_promised
    assert picked.promise is None or picked.promise.id in picked.waiting


def _the_order_of_what_is_given_says_nothing(
    snapshot: Snapshot, capacity: Capacity, picked: Picked, seed: int
) -> None:
    """A queue read from a dictionary of another order is the same queue."""
    dice = random.Random(seed)
    queued, holders = list(snapshot.queued), list(snapshot.holders)
    dice.shuffle(queued)
    dice.shuffle(holders)
    usage = dict(sorted(snapshot.usage.items(), reverse=True))
    mixed = Snapshot(queued, holders, usage, snapshot.promise)
    assert pick(mixed, capacity, 0.0) == picked


def _a_pick_after_a_pick_changes_nothing(snapshot: Snapshot, capacity: Capacity) -> None:
    """Nobody starts, no promise moves, until something happens."""
    host = Host(capacity)
    host.queued = {run.id: run for run in snapshot.queued}
    host.holders = {run.id: run for run in snapshot.holders}
    host.usage, host.promise = dict(snapshot.usage), snapshot.promise
    first = host.pick()
    again = host.pick()
    assert (again.start, again.promise, again.moved) == ((), first.promise, None)
    assert again.waiting == first.waiting


@settings(steady, max_examples=80)
@given(snapshot=_snapshots(), capacity=_capacities, wanted_s=st.integers(0, 40_000))
def test_the_longest_extension_is_the_longest(
    snapshot: Snapshot, capacity: Capacity, wanted_s: int
) -> None:
    """With it the promise stands; with a little more it does not."""
    host = Host(capacity)
    host.queued = {run.id: run for run in snapshot.queued if run.priority == 0}
    host.holders = {run.id: run for run in snapshot.holders}
    host.pick()
    for holder in list(host.holders.values()):
        before = host.snapshot()
        said = extension(before, capacity, 0.0, holder.id, wanted_s)
        if holder.ends_by_s is None:
            continue
        for by_s, breaks in ((said.longest_s, False), (said.longest_s + 10.0, True)):
            longer = replace(holder, ends_by_s=holder.ends_by_s + by_s)
            others = [h for h in host.holders.values() if h.id != holder.id]
            moved = pick(replace(before, holders=[*others, longer]), capacity, 0.0).moved
            if not breaks:
                assert moved is None
            elif said.longest_s < wanted_s:
                assert moved is not None


class Users:
    """Whatever users of equal priority can do to a host, and what must hold whenever they did."""

    def __init__(self, slots: int, per_user: int) -> None:
        self.host = Host(Capacity(slots, per_user, auto_range=AUTO))
        self.next_id = 1
        self.promised: dict[int, float] = {}

    def submit(self, run: Candidate) -> None:
        """Anyone queues anything."""
        self.host.submit(replace(run, id=self.next_id, disk_bytes=0))
        self.next_id += 1

    def end_early(self, which: int) -> None:
        """A run ends before its latest end, as nearly all do."""
        if self.host.holders:
            self.host.end(sorted(self.host.holders)[which % len(self.host.holders)])

    def extend(self, which: int, by_s: float) -> None:
        """A run is made longer, as far as it may."""
        host = self.host
        runs = sorted([*host.holders, *host.queued])
        if not runs:
            return
        run_id = runs[which % len(runs)]
        longest_s = extension(host.snapshot(), host.capacity, host.now_s, run_id, by_s).longest_s
        if run_id in host.queued:
            run = host.queued[run_id]
            host.queued[run_id] = replace(run, length_s=run.length_s + longest_s)
        else:
            holder = host.holders[run_id]
            assert holder.ends_by_s is not None
            host.holders[run_id] = replace(holder, ends_by_s=holder.ends_by_s + longest_s)
        host.pick()

    def hold_or_release(self, which: int, *, held: bool) -> None:
        """An owner keeps a run back, or lets it go; what is held has no promise."""
        if self.host.queued:
            run_id = sorted(self.host.queued)[which % len(self.host.queued)]
            self.host.queued[run_id] = replace(self.host.queued[run_id], held=held)
            self.host.pick()
            if held:
                self.promised.pop(run_id, None)

    def cancel(self, which: int) -> None:
        """A queued run is stopped."""
        if self.host.queued:
            run_id = sorted(self.host.queued)[which % len(self.host.queued)]
            del self.host.queued[run_id]
            self.promised.pop(run_id, None)
            self.host.pick()

    def pass_time(self, s: float) -> None:
        """Runs reach their latest ends."""
        self.host.pass_time(self.host.now_s + s)

    def check(self) -> None:
        """A time once said is neither moved nor missed; nothing is leased twice."""
        assert all(moved.why == "held" for moved in self.host.moved)
        promise = self.host.promise
        if promise is not None:
            assert self.promised.setdefault(promise.id, promise.start_by_s) == promise.start_by_s
        for run_id, by_s in self.promised.items():
            if run_id in self.host.started:
                assert self.host.started[run_id] <= by_s
            else:
                assert self.host.now_s < by_s
                assert promise is not None
                assert promise.id == run_id
        holders = list(self.host.holders.values())
        ports = [port for holder in holders for port in holder.ports]
        keys = [key for holder in holders for key in holder.keys]
        assert len(set(ports)) == len(ports)
        assert len(set(keys)) == len(keys)
        assert len(holders) <= self.host.capacity.max_running

    def go_home(self) -> None:
        """When all is let go and nobody comes any more, every run gets its turn."""
        host = self.host
        host.queued = {run.id: replace(run, held=False) for run in host.queued.values()}
        host.pick()
        self.check()
        self.pass_time(10_000 * HOUR_S)
        assert host.queued == {}
        self.check()


class AnyDays(RuleBasedStateMachine):
    """All that users can do, in any order."""

    @initialize(slots=st.integers(1, 3), per_user=st.integers(1, 3))
    def begin(self, slots: int, per_user: int) -> None:
        """An empty host."""
        self.users = Users(slots, per_user)

    @rule(run=_candidates(st.just(0)))
    def submit(self, run: Candidate) -> None:
        """A short run, or a long one."""
        self.users.submit(run)

    @rule(which=st.integers(0, 9))
    def end_early(self, which: int) -> None:
        """One of those that hold a slot."""
        self.users.end_early(which)

    @rule(which=st.integers(0, 9), tenths=st.integers(1, 200))
    def extend(self, which: int, tenths: int) -> None:
        """Queued or not."""
        self.users.extend(which, tenths * 360.0)

    @rule(which=st.integers(0, 9), held=st.booleans())
    def hold_or_release(self, which: int, *, held: bool) -> None:
        """Twice is once."""
        self.users.hold_or_release(which, held=held)

    @rule(which=st.integers(0, 9))
    def cancel(self, which: int) -> None:
        """The promised one, perhaps."""
        self.users.cancel(which)

    @rule(tenths=st.integers(1, 300))
    def pass_time(self, tenths: int) -> None:
        """Up to thirty hours."""
        self.users.pass_time(tenths * 360.0)

    @invariant()
    def promises_are_kept(self) -> None:
        """After each of these."""
        if hasattr(self, "users"):
            self.users.check()

    def teardown(self) -> None:
        """Nobody is left behind."""
        if hasattr(self, "users"):
            self.users.go_home()


TestAnyDays = AnyDays.TestCase
TestAnyDays.settings = settings(steady, max_examples=60, stateful_step_count=30)
TestAnyDays = pytest.mark.slow(TestAnyDays)


def a_week(seed: int, steps: int) -> None:
    """Throw dice for what users do: less clever than hypothesis, and much faster."""
    dice = random.Random(seed)
    users = Users(dice.randint(1, 3), dice.randint(1, 3))
    for _ in range(steps):
        match dice.randrange(9):
            case 0 | 1 | 2 | 3:
                ports = frozenset(dice.sample(range(1024, 1028), dice.choice((0, 0, 1, 2))))
                keys = frozenset({"session s"} if dice.random() < 0.1 else ())
                run = Candidate(0, dice.randint(1, 4), ports, dice.choice((0, 0, 4)), keys)
                users.submit(replace(run, length_s=dice.choice((1, 2, 3, 5, 9, 40)) * 360.0))
            case 4:
                users.end_early(dice.randrange(9))
            case 5:
                users.extend(dice.randrange(9), dice.choice((1, 2, 9, 40)) * 360.0)
            case 6:
                users.hold_or_release(dice.randrange(9), held=dice.random() < 0.4)
            case 7 if dice.random() < 0.3:
                users.cancel(dice.randrange(9))
            case _:
                users.pass_time(dice.choice((0.5, 1, 2, 5)) * 360.0)
        users.check()
    users.go_home()


_SEEDS = [
    *range(8),
    *(pytest.param(seed, marks=pytest.mark.campaign) for seed in range(8, 20)),
]


@pytest.mark.slow
@pytest.mark.parametrize("seed", _SEEDS)
def test_promises_are_kept_through_a_week_of_anything(seed: int) -> None:
    """Submissions, early ends, extends, holds, cancels and time, all mixed."""
    a_week(seed, 150)


@pytest.mark.campaign
def test_promises_are_kept_through_years_of_anything() -> None:
    """The same, for as long as one likes to wait."""
    for seed in range(1000, 1200):
        a_week(seed, 200)


@pytest.mark.slow
@steady
@given(seed=st.integers(0, 10_000))
def test_no_stream_of_short_runs_starves_one_that_needs_much(seed: int) -> None:
    """It needs the ports of two others and starts after every other user had a turn."""
    dice = random.Random(seed)
    host = Host(Capacity(3, 3))
    left, right = frozenset({1024}), frozenset({1025})
    host.submit(candidate(1, 1, 5, ports=left))
    host.submit(candidate(2, 2, 9, ports=right))
    host.submit(candidate(3, 3, 10, ports=left | right))
    for run_id in range(4, 2000):
        ports = dice.choice([left, right, frozenset()])
        host.submit(candidate(run_id, dice.randint(4, 6), dice.uniform(0.2, 9), ports=ports))
        host.pass_time(host.now_s + dice.uniform(0.0, HOUR_S))
        if 3 in host.started:
            break
    # Three users with at most nine hours each before it, and those nine that were running.
    assert host.started[3] <= 4 * 9 * HOUR_S


_full_hosts = given(seed=st.integers(0, 10_000), slots=st.integers(1, 3))


@pytest.mark.slow
@settings(steady, max_examples=15)
@_full_hosts
def test_every_user_of_a_full_host_gets_a_turn(seed: int, slots: int) -> None:
    """However many runs the others queue: nobody waits longer than all others have turns."""
    everybody_gets_a_turn(seed, slots)


@pytest.mark.campaign
@steady
@_full_hosts
def test_every_user_of_many_full_hosts_gets_a_turn(seed: int, slots: int) -> None:
    """The same, of more hosts."""
    everybody_gets_a_turn(seed, slots)


def everybody_gets_a_turn(seed: int, slots: int) -> None:
    """Five users each of whom always has a run in the queue."""
    dice = random.Random(seed)
    host = Host(Capacity(slots, 1))
    users, next_id = 5, 1
    submitted: dict[int, float] = {}
    first_of: dict[int, int] = {}
    for _ in range(150):
        for uid in range(1, users + 1):
            if not any(run.uid == uid for run in host.queued.values()):
                submitted[next_id] = host.now_s
                first_of[next_id] = uid
                host.submit(candidate(next_id, uid, dice.uniform(0.5, 12)))
                next_id += 1
        host.pass_time(host.now_s + dice.uniform(0.1, 6) * HOUR_S)
    waited = {run_id: started - submitted[run_id] for run_id, started in host.started.items()}
    assert len({first_of[run_id] for run_id in waited}) == users
    assert max(waited.values()) <= 2 * users * 12 * HOUR_S
    assert host.moved == []
