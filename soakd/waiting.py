"""The queue as soakd keeps it: who waits, who holds a slot, what was promised, who used how much.

`core.queue.pick` decides; this puts the question together from plans, states, the store and the
host, and remembers the answer. Nothing is started here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from soakd import leases
from soakd.core import admission, queue, run_state
from soakd.core.admission import UserLimits
from soakd.core.plan import Plan
from soakd.core.queue import Candidate, Capacity, Holder, Moved, Picked, Promise, Snapshot
from soakd.core.run_state import Limits, State
from soakd.core.usage import HALF_LIFE_S, Spell, recent_hours
from soakd.edge import disk, ports
from soakd.edge.clock import boot_id, boot_now, rfc3339, wall_now
from soakd.edge.store import RunRow, SpellRow
from soakd.host import Host

REMEMBERED_S = 30 * HALF_LIFE_S
"""How long ago a run is forgotten: its hours count for a billionth by then."""
SLACK_S = 30.0
"""What a run is given beyond its latest end, once for its start and once for its end."""
FOREIGN_S = 60.0
"""How long a port of the range is left alone in which a stranger was found."""
RATES = 20
"""How many finished runs tell what a node writes."""
DRAIN, PROMISE = "drain", "promise"


@dataclass(frozen=True, slots=True)
class Entry:
    """A run in the queue or with a slot."""

    id: int
    uid: int
    plan: Plan
    priority: int = 0
    is_held: bool = False

    @classmethod
    def of(cls, row: RunRow, plan: Plan) -> Entry:
        """The entry of a stored run."""
        return cls(row.id, row.owner_uid, plan, row.priority, bool(row.held))

    @property
    def length_s(self) -> float:
        """Its latest end after its start, everything included."""
        return Limits.of(self.plan).all_s + 2 * SLACK_S


class LiveRun(Protocol):
    """What is asked of a run that holds a slot; a `Run`."""

    id: int
    plan: Plan

    @property
    def state(self) -> State:
        """Where it is."""

    @property
    def left(self) -> tuple[tuple[int, int], ...]:
        """Processes that could not be ended, once it is over."""


class BlockedRun(Protocol):
    """What is asked of an ended run that keeps its slot."""

    id: int

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that are left."""


