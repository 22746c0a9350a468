"""Datagrams between the nodes of one simulated network: discovery, matching, dispatch.

A node greets a range of loopback ports, so no process has to know the others: all of it when it
starts, and a few ports at a time from then on, lest many nodes spend the box on greetings. Every
datagram bears the network's name and the Kad ids of both ends; anything else is dropped and
counted. The port is open to every user of the host, hence all of a datagram is checked before use.
"""

from __future__ import annotations

import errno
import json
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from soakd.simnode.clock import now
from soakd.simnode.config import Config
from soakd.simnode.contacts import Contact, Contacts
from soakd.simnode.fatal import FatalError, os_error
from soakd.simnode.fate import Dice
from soakd.simnode.identity import Identity, is_destination, is_id
from soakd.simnode.loop import READ, Loop
from soakd.simnode.port_round import PortRound
from soakd.simnode.status import Counters
from soakd.simnode.tracing import Tracing, short_id

_LOOPBACK = "127.0.0.1"
_DATAGRAM = 65507
_PER_TURN = 64
_MOST_PEERS = 512
TRACKED_S = 180.0


class Parts(NamedTuple):
    """What every piece of a node needs."""

    config: Config
    loop: Loop
    tracing: Tracing
    counters: Counters
    dice: Dice
    identity: Identity


class Tracked(NamedTuple):
    """A request that waits for its one answer."""

    peer: str
    kind: str
    expires: float
    context: Any


Handler = Callable[[Contact, dict[str, Any]], None]


