"""The service: bootstrap of fixed length, then the loop, its snapshots, signals and sessions."""

from __future__ import annotations

import signal
from collections.abc import Callable
from enum import Enum, auto

from soakd.simnode.clock import now
from soakd.simnode.commands import CommandQueue
from soakd.simnode.contacts import Contact, Contacts
from soakd.simnode.exchange import compact
from soakd.simnode.fate import SIGINT
from soakd.simnode.keywords import Keywords
from soakd.simnode.loop import Timer
from soakd.simnode.network import Network, Parts
from soakd.simnode.sources import Sources
from soakd.simnode.tracing import Shown

_AT_ONCE_S = 0.003  # the second snapshot follows the first within milliseconds
_BACKOFF_MAX_S = 60.0


class Phase(Enum):
    """Where the service is; Kad commands run in LOOP only."""

    BOOTSTRAP = auto()
    LOOP = auto()
    NEW_SESSION = auto()
    STALLED = auto()


class Kad:
    """Drives sources, keywords and lookups of a node, and its status snapshots."""

    def __init__(
        self,
        parts: Parts,
        contacts: Contacts,
        network: Network,
        sources: Sources,
        keywords: Keywords,
    ) -> None:
        self._parts = parts
        self._contacts = contacts
        self._network = network
        self._sources = sources
        self._keywords = keywords
        self.commands = CommandQueue(parts.loop)
        self.phase = Phase.BOOTSTRAP
        self.snapshot: bytes | None = None
        self.on_snapshot: list[Callable[[bytes], None]] = []
        self._started = 0.0
        self._backoff_s = 1.0
        self._armed: list[Timer] = []
        self._pending: dict[int, float] = {}
        network.on("find", self._serve_find)
        network.on("find_res", self._found)
        network.on("hello", self._serve_hello)
        network.on("hello_res", self._greeted)
        network.on("hello_ack", lambda _peer, _message: parts.counters.add("recv_hello_acks"))

    def bootstrap(self) -> None:
        """Warm up for the configured time; nothing ends it early."""
        seconds = self._parts.config.sim.warmup_secs
        self._parts.tracing.info("app", "warming up", secs=seconds, simulation=True)
        self._parts.tracing.info("kad::bootstrap", "sending initial KAD2 BOOTSTRAP_REQ")
        self._parts.loop.later(seconds, self._bootstrapped)

    def _bootstrapped(self) -> None:
        parts = self._parts
        parts.tracing.info("kad::bootstrap", "bootstrap summary", live=len(self._contacts.live))
        self.persist()
        if not parts.config.get("kad", "service_enabled"):
            parts.loop.stop(0)
            return
        parts.counters.drop_window()
        self._sources.storing = self._keywords.storing = True
        parts.loop.on_signal(signal.SIGINT, self._interrupted)
        kad = parts.config.values["kad"]
        for least, key, call in (
            (1, "service_crawl_every_secs", self.look_up),
            (1, "service_hello_every_secs", self._hello),
            (1, "service_maintenance_every_secs", self._maintain),
            (5, "service_persist_every_secs", self.persist),
        ):
            parts.loop.every(max(least, kad[key]), self._in_loop(call))
        sim = parts.config.sim
        parts.loop.later(sim.heard_after_secs, self._meet_strangers)
        window = sim.status_every_secs or max(5, kad["service_status_every_secs"])
        parts.loop.every(max(0.02, window), self._in_loop(self._take_snapshot))
        self._enter_loop()

    def _in_loop(self, call: Callable[[], None]) -> Callable[[], None]:
        return lambda: call() if self.phase is Phase.LOOP else None

    def _enter_loop(self) -> None:
        parts = self._parts
        self.phase = Phase.LOOP
        self._network.session_lost = False
        self._network.greet_all()
        self._started = now()
        self.persist()
        parts.tracing.info("kad::service", "kad service started")
        self._take_snapshot()
        self._armed = [parts.loop.later(_AT_ONCE_S, self._in_loop(self._take_snapshot))]
        runtime = parts.config.get("kad", "service_runtime_secs")
        if runtime:
            self._armed.append(parts.loop.later(runtime, lambda: parts.loop.stop(0)))
        loss = parts.config.sim.session_loss_every_secs
        if loss:
            self._armed.append(parts.loop.later(loss, self.lose_session))
        self.commands.resume()

    def lose_session(self) -> None:
        """Lose the SAM session and make it again; tables and totals survive, uptime does not."""
        if not self._leave_loop(Phase.NEW_SESSION):
            return
        parts = self._parts
        parts.tracing.warn(
            "app",
            "kad service lost SAM socket; recreating session and continuing",
            error=Shown("SAM closed the connection"),
            backoff_secs=int(self._backoff_s),
        )
        self._backoff_s = min(_BACKOFF_MAX_S, self._backoff_s * 2)
        self.persist()
        parts.loop.later(parts.config.sim.session_recreate_secs, self._enter_loop)

    def stall(self, seconds: float) -> None:
        """Do nothing in the loop for so long (for ever: infinity) or until `recover`."""
        if self._leave_loop(Phase.STALLED) and seconds < float("inf"):
            self._armed = [self._parts.loop.later(seconds, self.recover)]

    def recover(self) -> None:
        """Go on after a stall: uptime counts on, snapshots come at their next tick."""
        if self.phase is Phase.STALLED:
            self.phase = Phase.LOOP
            self._network.session_lost = False
            self._network.greet_all()
            self.commands.resume()

    def _leave_loop(self, phase: Phase) -> bool:
        """Stop all work of the loop; false if it was not running."""
        if self.phase is not Phase.LOOP:
            return False
        for timer in self._armed:
            timer.cancel()
        self.phase = phase
        self._network.session_lost = True
        self.commands.pause()
        return True

    def persist(self) -> None:
        """Write the contacts; a full disk costs a WARN."""
        path = self._parts.config.data_path("nodes.dat")
        try:
            most = self._parts.config.get("kad", "service_max_persist_nodes")
            self._contacts.save(path, most)
        except OSError as error:
            self._parts.tracing.warn(
                "kad::service", "failed to persist nodes.dat", error=str(error)
            )

    def _interrupted(self) -> None:
        """Take a SIGINT, or lose it as the real loop does while it handles something."""
        parts = self._parts
        lost = parts.dice.happens(SIGINT, parts.config.sim.sigint_miss_rate)
        if lost or self.phase is not Phase.LOOP:
            return
        parts.tracing.info("kad::service", "received Ctrl-C")
        self.persist()
        parts.tracing.info("kad::service", "kad service stopped")
        parts.tracing.info("app", "shutting down gracefully")
        # The real program's handler stays until the process is gone; Python's own does not.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if parts.config.sim.stop_secs:
            parts.loop.later(parts.config.sim.stop_secs, lambda: parts.loop.stop(0))
        else:
            parts.loop.stop(0)

    def _take_snapshot(self) -> None:
        moment = now()
        late = [moment - due for due in self._pending.values() if due < moment]
        gauges = {
            "uptime_secs": int(moment - self._started),
            "pending": len(self._pending),
            "pending_overdue": len(late),
            "pending_max_overdue_ms": int(max(late, default=0.0) * 1000),
            "tracked_out_requests": self._network.outstanding,
            **self._contacts.levels(moment),
            **self._sources.gauges,
            **self._keywords.gauges,
        }
        status = self._parts.counters.close_window(gauges)
        self.snapshot = compact(status)
        shown = ("uptime_secs", "routing", "live", "live_10m", "pending", "source_store_files")
        self._parts.tracing.info(
            "kad::service",
            "kad service status",
            event="kad_status",
            **{name: status[name] for name in shown},
        )
        for call in list(self.on_snapshot):
            call(self.snapshot)

    def _meet_strangers(self) -> None:
        self._contacts.meet_strangers(self._parts.config.sim.heard_contacts, now())

    def _maintain(self) -> None:
        self._network.sweep()
        self._keywords.maintain()
        self._contacts.hear_strangers(now())

    def look_up(self) -> None:
        """Send lookups: live nodes first, then the contact that waited longest."""
        moment, count = now(), self._parts.counters.add
        kad = self._parts.config.values["kad"]
        for number in [n for n, due in self._pending.items() if due <= moment]:
            del self._pending[number]
            count("timeouts")
        spacing = max(1, kad["service_req_min_interval_secs"])
        due = [
            contact
            for contact in self._contacts.by_id.values()
            if contact.queried_at is None
            or moment - contact.queried_at >= spacing * 2 ** min(contact.failures, 8)
        ]
        due.sort(key=lambda c: (c.address is None, c.queried_at or 0.0))
        for contact in due[: max(1, kad["service_alpha"])]:
            # Taken back by an answer: one that never comes has been a failure all along.
            contact.failures += 1
            contact.queried_at = moment
            number = self._network.track(contact.kad_id, "find")
            self._pending[number] = moment + max(5, kad["service_req_timeout_secs"])
            count("sent_reqs")
            self._network.send(contact, "find", r=number)

    def _serve_find(self, peer: Contact, message: dict[str, object]) -> None:
        known = min(
            self._parts.config.get("kad", "service_req_contacts"), self._contacts.usable(1, 31)
        )
        self._network.send(peer, "find_res", r=message.get("r"), contacts=known)

    def _found(self, peer: Contact, message: dict[str, object]) -> None:
        number, contacts = message.get("r"), message.get("contacts")
        if self._network.match(peer, "find", message) is None or not isinstance(number, int):
            return
        self._pending.pop(number, None)
        peer.failures = 0
        self._parts.counters.add("recv_ress")
        if isinstance(contacts, int) and 0 <= contacts <= 31:
            self._parts.counters.add("res_contacts", contacts)

    def _hello(self) -> None:
        moment, kad = now(), self._parts.config.values["kad"]
        spacing = max(60, kad["service_hello_min_interval_secs"])
        due = [
            contact
            for contact in self._contacts.by_id.values()
            if contact.hello_at is None or moment - contact.hello_at >= spacing
        ]
        due.sort(key=lambda c: (c.address is None, c.hello_at or 0.0))
        for contact in due[: max(1, kad["service_hello_batch"])]:
            contact.hello_at = moment
            self._parts.counters.add("sent_hellos")
            self._network.send(contact, "hello")

    def _serve_hello(self, peer: Contact, _message: dict[str, object]) -> None:
        self._parts.counters.add("recv_hello_reqs")
        self._network.send(peer, "hello_res")

    def _greeted(self, peer: Contact, _message: dict[str, object]) -> None:
        self._parts.counters.add("recv_hello_ress")
        self._parts.counters.add("sent_hello_acks")
        self._network.send(peer, "hello_ack")