class Waiting:
    """The queue; `entries` are those that wait, `holding` those with a slot, by number."""

    def __init__(self, host: Host) -> None:
        """Knows nothing before `load`."""
        self.entries: dict[int, Entry] = {}
        self.holding: dict[int, Entry] = {}
        self.picked = Picked((), {}, None, None)
        self.is_draining = False
        self.reserved: dict[int, float] = {}
        """Durations that live runs are about to get."""
        self._host = host
        self._since_s: dict[int, float] = {}
        self._spells: dict[int, Spell] = {}
        self._rates: list[float] = []
        self._promise: Promise | None = None
        self._stored: str | None = None
        self._foreign: dict[int, float] = {}
        self._submitted: dict[int, list[float]] = {}
        self._arriving: Counter[int] = Counter()
        self._broken: list[Moved] = []

    async def load(self) -> None:
        """Knows what an earlier soakd has stored: drain, promise, and who soaked when."""
        store = self._host.store
        self.is_draining = await self._host.db(store.fact, DRAIN) == "true"
        self._stored = await self._host.db(store.fact, PROMISE)
        if self._stored is not None:
            known = json.loads(self._stored)
            if known is not None and known["boot_id"] == boot_id():
                self._promise = Promise(known["run"], known["start_by_boot_s"])
        for row in await self._host.db(store.spells, wall_now() - REMEMBERED_S):
            if any(node.get("token_file") for node in json.loads(row.plan_json)["nodes"]):
                # On somebody else's nodes: that costs nobody a slot.
                continue
            self._spells[row.id] = Spell(row.owner_uid, row.started_at, row.ended_at)
            self._learn_from(row)

    async def save(self) -> None:
        """Stores the promise if it has changed, so that it outlives this soakd."""
        known = None
        if self._promise is not None:
            known = {
                "run": self._promise.id,
                "start_by_boot_s": self._promise.start_by_s,
                "boot_id": boot_id(),
            }
        while self._broken:
            moved = self._broken[0]
            run_id, start = moved.broken.id, at_boot(moved.broken.start_by_s)
            what = f"promise of {start} moved: {moved.why}"
            await self._host.db(self._host.store.add_audit, wall_now(), run_id, None, what)
            self._broken.remove(moved)
        text = json.dumps(known)
        if text != self._stored:
            await self._host.db(self._host.store.put_fact, PROMISE, text)
            self._stored = text

    async def drain(self, *, is_draining: bool) -> None:
        """Starts nothing any more, or goes on; stored."""
        await self._host.db(self._host.store.put_fact, DRAIN, json.dumps(is_draining))
        self.is_draining = is_draining

    # -- who may come --------------------------------------------------------------------------

    @contextmanager
    def arriving(self, uid: int, plan: Plan) -> Iterator[None]:
        """Refuses a plan that may not be queued, else counts it until its entry is made.

        Raises:
            UserError: `bad_plan` or `refused`, with what to do.
        """
        config = self._host.config
        limits = UserLimits(
            config.queued_per_user, config.max_duration_s, config.submissions_per_minute
        )
        admission.check_duration(plan, limits)
        waiting = sum(entry.uid == uid for entry in self.entries.values()) + self._arriving[uid]
        if plan.is_attached:
            # It will not be in the queue, and no node of it writes here.
            waiting = 0
        now_s = boot_now()
        recent = [at_s for at_s in self._submitted.get(uid, ()) if at_s > now_s - 60.0]
        admission.check_counts(limits, waiting, recent, now_s)
        if not plan.is_attached:
            admission.check_disk(self._disk_bytes(plan), disk.free_bytes(self._host.state_dir))
        self._submitted[uid] = [*recent, now_s]
        self._arriving[uid] += not plan.is_attached
        try:
            yield
        finally:
            self._arriving[uid] -= not plan.is_attached

    # -- who comes and goes --------------------------------------------------------------------

    def hold_slot(self, entry: Entry, since_s: float | None = None) -> None:
        """From now on the run holds a slot; `since_s` if it got it now."""
        self.entries.pop(entry.id, None)
        self.holding[entry.id] = entry
        if since_s is not None:
            self._since_s[entry.id] = since_s
            self._spells[entry.id] = Spell(entry.uid, wall_now())

    def ended(self, run_id: int, plan: Plan, written_bytes: int | None) -> None:
        """The run soaks no more; it may still hold its slot.

        Args:
            run_id: a run that got a slot.
            plan: its plan.
            written_bytes: how large its records are, as far as it has any.
        """
        spell = self._spells.get(run_id)
        if spell is not None and spell.to_s is None:
            now = wall_now()
            self._spells[run_id] = spell._replace(to_s=now)
            if written_bytes is not None:
                self._learn(written_bytes, len(plan.nodes), now - spell.from_s)
        oldest = wall_now() - REMEMBERED_S
        self._spells = {
            known: spell
            for known, spell in self._spells.items()
            if spell.to_s is None or spell.to_s > oldest
        }

    # -- what may start ------------------------------------------------------------------------

    def pick(
        self, live: Collection[LiveRun], blocked: Collection[BlockedRun], leaving: Collection[int]
    ) -> list[Entry]:
        """Takes out what may start now, with the ports that it gets.

        Args:
            live: Runs with a task.
            blocked: Ended ones that keep their slots.
            leaving: Queued ones that are being taken out.
        """
        holding = {run.id for run in live} | {run.id for run in blocked}
        self.holding = {known: e for known, e in self.holding.items() if known in holding}
        self._since_s = {known: s for known, s in self._since_s.items() if known in holding}
        snapshot = self.snapshot(live, blocked, leaving)
        while True:
            picked = queue.pick(snapshot, self.capacity(), boot_now())
            given = [port for grant in picked.start for port in grant.auto_ports]
            strange = [port for port in given if ports.check_free(port) is not None]
            if not strange:
                break
            self._foreign |= dict.fromkeys(strange, boot_now() + FOREIGN_S)
        self.picked, self._promise = picked, picked.promise
        if picked.moved is not None:
            self._broken.append(picked.moved)
        granted = []
        for grant in picked.start:
            entry = self.entries[grant.id]
            if grant.auto_ports:
                entry = replace(entry, plan=_on_ports(entry.plan, grant.auto_ports))
            self.hold_slot(entry, boot_now())
            granted.append(entry)
        return granted

    def snapshot(
        self,
        live: Collection[LiveRun],
        blocked: Collection[BlockedRun],
        leaving: Collection[int] = (),
    ) -> Snapshot:
        """The queue now."""
        holders = [self._live_holder(run) for run in live]
        holders += [
            replace(self._holder(self.holding[run.id]), blocked_pids=run.pids) for run in blocked
        ]
        queued = [self._candidate(e) for e in self.entries.values() if e.id not in leaving]
        return Snapshot(queued, holders, self.usage(), self._promise)

    def capacity(self) -> Capacity:
        """What the host gives now."""
        config, now_s = self._host.config, boot_now()
        self._foreign = {port: until for port, until in self._foreign.items() if until > now_s}
        return Capacity(
            max_running=config.max_running,
            running_per_user=config.running_per_user,
            auto_range=config.auto_range,
            foreign_ports=frozenset(self._foreign),
            draining=self.is_draining,
            free_disk_bytes=disk.free_bytes(self._host.state_dir),
        )

    def usage(self) -> dict[int, float]:
        """Recent soak-hours by user."""
        return recent_hours(self._spells.values(), wall_now())

    # -- what is shown -------------------------------------------------------------------------

    def reason(self, run_id: int) -> str | None:
        """Why a queued run waits."""
        place = self.picked.waiting.get(run_id)
        return None if place is None else place.reason

    def place(self, run_id: int) -> dict[str, Any]:
        """Where a run stands in the queue; all None for one that is not in it."""
        place = self.picked.waiting.get(run_id)
        if place is None:
            return {"position": None, "expected_start": None, "promised": False, "reason": None}
        return {
            "position": place.position,
            "expected_start": None if place.start_s is None else at_boot(place.start_s),
            "promised": place.is_promised,
            "reason": place.reason,
        }

    # -- inner ---------------------------------------------------------------------------------

    def _candidate(self, entry: Entry) -> Candidate:
        plan = entry.plan
        is_auto = plan.ports == "auto"
        return Candidate(
            id=entry.id,
            uid=entry.uid,
            ports=frozenset() if is_auto else _ports(plan),
            auto_ports=len(plan.nodes) if is_auto else 0,
            keys=_keys(entry),
            length_s=entry.length_s,
            disk_bytes=self._disk_bytes(plan),
            priority=entry.priority,
            held=entry.is_held,
        )

    def _holder(self, entry: Entry) -> Holder:
        return Holder(
            entry.id,
            entry.uid,
            _ports(entry.plan),
            _keys(entry),
            priority=entry.priority,
        )

    def _live_holder(self, run: LiveRun) -> Holder:
        entry = self.holding[run.id]
        if run.left:
            pids = tuple(sorted(pid for pid, _ in run.left))
            return replace(self._holder(entry), blocked_pids=pids)
        limits, plan = Limits.of(run.plan), run.plan
        ends_s = run_state.latest_end(run.state, limits)
        now_s = boot_now()
        if isinstance(run.state, run_state.Finished):
            # It is being put away.
            ends_by_s = now_s + SLACK_S
        elif ends_s is None:
            # It has its slot and is only about to know it.
            ends_by_s = self._since_s.get(run.id, now_s) + entry.length_s
        else:
            ends_by_s = ends_s + SLACK_S
        if plan.duration_s is not None:
            ends_by_s += max(0.0, self.reserved.get(run.id, 0.0) - plan.duration_s)
        share = max(0.0, min(1.0, (ends_by_s - now_s) / entry.length_s))
        growth = int(share * self._disk_bytes(run.plan))
        return replace(self._holder(entry), ends_by_s=ends_by_s, growth_bytes=growth)

    def _disk_bytes(self, plan: Plan) -> int:
        config = self._host.config
        rate = max(self._rates, default=float(config.node_disk_bytes_per_hour))
        return admission.disk_bytes(plan, rate, config.disk_max_bytes)

    def _learn_from(self, row: SpellRow) -> None:
        measured = json.loads(row.measured_json) if row.measured_json else {}
        written = measured.get("disk_bytes")
        if written is not None and row.ended_at is not None:
            nodes = len(json.loads(row.plan_json)["nodes"])
            self._learn(written, nodes, row.ended_at - row.started_at)

    def _learn(self, written_bytes: int, nodes: int, took_s: float) -> None:
        """What an hour of a node costs on this host; of the latest runs the dearest counts."""
        rate = admission.node_bytes_per_hour(written_bytes, nodes, took_s)
        if rate is not None:
            self._rates = [*self._rates, rate][-RATES:]


def at_boot(boot_s: float) -> str:
    """A time of the boot clock as records have it."""
    return rfc3339(wall_now() + boot_s - boot_now())


def _ports(plan: Plan) -> frozenset[int]:
    return frozenset(node.port for node in plan.nodes)


def _keys(entry: Entry) -> frozenset[str]:
    wanted = leases.of_start(entry.id, entry.plan)
    return frozenset(f"{kind} {key}" for kind, key in wanted if kind == "session")


def _on_ports(plan: Plan, given: tuple[int, ...]) -> Plan:
    nodes = zip(plan.nodes, given, strict=True)
    return replace(plan, nodes=tuple(replace(node, port=port) for node, port in nodes))
