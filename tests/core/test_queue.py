"""First come, first served, with a reason for each that waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from soakd.core.queue import Candidate, pick
from tests.core.helpers import steady

PORTS = frozenset({17835, 17836})


def test_runs_start_in_order_while_slots_are_free() -> None:
    """The rest wait for slots, with their places."""
    picked = pick([Candidate(1), Candidate(2), Candidate(3)], [], 2)
    assert picked == ((1, 2), {3: "slots"}, {3: 1})


def test_a_taken_slot_makes_all_wait() -> None:
    """Capacity counts running ones; a shrunk capacity stops nobody."""
    picked = pick([Candidate(8), Candidate(9)], [Candidate(6), Candidate(7)], 1)
    assert picked.start == ()
    assert picked.positions == {8: 1, 9: 2}


def test_a_port_held_by_a_run_is_named_with_its_holder() -> None:
    """The lowest port that is held; those behind do not overtake."""
    picked = pick([Candidate(8, PORTS), Candidate(9)], [Candidate(7, PORTS)], 3)
    assert picked.start == ()
    assert picked.reasons == {8: "port 17835 leased by r7", 9: "behind r8"}


def test_two_queued_runs_with_the_same_ports_do_not_start_together() -> None:
    """A run that starts now holds its ports at once."""
    picked = pick([Candidate(1, PORTS), Candidate(2, PORTS)], [], 5)
    assert picked.start == (1,)
    assert picked.reasons == {2: "port 17835 leased by r1"}


_ports = st.frozensets(st.integers(1024, 1030), max_size=3)


@steady
@given(
    queued=st.lists(_ports, max_size=8),
    running=st.lists(_ports, max_size=4),
    capacity=st.integers(0, 6),
)
def test_the_queue_never_exceeds_capacity_nor_forgets_a_run(
    queued: list[frozenset[int]], running: list[frozenset[int]], capacity: int
) -> None:
    """Every queued run either starts or has a reason; starters are a prefix of the queue."""
    waiting = [Candidate(100 + place, ports) for place, ports in enumerate(queued)]
    holding = [Candidate(place, ports) for place, ports in enumerate(running)]
    picked = pick(waiting, holding, capacity)
    assert len(picked.start) <= max(0, capacity - len(holding))
    assert [*picked.start, *picked.reasons] == [run.id for run in waiting]
    assert list(picked.positions.values()) == list(range(1, len(picked.reasons) + 1))
    taken = [port for run in holding for port in run.ports]
    for run in waiting[: len(picked.start)]:
        assert not run.ports.intersection(taken)
        taken.extend(run.ports)
