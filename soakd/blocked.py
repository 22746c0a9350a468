"""What survived a run's stop ladder: a blocked lease, until the last process of it is gone.

A process that SIGKILL does not end (frozen, or waiting for a disk that never answers) keeps its
port and its identity, so the run keeps its slot and ports: over restarts of soakd, until the
process is gone, the host was restarted, or an admin says `soakctl forget`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

import trio

from soakd import leases
from soakd.core.errors import HostError
from soakd.core.plan import Plan
from soakd.crew import Crew
from soakd.edge.clock import boot_id, wall_now
from soakd.edge.journal import RunFolder
from soakd.edge.pidfds import wait_for_end
from soakd.edge.store import LeaseRow, RunRow
from soakd.host import Host
from soakd.insist import insist
from soakd.leases import Process
from soakd.ledger import stored_plan
from soakd.log import bind, get_logger
from soakd.view import FINISHED, run_name

_log = get_logger()


class BlockedRun:
    """A finished run with processes that could not be ended.

    Attributes:
        is_forgotten: it holds nothing any more, and is only waited for to clean up after it.
    """

    def __init__(
        self, host: Host, run_id: int, plan: Plan, crew: Crew, left: Iterable[Process]
    ) -> None:
        """Touches nothing before `wait_until_gone`; `crew` is the run's, its shim may live."""
        self.id = run_id
        self.plan = plan
        self.is_forgotten = False
        self._host = host
        self._crew = crew
        self._left = dict.fromkeys(left)

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that are left."""
        return tuple(sorted(pid for pid, _ in self._left))

    async def wait_until_gone(self, show: Callable[[], None]) -> None:
        """Waits until nothing is left, then ends the shim that held it, and its cgroup.

        Args:
            show: called when other processes are left than before.
        """
        while True:
            async with trio.open_nursery() as nursery:
                for process in self._left:
                    nursery.start_soon(self._wait_for, process, show)
            left = await self._crew.end_shim()
            if not left:
                await self._book_exits()
                return
            # Out of sight before, such as the shim itself.
            self._left = dict.fromkeys(left)
            await self._write_down()
            show()

    async def forget(self, uid: int) -> tuple[int, ...]:
        """Gives slot and ports back although processes are left, in an admin's name.

        Returns:
            The pids that are left.

        Raises:
            HostError: it could not be written; nothing has changed.
        """
        pids = self.pids
        detail = json.dumps({"pids": pids})
        await self._host.db(self._host.store.forget, self.id, wall_now(), uid, detail)
        self.is_forgotten = True
        _log.info("forgotten", run=self.id, uid=uid, pids=pids)
        return pids

    async def _wait_for(self, process: Process, show: Callable[[], None]) -> None:
        await wait_for_end(*process)
        self._left.pop(process, None)
        _log.info("blocked_process_gone", pid=process[0])
        show()

    async def _book_exits(self) -> None:
        """Nodes whose end nobody has told are gone as well; how they ended was not seen."""
        store = self._host.store
        unseen = json.dumps({"code": None, "signal": None})
        nodes = await self._host.db(store.nodes, self.id)
        gone = [node.name for node in nodes if node.exit_json is None]
        for name in gone:
            await self._host.db(store.node_exited, self.id, name, unseen)
        try:
            await trio.to_thread.run_sync(self._remove_pid_files, gone)
        except HostError as error:
            # The records may be gone by now, or their disk full: no reason to keep a slot.
            _log.warning("pid_files_not_removed", text=error.message)

    def _remove_pid_files(self, nodes: list[str]) -> None:
        with closing(RunFolder.open(self._host.state_dir, self.id)) as folder:
            for node in nodes:
                folder.remove(f"logs/{node}.pid")

    async def _write_down(self) -> None:
        kind = leases.FORGOTTEN if self.is_forgotten else leases.BLOCKED
        for process in self._left:
            key = leases.key_of(process, boot_id())
            await self._host.db(self._host.store.lease, kind, key, self.id)


class BlockedRuns:
    """All of them, by number; satisfies what the scheduler needs to know of runs it had."""

    def __init__(self, host: Host, changed: Callable[[], None]) -> None:
        """Knows none yet; `changed` is called when another run may be able to start."""
        self._host = host
        self._changed = changed
        self._runs: dict[int, BlockedRun] = {}

    @property
    def holding(self) -> list[BlockedRun]:
        """Those that keep a slot and ports; a run on somebody else's nodes had none."""
        runs = self._runs.values()
        return [run for run in runs if not run.is_forgotten and not run.plan.is_attached]

    def add(self, run: BlockedRun) -> None:
        """From now on the run holds what it had."""
        self._runs[run.id] = run

    async def hold(self, run: BlockedRun) -> None:
        """Lives with what is left of a run to its end, then gives back what it held."""
        with bind(run_id=run.id):
            await insist(lambda: run.wait_until_gone(self._changed))
            await insist(lambda: self._host.db(self._host.store.release, run.id))
        del self._runs[run.id]
        self._changed()

    async def forget(self, run_id: int, uid: int) -> tuple[int, ...] | None:
        """Ends the blocked lease of a run; the pids that are left, None if it has none."""
        run = self._runs.get(run_id)
        if run is None or run.is_forgotten:
            return None
        pids = await run.forget(uid)
        self._changed()
        return pids

    def shown(self, run_id: int, status: dict[str, Any]) -> dict[str, Any]:
        """A run's status with what is left of it, while that holds anything."""
        run = self._runs.get(run_id)
        if run is None or run.is_forgotten:
            return status
        return leases.with_blocked(status, run.plan, run.pids)

    async def take_up(self) -> list[BlockedRun]:
        """Those that earlier soakds knew, to be held; leases of other finished runs are ended.

        Raises:
            HostError: the store cannot be written, or the plan of such a run cannot be read.
        """
        store = self._host.store
        by_run: dict[int, list[LeaseRow]] = {}
        for lease in await self._host.db(store.leases):
            by_run.setdefault(lease.run_id, []).append(lease)
        for run_id, held in by_run.items():
            row = await self._host.db(store.get_run, run_id)
            if row is None or row.state != FINISHED:
                continue
            kinds = {lease.kind for lease in held}
            if kinds & {leases.BLOCKED, leases.FORGOTTEN}:
                self.add(self._known_before(row, held))
            else:
                await self._host.db(store.release, run_id)
        return list(self._runs.values())

    def _known_before(self, row: RunRow, held: list[LeaseRow]) -> BlockedRun:
        plan, boot = stored_plan(row), boot_id()
        crew = Crew(self._host, row.id, plan)
        crew.recognise(self._host.state_dir / "runs" / run_name(row.id) / "shim", row)
        ours = [lease for lease in held if lease.kind in (leases.BLOCKED, leases.FORGOTTEN)]
        left = [leases.process_of(lease.key, boot) for lease in ours]
        run = BlockedRun(self._host, row.id, plan, crew, filter(None, left))
        run.is_forgotten = all(lease.kind == leases.FORGOTTEN for lease in ours)
        return run
