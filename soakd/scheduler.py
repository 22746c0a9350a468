"""The queue and the runs that hold a slot: what handlers ask, and what starts next.

Whenever something changed, `core.queue.pick` says what may start; each run then lives in a task of
its own, and whatever goes wrong in one ends there.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import trio

from soakd.collecting import RunBundle, open_run_bundle
from soakd.core import queue, run_state
from soakd.core.errors import HostError, SoakError, UserError
from soakd.core.plan import Plan, ladder_s, parse_plan, plan_to_dict
from soakd.core.run_state import Limits
from soakd.edge.clock import boot_now, rfc3339, wall_now
from soakd.edge.peers import Peer
from soakd.edge.store import NewRun, RunRow
from soakd.host import Host
from soakd.hub import Event, Hub
from soakd.log import bind, get_logger
from soakd.run import Run
from soakd.view import FINISHED, QUEUED, from_row, parse_run_name, public, run_name

DEFAULT_LISTED = 200
BURIAL_S = 60.0
LET_GO_S = 2.0
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0

_log = get_logger()


class Scheduler:
    """Every run of this soakd; satisfies the handlers' protocol of the same name."""

    def __init__(self, host: Host) -> None:
        """Knows nothing before `load`; starts nothing before `run_forever`."""
        self._host = host
        self._queued: dict[int, Plan] = {}
        self._cancelling: set[int] = set()
        self._live: dict[int, Run] = {}
        self._hubs: dict[int, Hub] = {}
        self._picked = queue.Picked((), {}, {})
        # At most one entry per slot, so sending never blocks.
        self._granted_in, self._granted = trio.open_memory_channel[Run](host.config.max_running)
        self._changed = trio.Event()
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
            task_status.started()
            # Started from here and not where they are decided: a request's log context is not the
            # run's.
            async for run in self._granted:
                nursery.start_soon(self._hold, run)
        raise AssertionError("a scheduler ends by cancellation only")

    async def stop_all(self, who: str, uid: int | None) -> None:
        """Stops every live run, starts no other, and returns when nothing is left of them."""
        self._stopping = True
        for run in list(self._live.values()):
            await run.ask_stop(who, uid)
        while self._live:
            await self._changed.wait()

    def counts(self) -> dict[str, int]:
        """How many runs hold a slot, how many wait."""
        return {"running": len(self._live), "queued": len(self._queued)}

    # -- what handlers ask ---------------------------------------------------------------------

    async def submit(self, peer: Peer, plan: Plan, sha256: dict[str, str]) -> dict[str, Any]:
        """Queues a plan and starts it if a slot is free; returns a StartResult."""
        if self._stopping:
            raise UserError(
                "refused", "cannot start a run: soakd is shutting down; try again later"
            )
        new = NewRun(
            owner_uid=peer.uid,
            owner_name=peer.name,
            label=plan.label,
            created_at=wall_now(),
            state=QUEUED,
            state_json=json.dumps(run_state.to_dict(run_state.Queued())),
            plan_json=json.dumps(plan_to_dict(plan)),
            sha256_json=json.dumps(sha256),
        )
        run_id = await self._host.db(self._host.store.create_run, new)
        self._queued[run_id] = plan
        self._hubs[run_id] = Hub()
        self._fill_slots()
        run = self._live.get(run_id)
        if run is not None:
            await run.settled.wait()
        state = QUEUED if run is None else run_state.name(run.state)
        return {
            "id": run_name(run_id),
            "state": state,
            "position": self._picked.positions.get(run_id),
            "expected_start": rfc3339(wall_now()) if run is not None else None,
            "reason": self._picked.reasons.get(run_id),
        }

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
            return public(row, self._picked.reasons.get(run_id))
        return await self._full_status(row)

    async def list_runs(self, peer: Peer, *, all_runs: bool) -> list[dict[str, Any]]:
        """Runs, newest first: the peer's own, or everybody's as far as the peer may see."""
        owner = None if all_runs else peer.uid
        rows = await self._host.db(self._host.store.list_runs, owner, DEFAULT_LISTED)
        return [
            await self._full_status(row)
            if peer.admin or row.owner_uid == peer.uid
            else public(row, self._picked.reasons.get(row.id))
            for row in rows
        ]

    async def stop(self, run_id: int, peer: Peer) -> dict[str, Any]:
        """Asks a run to stop, or cancels it if it is queued; returns its status without waiting."""
        run = self._live.get(run_id)
        if run is not None:
            await run.ask_stop(peer.name, peer.uid)
        elif run_id in self._queued and run_id not in self._cancelling:
            self._cancelling.add(run_id)
            try:
                await self._cancel(run_id, peer)
            finally:
                self._cancelling.discard(run_id)
                self._fill_slots()
        return await self.status(run_id, peer)

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

    def log_path(self, run_id: int, node: str | None) -> Path:
        """The log file of a node, or of the run itself, in soakd's own run folder."""
        name = "runner.log" if node is None else f"{node}.out"
        if node is not None and not (node.isascii() and node.isalnum()):
            raise UserError(
                "refused", f"cannot read the log of node {node!r}: no node has such a name"
            )
        return self._host.state_dir / "runs" / run_name(run_id) / "logs" / name

    def is_finished(self, run_id: int) -> bool:
        """Whether nothing of the run will write any more."""
        return run_id not in self._live and run_id not in self._queued

    @asynccontextmanager
    async def collect(
        self,
        run_id: int,
        *,
        full: bool,
        keep_destinations: bool,  # noqa: ARG002 - the wire's parameter is there first
    ) -> AsyncIterator[RunBundle]:
        """Packs a bundle; leaving the block ends its helpers.

        Destinations stay in it, whatever `keep_destinations` says: nothing replaces them yet.
        """
        row = await self._row(run_id)
        status = await self._full_status(row)
        async with open_run_bundle(self._host, row, status, full=full) as bundle:
            yield bundle

    # -- slots ---------------------------------------------------------------------------------

    def _fill_slots(self) -> None:
        """Asks `pick` what may start, starts it, and remembers why the others wait."""
        self._picked = queue.pick(
            [
                queue.Candidate(run_id, _ports(plan))
                for run_id, plan in self._queued.items()
                if run_id not in self._cancelling
            ],
            [queue.Candidate(run.id, _ports(run.plan)) for run in self._live.values()],
            0 if self._stopping else self._host.config.max_running,
        )
        for run_id in self._picked.start:
            plan = self._queued.pop(run_id)
            run = Run(self._host, run_id, plan, self._hubs[run_id])
            self._live[run_id] = run
            self._granted_in.send_nowait(run)

    async def _hold(self, run: Run) -> None:
        """Lives with one run to its end: the one place that catches whatever goes wrong in it."""
        with bind(run_id=run.id):
            try:
                try:
                    await run.live()
                except Exception as error:  # noqa: BLE001 - a failing run never takes soakd down
                    _log.exception("run_crashed")
                    await self._bury(run, error)
                await run.wait_until_gone()
            finally:
                with trio.CancelScope(shield=True), trio.move_on_after(LET_GO_S):
                    await run.let_go()
            self._release(run)

    async def _bury(self, run: Run, error: Exception) -> None:
        """Writes the end of a crashed run down, however long the store or the disk refuses."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                limit_s = BURIAL_S + ladder_s(run.plan)
                with trio.CancelScope(shield=True), trio.move_on_after(limit_s):
                    await run.bury(error)
                    return
            except Exception as refusal:  # noqa: BLE001 - tried again below
                _log.error("end_not_written", text=str(refusal), again_in_s=pause_s)
                run.note_once(f"the end of the run could not be written yet: {refusal}")
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _release(self, run: Run) -> None:
        """Gives slot and ports back: no process of the run is left."""
        del self._live[run.id]
        self._hubs.pop(run.id, None)
        self._fill_slots()
        self._changed.set()
        self._changed = trio.Event()

    async def _cancel(self, run_id: int, peer: Peer) -> None:
        plan = self._queued[run_id]
        event = run_state.StopAsked(peer.name)
        new = run_state.advance(run_state.Queued(), event, boot_now(), Limits.of(plan))
        assert isinstance(new, run_state.Finished)
        cause = None if new.cause is None else replace(new.cause, at=rfc3339(wall_now()))
        with trio.CancelScope(shield=True):
            await self._host.db(
                self._host.store.transition,
                run_id,
                QUEUED,
                FINISHED,
                json.dumps(run_state.to_dict(new)),
                peer.uid,
                "cancelled while queued",
                at=wall_now(),
                ended_at=wall_now(),
                result=new.result,
                verdict=new.verdict,
                why=new.why,
                cause_json=None if cause is None else json.dumps(cause.to_dict()),
            )
        self._queued.pop(run_id, None)
        hub = self._hubs.pop(run_id, Hub())
        hub.publish("end", await self._full_status(await self._row(run_id)))
        hub.close()
        self._fill_slots()

    async def _reconcile(self, nursery: trio.Nursery) -> None:
        """Takes over, or ends, every run that an earlier soakd left unfinished."""
        for row in await self._host.db(self._host.store.unfinished_runs):
            plan = _stored_plan(row)
            self._hubs[row.id] = Hub()
            if row.state == QUEUED:
                self._queued[row.id] = plan
                continue
            run = Run(self._host, row.id, plan, self._hubs[row.id])
            self._live[row.id] = run
            nursery.start_soon(self._hold, run)
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
        plan = parse_plan(json.loads(row.plan_json))
        status = from_row(row, plan, nodes, gaps, self._picked.reasons.get(row.id))
        return status | {"position": self._picked.positions.get(row.id)}


def _stored_plan(row: RunRow) -> Plan:
    try:
        return parse_plan(json.loads(row.plan_json))
    except (ValueError, SoakError) as error:
        raise HostError(
            "internal",
            f"cannot take over run {run_name(row.id)}: this soakd cannot read its plan ({error});"
            " finish the run with the soakd that stored it, then upgrade",
        ) from error


def _ports(plan: Plan) -> frozenset[int]:
    return frozenset(node.port for node in plan.nodes)
