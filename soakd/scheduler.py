"""The queue and the runs that hold a slot: what handlers ask, and what starts next.

Whenever something changed, `core.queue.pick` says what may start; each run then lives in a task of
its own, and whatever goes wrong in one ends there.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

import trio

from soakd import leases
from soakd.blocked import BlockedRun, BlockedRuns
from soakd.collecting import RunBundle, open_run_bundle
from soakd.core import run_state
from soakd.core.errors import UserError
from soakd.core.plan import Plan, ladder_s
from soakd.core.queue import Snapshot
from soakd.desk import Desk
from soakd.edge.clock import boot_now, rfc3339, wall_now
from soakd.edge.peers import Peer
from soakd.edge.store import RunRow
from soakd.flow_table import flow_table
from soakd.guests import Guests
from soakd.host import Host
from soakd.hub import Event, Hub
from soakd.insist import insist
from soakd.ledger import new_run, stored_plan
from soakd.log import bind, get_logger
from soakd.run import Run
from soakd.view import FINISHED, QUEUED, from_row, parse_run_name, planned, public, run_name
from soakd.waiting import Entry, Waiting, at_boot

DEFAULT_LISTED = 200
BURIAL_S = 60.0
LET_GO_S = 2.0
LOOK_EVERY_S = 30.0

_log = get_logger()


class Scheduler:
    """Every run of this soakd; satisfies the handlers' protocol of the same name."""

    def __init__(self, host: Host) -> None:
        """Knows nothing before `load`; starts nothing before `run_forever`."""
        self._host = host
        self._live: dict[int, Run] = {}
        self._blocked = BlockedRuns(host, self._release)
        self._hubs: dict[int, Hub] = {}
        self._waiting = Waiting(host)
        self.desk = Desk(host, self._waiting, self._live, self._snapshot, self._fill_slots)
        self._guests = Guests(host)
        # Slots, and limits per user, bound what is in it.
        self._granted_in, self._granted = trio.open_memory_channel[Run](math.inf)
        self._changed = trio.Event()
        self._picked = trio.Event()
        self._stopping = False

    # -- life ----------------------------------------------------------------------------------

    async def run_forever(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> NoReturn:
        """Holds all runs until cancelled, which lets go of them: their shims live on.

        Started means that every unfinished run of the store was taken over or ended.
        """
        async with trio.open_nursery() as nursery:
            await self._reconcile(nursery)
            self._fill_slots()
            nursery.start_soon(self._keep_looking)
            task_status.started()
            # Started from here and not where they are decided: a request's log context is not the
            # run's.
            async for run in self._granted:
                nursery.start_soon(self._hold, run)
        raise AssertionError("a scheduler ends by cancellation only")

    async def stop_all(self, who: str, uid: int | None) -> None:
        """Stops every live run, starts no other, and returns when each has ended.

        What could not be killed is waited for by the next soakd.
        """
        self._stopping = True
        for run in list(self._live.values()):
            await run.ask_stop(who, uid)
        while self._live:
            await self._changed.wait()

    def counts(self) -> dict[str, int]:
        """How many runs hold a slot, how many wait."""
        return {
            "running": len(self._with_slot()) + len(self._blocked.holding),
            "queued": len(self._waiting.entries),
        }

    @property
    def is_draining(self) -> bool:
        """Whether no run is started."""
        return self._waiting.is_draining

    # -- what handlers ask ---------------------------------------------------------------------

    async def submit(self, peer: Peer, plan: Plan, sha256: dict[str, str]) -> dict[str, Any]:
        """Queues a plan and starts it if a slot is free; returns a StartResult."""
        if self._stopping:
            raise UserError(
                "refused", "cannot start a run: soakd is shutting down; try again later"
            )
        async with self._guests.arriving(peer, plan, is_draining=self.is_draining):
            with self._waiting.arriving(peer.uid, plan):
                new = new_run(peer, plan, sha256)
                run_id = await self._host.db(self._host.store.create_run, new)
            self._hubs[run_id] = Hub()
            if plan.is_attached:
                self._guests.owners[run_id] = peer.uid
                self._granted_in.send_nowait(self._new_run(run_id, plan))
            else:
                self._waiting.entries[run_id] = Entry(run_id, peer.uid, plan)
        self._fill_slots()
        run = self._live.get(run_id)
        place = self._waiting.place(run_id)
        if run is not None:
            await run.settled.wait()
            place["expected_start"] = rfc3339(wall_now())
        # What is promised from now on outlives this soakd.
        await self._waiting.save()
        state = QUEUED if run is None else run_state.name(run.state)
        return {"id": run_name(run_id), "state": state, **place}

    async def resolve(self, run: str | None, peer: Peer) -> int:
        """Number of the run named, or of the peer's active or latest one."""
        if run is None:
            latest = await self._host.db(self._host.store.latest_run_of, peer.uid)
            if latest is None:
                raise UserError(
                    "no_such_run",
                    "cannot choose a run: you have none; start one with `soakctl start`",
                )
            return latest.id
        number = parse_run_name(run)
        if number is None or await self._host.db(self._host.store.get_run, number) is None:
            raise UserError("no_such_run", f"cannot find run {run!r}: see `soakctl list --all`")
        return number

    async def allowed(self, run_id: int, peer: Peer) -> bool:
        """Whether the peer is the owner of the run, or an admin."""
        return peer.admin or (await self._row(run_id)).owner_uid == peer.uid

    async def status(self, run_id: int, peer: Peer) -> dict[str, Any]:
        """A StatusResult, or a PublicRun if the peer is not allowed."""
        row = await self._row(run_id)
        if not peer.admin and row.owner_uid != peer.uid:
            return public(row, self._waiting.reason(run_id))
        return await self._full_status(row)

    async def list_runs(self, peer: Peer, *, all_runs: bool) -> list[dict[str, Any]]:
        """Runs, newest first: the peer's own, or everybody's as far as the peer may see."""
        owner = None if all_runs else peer.uid
        rows = await self._host.db(self._host.store.list_runs, owner, DEFAULT_LISTED)
        return [
            await self._full_status(row)
            if peer.admin or row.owner_uid == peer.uid
            else public(row, self._waiting.reason(row.id))
            for row in rows
        ]

    async def stop(self, run_id: int, peer: Peer) -> dict[str, Any]:
        """Asks a run to stop, or cancels it if it is queued; returns its status without waiting."""
        run = self._live.get(run_id)
        if run is not None:
            await run.ask_stop(peer.name, peer.uid)
        elif await self.desk.cancel(run_id, peer):
            hub = self._hubs.pop(run_id, Hub())
            hub.publish("end", await self._full_status(await self._row(run_id)))
            hub.close()
        return await self.status(run_id, peer)

    async def plan(self, run_id: int) -> dict[str, Any]:
        """What a run was asked to do; returns a PlanResult."""
        row = await self._row(run_id)
        return planned(row, stored_plan(row))

    async def flows(self, run_id: int) -> dict[str, Any]:
        """The outcomes of a run by flow; returns a FlowsResult."""
        run = self._live.get(run_id)
        records = None if run is None else run.work.records
        return {"id": run_name(run_id), "flows": await flow_table(self._host, run_id, records)}

    async def forget(self, run_id: int, peer: Peer) -> dict[str, Any]:
        """Ends a run's blocked lease although processes are left; returns a ForgetResult.

        Raises:
            UserError: it has none.
        """
        while (run := self._live.get(run_id)) is not None and run.is_over:
            # It is being put away: what it holds will show.
            await self._changed.wait()
        name = run_name(run_id)
        pids = await self._blocked.forget(run_id, peer.uid)
        if pids is None:
            state = (await self._row(run_id)).state
            why = f"it is {state}; stop it with `soakctl stop {name}` first"
            if state == FINISHED:
                why = "no process of it is left that keeps a slot or a port; there is nothing to do"
            raise UserError("refused", f"cannot forget {name}: {why}")
        return {"id": name, "pids": list(pids)}

    @asynccontextmanager
    async def watch(
        self, run_id: int, after: int | None
    ) -> AsyncIterator[trio.MemoryReceiveChannel[Event]]:
        """Subscribes to a run's events; the channel closes after `end`, at once if that is past."""
        hub = self._hubs.get(run_id)
        if hub is None:
            hub = Hub()
            hub.publish("end", await self._full_status(await self._row(run_id)))
            hub.close()
            # Its events are forgotten, and with them their numbers: only the end is left to tell.
            after = None
        async with hub.subscribe(after) as events:
            run = self._live.get(run_id)
            if run is not None:
                hub.publish("progress", run.status())
            yield events

    def log_path(self, run_id: int, node: str | None, *, answers: bool = False) -> Path:
        """A log file in soakd's own run folder: the run's, a node's, a self-test's raw answers."""
        of_run = "answers.ndjson" if answers else "runner.log"
        name = of_run if node is None else f"{node}.out"
        if node is not None and not (node.isascii() and node.isalnum()):
            raise UserError(
                "refused", f"cannot read the log of node {node!r}: no node has such a name"
            )
        return self._host.state_dir / "runs" / run_name(run_id) / "logs" / name

    def is_finished(self, run_id: int) -> bool:
        """Whether nothing of the run will write any more."""
        return run_id not in self._live and run_id not in self._waiting.entries

    @asynccontextmanager
    async def collect(
        self, run_id: int, *, full: bool, keep_destinations: bool
    ) -> AsyncIterator[RunBundle]:
        """Packs a bundle; leaving the block ends its helpers."""
        row = await self._row(run_id)
        status = await self._full_status(row)
        options = {"full": full, "keep_destinations": keep_destinations}
        async with open_run_bundle(self._host, row, status, **options) as bundle:
            yield bundle

    # -- slots ---------------------------------------------------------------------------------

    def _fill_slots(self) -> None:
        """Asks `pick` what may start, starts it, and remembers why the others wait."""
        if self._stopping:
            return
        live, blocked = self._with_slot(), self._blocked.holding
        for entry in self._waiting.pick(live, blocked, self.desk.cancelling):
            self._granted_in.send_nowait(self._new_run(entry.id, entry.plan))
        moved = self._waiting.picked.moved
        if moved is not None:
            was = at_boot(moved.broken.start_by_s)
            self._tell("promise_moved", moved.broken.id, {"was": was, "why": moved.why})
        self._picked.set()
        self._picked = trio.Event()

    def _new_run(self, run_id: int, plan: Plan) -> Run:
        self._live[run_id] = run = Run(self._host, run_id, plan, self._hubs[run_id])
        return run

    def _with_slot(self) -> list[Run]:
        """Live runs that hold a slot: nodes that somebody else runs need none."""
        return [run for run in self._live.values() if not run.plan.is_attached]

    def _tell(self, kind: str, run_id: int, data: dict[str, Any]) -> None:
        """Tells those who watch a queued run of something: it has no records yet."""
        hub = self._hubs.get(run_id)
        if hub is not None:
            event = {"at": rfc3339(wall_now()), "boot_s": round(boot_now(), 3), "kind": kind}
            hub.publish("event", event | {"node": None, "data": data})

    def _snapshot(self) -> Snapshot:
        blocked = self._blocked.holding
        return self._waiting.snapshot(self._with_slot(), blocked, self.desk.cancelling)

    async def _keep_looking(self) -> NoReturn:
        """Stores what is promised, and looks at the queue now and then: a disk may have room."""
        while True:
            picked = self._picked
            await insist(self._waiting.save)
            with trio.move_on_after(LOOK_EVERY_S if self._waiting.entries else math.inf) as scope:
                await picked.wait()
            if scope.cancelled_caught:
                self._fill_slots()

    async def _hold(self, run: Run) -> None:
        """Lives with one run to its end: the one place that catches whatever goes wrong in it."""
        with bind(run_id=run.id):
            try:
                try:
                    await run.live()
                except Exception as error:  # noqa: BLE001 - a failing run never takes soakd down
                    _log.exception("run_crashed")
                    await self._bury(run, error)
            finally:
                with trio.CancelScope(shield=True), trio.move_on_after(LET_GO_S):
                    await run.let_go()
            rest = self._put_away(run)
            if rest is not None:
                await self._blocked.hold(rest)

    async def _bury(self, run: Run, error: Exception) -> None:
        """Writes the end of a crashed run down."""

        async def bury() -> None:
            limit_s = BURIAL_S + ladder_s(run.plan)
            with trio.CancelScope(shield=True), trio.fail_after(limit_s):
                await run.bury(error)

        def refused(refusal: Exception) -> None:
            run.note_once(f"the end of the run could not be written yet: {refusal}")

        await insist(bury, refused)

    def _put_away(self, run: Run) -> BlockedRun | None:
        """Gives slot and ports of an ended run back; what is left of it if that keeps them."""
        rest = None
        if run.left:
            rest = BlockedRun(self._host, run.id, run.plan, run.crew, run.left)
            self._blocked.add(rest)
        self._waiting.ended(run.id, run.plan, run.written_bytes)
        del self._live[run.id]
        self._guests.owners.pop(run.id, None)
        self._hubs.pop(run.id, None)
        self._release()
        return rest

    def _release(self) -> None:
        """Somebody has given something back: looks who can start now."""
        self._fill_slots()
        self._changed.set()
        self._changed = trio.Event()

    async def _reconcile(self, nursery: trio.Nursery) -> None:
        """Takes over, or ends, every run that an earlier soakd left unfinished or blocked."""
        await self._waiting.load()
        blocked = await self._blocked.take_up()
        for rest in self._blocked.holding:
            self._waiting.hold_slot(Entry.of(await self._row(rest.id), rest.plan))
        for row in await self._host.db(self._host.store.unfinished_runs):
            plan = stored_plan(row)
            self._hubs[row.id] = Hub()
            if plan.is_attached:
                self._guests.owners[row.id] = row.owner_uid
            elif row.state == QUEUED:
                self._waiting.entries[row.id] = Entry.of(row, plan)
                continue
            else:
                self._waiting.hold_slot(Entry.of(row, plan))
            # A release without leases may have started it.
            await self._host.db(self._host.store.lease_all, leases.of_start(row.id, plan), row.id)
            nursery.start_soon(self._hold, self._new_run(row.id, plan))
        for rest in blocked:
            # Only now: what it gives back must not be given to others before all are known.
            nursery.start_soon(self._blocked.hold, rest)
        for run in list(self._live.values()):
            await run.settled.wait()

    # -- inner ---------------------------------------------------------------------------------

    async def _row(self, run_id: int) -> RunRow:
        row = await self._host.db(self._host.store.get_run, run_id)
        if row is None:
            raise UserError(
                "no_such_run", f"cannot find run {run_name(run_id)}: see `soakctl list --all`"
            )
        return row

    async def _full_status(self, row: RunRow) -> dict[str, Any]:
        run = self._live.get(row.id)
        if run is not None and run.settled.is_set():
            return run.status()
        store = self._host.store
        nodes = await self._host.db(store.nodes, row.id)
        gaps = await self._host.db(store.gaps, row.id)
        status = from_row(row, stored_plan(row), nodes, gaps, self._waiting.reason(row.id))
        return self._blocked.shown(row.id, status) | self._waiting.place(row.id)