class Network:
    """The socket of a node, and who is at the other ends."""

    def __init__(self, parts: Parts, contacts: Contacts) -> None:
        self._parts = parts
        self._contacts = contacts
        self._handlers: dict[str, Handler] = {}
        self._tracked: dict[int, Tracked] = {}
        self._lost: deque[float] = deque()
        self._request = 0
        self._seen: dict[tuple[str, str], tuple[int, int]] = {}
        self.session_lost = False
        self._socket = _bound(parts.config)
        self.port: int = self._socket.getsockname()[1]
        self._greetings = {reply: self._greeting(reply=reply) for reply in (True, False)}
        self._round = PortRound(parts.config.sim, self.port)
        parts.loop.add(self._socket, READ, self._readable)
        parts.loop.every(max(0.05, parts.config.sim.beacon_secs), self.greet_some)
        self.greet_some()

    def on(self, kind: str, handler: Handler) -> None:
        """Call `handler(sender, message)` for datagrams of this kind."""
        self._handlers[kind] = handler

    def live(self) -> list[Contact]:
        """Return the running nodes that were heard of."""
        return list(self._contacts.live.values())

    @property
    def outstanding(self) -> int:
        """Number of requests that wait for an answer."""
        return len(self._tracked) + len(self._lost)

    def send(self, peer: Contact, kind: str, **fields: Any) -> None:
        """Send a datagram now; like any datagram it may be lost."""
        if peer.address is not None and not self.session_lost:
            self._transmit(peer.address, self._encoded({"k": kind, "t": peer.kad_id, **fields}))

    def send_later(self, delay_s: float, peer: Contact, kind: str, **fields: Any) -> None:
        """Send a datagram that travels for so long."""
        if delay_s <= 0:
            self.send(peer, kind, **fields)
            return
        self._parts.loop.later(delay_s, lambda: self.send(peer, kind, **fields))

    def track(self, peer: str, kind: str, context: Any = None) -> int:
        """Note a request to a peer, and return its number."""
        self._request += 1
        moment = now()
        self._tracked[self._request] = Tracked(peer, kind, moment + TRACKED_S, context)
        return self._request

    def lose(self) -> int:
        """Note a request that the simulated network lost, and return its number.

        It stands among the tracked ones like any other; no answer can come, so its end is enough.
        """
        self._request += 1
        self._lost.append(now() + TRACKED_S)
        return self._request

    def match(
        self, peer: Contact, kind: str, message: dict[str, Any], *, more: bool = False
    ) -> Tracked | None:
        """Return the request that this answer belongs to; None and counted if there is none.

        Each request covers one answer, unless this one says that there is more to come.
        """
        number = message.get("r")
        tracked = self._tracked.get(number) if isinstance(number, int) else None
        if tracked is None or tracked.peer != peer.kad_id or tracked.kind != kind:
            self._parts.counters.add("tracked_out_unmatched")
            self._parts.tracing.debug("kad", "kad inbound drop", reason="unrequested_response")
            return None
        if not more:
            del self._tracked[int(message["r"])]
        self._parts.counters.add("tracked_out_matched")
        return tracked

    def sweep(self) -> None:
        """Forget requests that were never answered."""
        moment = now()
        while self._lost and self._lost[0] <= moment:
            self._lost.popleft()
            self._parts.counters.add("tracked_out_expired")
        while self._tracked:
            number, tracked = next(iter(self._tracked.items()))
            if tracked.expires > moment:
                return
            del self._tracked[number]
            self._parts.counters.add("tracked_out_expired")

    def greet_some(self) -> None:
        """Tell the next ports of the range that we are here."""
        if not self.session_lost:
            for port in self._round.next_ports():
                self._transmit(port, self._greetings[True])

    def greet_all(self) -> None:
        """Begin again with the whole range: others may have come while we heard nothing."""
        self._round.begin()
        self.greet_some()

    def _greeting(self, *, reply: bool) -> bytes:
        destination = self._parts.identity.destination
        return self._encoded({"k": "here", "t": "", "d": destination, "reply": reply})

    def _encoded(self, message: dict[str, Any]) -> bytes:
        head = {"n": self._parts.config.sim.network, "f": self._contacts.own_id}
        return json.dumps({**head, **message}, separators=(",", ":")).encode()

    def _transmit(self, port: int, data: bytes) -> None:
        try:
            self._socket.sendto(data, (_LOOPBACK, port))
        except OSError as error:
            self._parts.tracing.debug("kad", "datagram lost", error=str(error))

    def _readable(self, _events: int) -> None:
        for _ in range(_PER_TURN):
            try:
                data, (_host, port) = self._socket.recvfrom(_DATAGRAM)
            except BlockingIOError:
                return
            if not self.session_lost:
                self._received(data, port)

    def _received(self, data: bytes, port: int) -> None:
        message = _parsed(data)
        if message is None:
            self._parts.counters.add("dropped_unparsable")
            return
        sender = message["f"]
        if message.get("n") != self._parts.config.sim.network or sender == self._contacts.own_id:
            return
        if message["k"] == "here":
            self._here(message, port)
            return
        peer = self._contacts.live.get(sender)
        if peer is None or peer.address != port or message.get("t") != self._contacts.own_id:
            self._parts.counters.add("dropped_undecipherable")
            return
        peer.heard_at = peer.seen_at = now()
        if self._too_many(sender, message["k"]):
            return
        handler = self._handlers.get(message["k"])
        if handler is None:
            self._parts.counters.add("dropped_unhandled_opcode")
            return
        self._parts.tracing.debug(
            "kad", "kad inbound packet", event="kad_inbound_packet", from_port=port
        )
        handler(peer, message)

    def _here(self, message: dict[str, Any], port: int) -> None:
        destination = message.get("d")
        known = self._contacts.by_id.get(message["f"])
        # Checked once: each node hears the same few addresses for days.
        same = known is not None and known.destination == destination
        if not isinstance(destination, str) or not (same or is_destination(destination)):
            self._parts.counters.add("dropped_unparsable")
            return
        if len(self._contacts.live) >= _MOST_PEERS and message["f"] not in self._contacts.live:
            return
        if self._contacts.heard(message["f"], destination, port, now()):
            self._parts.counters.add("new_nodes")
            self._parts.tracing.info(
                "kad::service",
                "simulated node found",
                event="simnode_found",
                kad_id=short_id(message["f"]),
                udp_port=port,
            )
        if message.get("reply"):
            self._transmit(port, self._greetings[False])

    def _too_many(self, sender: str, kind: str) -> bool:
        limit = self._parts.config.sim.inbound_per_minute
        if not limit or kind not in ("find", "publish", "search", "publish_key", "search_key"):
            return False
        minute = int(now() // 60)
        window, count = self._seen.get((sender, kind), (minute, 0))
        count = count + 1 if window == minute else 1
        self._seen[sender, kind] = (minute, count)
        if count > limit:
            self._parts.tracing.debug(
                "kad", "kad inbound drop", event="kad_inbound_drop", reason="request_rate_limited"
            )
        return count > limit


def _bound(config: Config) -> socket.socket:
    sim = config.sim
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    last = OSError(errno.EADDRINUSE, "Address already in use")
    for port in range(sim.udp_first_port, sim.udp_first_port + sim.udp_ports):
        try:
            sock.bind((_LOOPBACK, port))
        except OSError as error:
            last = error
        else:
            return sock
    raise FatalError(
        f'App(Sam(Io {{ op: "bind UDP socket for SAM forwarding", source: {os_error(last)} }}))'
    )


def _parsed(data: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or not isinstance(message.get("k"), str):
        return None
    sender = message.get("f")
    return message if isinstance(sender, str) and is_id(sender) else None
