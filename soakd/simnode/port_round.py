"""Which ports a node greets when, so that all find each other and greetings do not eat the box."""

from __future__ import annotations

from collections import deque

from soakd.simnode.knobs import Sim

# A node that starts alone would do with one; datagrams of many that start at once find no room.
_WHOLE_GREETINGS = 3
_PORTS_PER_GREETING = 4


class PortRound:
    """Which ports are greeted next: the whole range a few times, then round it in small steps."""

    def __init__(self, sim: Sim, own_port: int) -> None:
        ports = range(sim.udp_first_port, sim.udp_first_port + sim.udp_ports)
        # From the own port on: nodes that start together do not all begin with the same one.
        turned = [*range(own_port + 1, ports.stop), *range(ports.start, own_port)]
        self._ports = deque(turned)
        self._whole = 0
        self.begin()

    def begin(self) -> None:
        """Greet the whole range next."""
        self._whole = _WHOLE_GREETINGS

    def next_ports(self) -> list[int]:
        """Return the ports to be greeted now."""
        if self._whole:
            self._whole -= 1
            return list(self._ports)
        ports = list(self._ports)[:_PORTS_PER_GREETING]
        self._ports.rotate(-len(ports))
        return ports
