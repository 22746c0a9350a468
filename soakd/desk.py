"""What users and admins may ask of the queue: to show it, hold, release, put first, extend, drain.

Each act is stored with who wanted it before it takes effect, then `changed` looks who can start.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import trio

from soakd import moves, soaking
from soakd.core import queue, run_state
from soakd.core.errors import UserError
from soakd.core.plan import Plan, parse_plan, plan_to_dict
from soakd.core.run_state import Limits
from soakd.edge.clock import boot_now, rfc3339, wall_now
from soakd.edge.peers import Peer
from soakd.edge.store import RunRow, StaleState, Value
from soakd.host import Host
from soakd.run import Run
from soakd.view import FINISHED, QUEUED, public, run_name
from soakd.waiting import Entry, Waiting, at_boot

Snap = Callable[[], queue.Snapshot]


class Desk:
    """The queue as handlers see it."""

    def __init__(
        self,
        host: Host,
        waiting: Waiting,
        live: dict[int, Run],
        snapshot: Snap,
        changed: Callable[[], None],
    ) -> None:
        """Nothing is asked yet.

        Args:
            host: the daemon's ground.
            waiting: the queue.
            live: runs with a task, by number; the scheduler's own.
            snapshot: what `pick` would be asked now.
            changed: called after each act.
        """
        self.cancelling: set[int] = set()
        self._host = host
        self._waiting = waiting
        self._live = live
        self._snapshot = snapshot
        self._changed = changed

    # -- showing -------------------------------------------------------------------------------

    async def entries(self) -> list[dict[str, Any]]:
        """Runs with a slot, then the queue in the order of its positions; each a QueueEntry."""
        rows = {row.id: row for row in await self._host.db(self._host.store.unfinished_runs)}
        for run_id in self._waiting.holding.keys() - rows.keys():
            # A blocked lease: the run is over, its slot is not free.
            row = await self._host.db(self._host.store.get_run, run_id)
            if row is not None:
                rows[run_id] = row
        snapshot, usage = self._snapshot(), self._waiting.usage()
        ends = {holder.id: holder.ends_by_s for holder in snapshot.holders}
        places = self._waiting.picked.waiting
        order = [*sorted(ends), *sorted(places, key=lambda run_id: places[run_id].position)]
        return [
            self._entry(rows[run_id], ends.get(run_id), usage) for run_id in order if run_id in rows
        ]

    def _entry(
        self, row: RunRow, ends_by_s: float | None, usage: dict[int, float]
    ) -> dict[str, Any]:
        place = self._waiting.place(row.id)
        run = self._live.get(row.id)
        shown = public(row, place["reason"])
        if run is not None:
            shown["state"] = run_state.name(run.state)
        entry, waits = self._waiting.entries.get(row.id), self._waiting.picked.waiting.get(row.id)
        if entry is not None and waits is not None and waits.start_s is not None:
            ends_by_s = waits.start_s + entry.length_s
        return {
            **shown,
            **place,
            "ends_by": None if ends_by_s is None else at_boot(ends_by_s),
            "soak_hours": round(usage.get(row.owner_uid, 0.0), 3),
            "priority": row.priority,
        }

    # -- acts on queued runs -------------------------------------------------------------------

    async def hold(self, run_id: int, peer: Peer) -> dict[str, Any]:
        """Keeps a queued run back; twice is once."""
        return await self._change(run_id, peer, "hold", is_held=True)

    async def release(self, run_id: int, peer: Peer) -> dict[str, Any]:
        """Lets a held run go on waiting; nothing to do for one that is not held."""
        return await self._change(run_id, peer, "release", is_held=False)

    async def top(self, run_id: int, peer: Peer) -> dict[str, Any]:
        """Puts a queued run before all others."""
        others = [e.priority for e in self._waiting.entries.values() if e.id != run_id]
        return await self._change(run_id, peer, "put first", priority=max([0, *others]) + 1)

    async def _change(self, run_id: int, peer: Peer, verb: str, **change: Any) -> dict[str, Any]:
        entry = self._queued(run_id, verb)
        changed = replace(entry, **change)
        if changed != entry:
            columns = {"held": int(changed.is_held), "priority": changed.priority}
            await self._amend(run_id, peer, verb, columns, is_queued=True)
            # Its turn may have come meanwhile.
            self._queued(run_id, verb)
            self._waiting.entries[run_id] = changed
            self._changed()
        return {"id": run_name(run_id), "state": QUEUED, **self._waiting.place(run_id)}

    def _queued(self, run_id: int, verb: str) -> Entry:
        entry = self._waiting.entries.get(run_id)
        if entry is None or run_id in self.cancelling:
            raise UserError(
                "refused",
                f"cannot {verb} {run_name(run_id)}: it is not in the queue any more;"
                f" see `soakctl status {run_name(run_id)}`",
            )
        return entry

    async def cancel(self, run_id: int, peer: Peer) -> bool:
        """Takes a run out of the queue: it ends as stopped without having touched anything.

        Returns:
            False if it is not in the queue.
        """
        entry = self._waiting.entries.get(run_id)
        if entry is None or run_id in self.cancelling:
            return False
        self.cancelling.add(run_id)
        try:
            await self._cancel(entry, peer)
            self._waiting.entries.pop(run_id, None)
        finally:
            self.cancelling.discard(run_id)
            self._changed()
        return True

    async def _cancel(self, entry: Entry, peer: Peer) -> None:
        event = run_state.StopAsked(peer.name)
        limits = Limits.of(entry.plan)
        new = run_state.advance(run_state.Queued(), event, boot_now(), limits)
        assert isinstance(new, run_state.Finished)
        cause = None if new.cause is None else replace(new.cause, at=rfc3339(wall_now()))
        with trio.CancelScope(shield=True):
            await self._host.db(
                self._host.store.transition,
                entry.id,
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

    # -- acts on any run -----------------------------------------------------------------------

    async def label(self, run_id: int, peer: Peer, label: str | None) -> dict[str, Any]:
        """Gives a run another label, in any state of it; None takes it away.

        Raises:
            UserError: `bad_plan`, it is no label.
        """
        row = await self._host.db(self._host.store.get_run, run_id)
        assert row is not None, "a run that was resolved has no row"
        parse_plan(json.loads(row.plan_json) | {"label": label})
        await self._amend(run_id, peer, "label", {"label": label}, detail={"was": row.label})
        run = self._live.get(run_id)
        if run is not None:
            run.relabel(label)
        return {"id": run_name(run_id), "label": label}

    async def extend(
        self, run_id: int, by_s: float, peer: Peer, *, dry_run: bool
    ) -> dict[str, Any]:
        """Lets the rounds of a run start for longer; returns an ExtendResult.

        Args:
            run_id: a run that is not over.
            by_s: by how much.
            peer: who wants it.
            dry_run: only say what it would mean.

        Raises:
            UserError: `refused`, with `longest_s` in the details where less would be possible.
        """
        plan = self._extendable(run_id)
        assert plan.duration_s is not None
        snapshot, capacity, now_s = self._snapshot(), self._waiting.capacity(), boot_now()
        said = queue.extension(snapshot, capacity, now_s, run_id, by_s)
        most_s = self._host.config.max_duration_s - plan.duration_s
        effect = [
            {"id": run_name(other), "delay_s": round(delay_s, 3)}
            for other, delay_s in sorted(said.effect.items())
        ]
        if min(said.longest_s, most_s) < by_s:
            raise _too_long(run_id, by_s, said, most_s, effect)
        if not dry_run:
            # From now on nobody is promised what the run is going to need.
            self._waiting.reserved[run_id] = plan.duration_s + by_s
            try:
                await self._extend(run_id, by_s, peer)
            finally:
                del self._waiting.reserved[run_id]
                self._changed()
        return {
            "id": run_name(run_id),
            "by_s": by_s,
            "longest_s": min(said.longest_s, most_s),
            "duration_s": plan.duration_s + by_s,
            "applied": not dry_run,
            "effect": effect,
        }

    async def soak(self, run_id: int, keys: Mapping[str, Any], peer: Peer) -> dict[str, Any]:
        """Asks kept nodes for rounds; returns a SoakResult.

        Args:
            run_id: a run with `no_rounds`.
            keys: what is measured, by key of the plan.
            peer: who wants it.

        Raises:
            UserError: `bad_plan`, or `refused`: its nodes are not kept, not ready, or busy.
        """
        run = self._live.get(run_id)
        if run is None:
            name = run_name(run_id)
            state = QUEUED if run_id in self._waiting.entries else FINISHED
            why = "wait for its nodes: soakctl wait" if state == QUEUED else "start other nodes"
            more = f" {name} --for ready" if state == QUEUED else ""
            raise UserError("refused", f"cannot soak {name}: it is {state}; {why}{more}")
        return await soaking.ask(run, keys, peer.uid)

    def _extendable(self, run_id: int) -> Plan:
        run, entry = self._live.get(run_id), self._waiting.entries.get(run_id)
        if run_id in self._waiting.reserved:
            text = f"cannot extend {run_name(run_id)}: it is being extended; ask again"
            raise UserError("refused", text)
        if run is None and entry is None:
            raise moves.not_longer(run_id, "finished")
        plan = run.plan if run is not None else self._queued(run_id, "extend").plan
        state = QUEUED if run is None else run_state.name(run.state)
        if plan.duration_s is None or state in ("stopping", FINISHED):
            raise moves.not_longer(run_id, state)
        return plan

    async def _extend(self, run_id: int, by_s: float, peer: Peer) -> None:
        entry = self._waiting.entries.get(run_id)
        if entry is not None:
            longer = moves.longer(entry.plan, by_s)
            columns = {"plan_json": json.dumps(plan_to_dict(longer))}
            await self._amend(
                run_id, peer, "extend", columns, detail={"by_s": by_s}, is_queued=True
            )
            if run_id in self._waiting.entries:
                entry = self._waiting.entries[run_id]
                self._waiting.entries[run_id] = replace(entry, plan=longer)
                return
            # Its turn has come meanwhile, with the plan it had.
        run = self._live.get(run_id)
        if run is None:
            raise moves.not_longer(run_id, FINISHED)
        await run.extend(by_s, peer.uid)

    # -- the host ------------------------------------------------------------------------------

    async def drain(self, peer: Peer, *, is_draining: bool) -> dict[str, Any]:
        """Starts no run any more, or goes on; outlives this soakd."""
        if is_draining != self._waiting.is_draining:
            await self._waiting.drain(is_draining=is_draining)
            what = "drain" if is_draining else "resume"
            await self._host.db(self._host.store.add_audit, wall_now(), None, peer.uid, what)
            self._changed()
        return {
            "draining": is_draining,
            "running": len(self._waiting.holding),
            "queued": len(self._waiting.entries),
        }

    # -- inner ---------------------------------------------------------------------------------

    async def _amend(
        self,
        run_id: int,
        peer: Peer,
        what: str,
        columns: Mapping[str, Value],
        *,
        detail: dict[str, Any] | None = None,
        is_queued: bool = False,
    ) -> None:
        """Writes columns with who wanted it; shielded, since what is asked twice must be known."""
        amend = self._host.store.amend
        text = json.dumps(dict(columns) if detail is None else detail)
        try:
            with trio.CancelScope(shield=True):
                await self._host.db(
                    amend,
                    run_id,
                    wall_now(),
                    peer.uid,
                    what,
                    text,
                    expect_state=QUEUED if is_queued else None,
                    **columns,
                )
        except StaleState as stale:
            text = f"cannot {what} {run_name(run_id)}: it is {stale.found}"
            raise UserError("refused", text) from stale


def _too_long(
    run_id: int,
    by_s: float,
    said: queue.Extension,
    most_s: float,
    effect: list[dict[str, Any]],
) -> UserError:
    longest_s = max(0.0, min(said.longest_s, most_s))
    why = "a run may take no longer than max_duration_s"
    if said.promise is not None and said.longest_s <= most_s:
        start = at_boot(said.promise.start_by_s)
        start = f"{start[:10]} {start[11:19]}Z"
        why = f"{run_name(said.promise.id)} was promised to start by {start}"
    ask = f"the longest possible extension is {int(longest_s)} s"
    if longest_s < 1.0:
        ask = "no extension is possible"
    return UserError(
        "refused",
        f"cannot extend {run_name(run_id)} by {by_s:.15g} s: {why}; {ask}",
        {"longest_s": float(int(longest_s)), "effect": effect},
    )
