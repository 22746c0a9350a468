from __future__ import annotations

from soakd.simnode.knobs import Sim
from soakd.simnode.port_round import PortRound

SIM = Sim(udp_first_port=5000, udp_ports=10)


def test_the_whole_range_is_greeted_first_and_more_than_once() -> None:
    """All but the own port; a datagram may be lost when many start at once."""
    ports = PortRound(SIM, 5003)
    for _ in range(3):
        assert sorted(ports.next_ports()) == [5000, 5001, 5002, *range(5004, 5010)]


def test_later_a_few_ports_at_a_time_go_round_the_range() -> None:
    """Four at a time, so that the traffic of many nodes does not grow with its square."""
    ports = PortRound(SIM, 5003)
    for _ in range(3):
        ports.next_ports()
    steps = [ports.next_ports() for _ in range(9)]
    assert steps[0] == [5004, 5005, 5006, 5007]
    assert {len(step) for step in steps} == {4}
    assert [sum(step.count(port) for step in steps) for port in (5000, 5004, 5009)] == [4, 4, 4]


def test_a_new_beginning_greets_the_whole_range_again() -> None:
    """After a lost session others may have come."""
    ports = PortRound(SIM, 5000)
    for _ in range(5):
        ports.next_ports()
    ports.begin()
    assert len(ports.next_ports()) == 9


def test_a_range_of_one_port_has_nobody_to_greet() -> None:
    """The node has it all to itself."""
    ports = PortRound(Sim(udp_first_port=5000, udp_ports=1), 5000)
    assert [ports.next_ports() for _ in range(4)] == [[]] * 4
