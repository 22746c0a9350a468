"""What a run does between its slot and its stop: stage, start, wait for readiness, measure.

Runs beside the run's owner, tells it what has come about, and never decides about the run itself.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import trio

from soakd.abort_gates import AbortGates
from soakd.attached import AttachedNodes
from soakd.core import run_state
from soakd.core.errors import HostError, SoakError
from soakd.core.gates import windows_of
from soakd.core.model import Cause
from soakd.core.plan import Plan
from soakd.core.stats import counters_to_dict
from soakd.crew import Crew
from soakd.drivers import registry
from soakd.edge.clock import boot_id, boot_now, wall_now
from soakd.edge.journal import RunFolder
from soakd.edge.peers import Account
from soakd.edge.shim_client import ShimLost, read_last_words
from soakd.edge.store import RunRow
from soakd.fleet import Fleet
from soakd.host import Host
from soakd.measuring import Measuring, section_of
from soakd.nodes import Nodes
from soakd.observer import ASKED, Observer
from soakd.records import Records, last_sign_of_life
from soakd.view import run_name
from soakd.warming import Warmer

REJOIN_S = 5.0
DISK_CHECK_S = 15.0
ORPHAN = "orphan"
"""The reason of a shim that nobody has connected to for `orphan_grace_s`."""


def loss_of_shim(row: RunRow, text: str) -> run_state.Event:
    """What a run comes to whose shim is not there any more when soakd starts."""
    if row.boot_id is not None and row.boot_id != boot_id():
        why = f"the host was restarted under {run_name(row.id)}; submit it again"
        return run_state.Aborted(Cause("reboot", why))
    return run_state.Failed(Cause("shim_gone", f"cannot take the run over: {text}"))


class Owner(Protocol):
    """What the work needs of its run."""

    plan: Plan
    crew: Crew
    state: run_state.State

    async def tell(self, event: run_state.Event, uid: int | None = None) -> run_state.State:
        """Hands over an event and returns the state after it."""

    def tell_soon(self, event: run_state.Event) -> None:
        """Hands over an event without waiting for what comes of it."""

    def spawn(self, task: Callable[..., Awaitable[object]], *args: object) -> None:
        """Starts a task that lives until the run ends."""

    def progress(self, *, rests: bool = False) -> None:
        """Shows watchers where the run is; `rests`: it stays there for a while."""


class Work:
    """The work of one run; `run` does it, `measuring` are its rounds."""

    def __init__(self, owner: Owner, host: Host, run_id: int, observer: Observer) -> None:
        """Nothing is touched before `run`."""
        self.records: Records | None = None
        self._owner = owner
        self._plan = owner.plan
        self._crew = owner.crew
        kind = AttachedNodes if owner.plan.is_attached else Fleet
        self._fleet: Nodes = kind(host, run_id, owner.plan, owner.crew, observer)
        self._host = host
        self._id = run_id
        self._observer = observer
        self._folder: RunFolder | None = None
        self.measuring = Measuring(owner, observer, self.store_checkpoint)
        self._warmer: Warmer | None = None
        self._begun = False

    @property
    def last_answers(self) -> str:
        """What the nodes answered last while they were waited for; empty before that."""
        return self._fleet.last_answers if self._warmer is None else self._warmer.last_sample

    async def run(self) -> None:
        """Does all of it; returns when rounds have ended, or early when the run is ending.

        Raises:
            SoakError: why the run cannot go on.
        """
        state = self._owner.state
        if isinstance(state, run_state.Staging):
            await self._stage()
            state = await self._owner.tell(run_state.Staged())
        if isinstance(state, run_state.Starting):
            await self._fleet.launch()
            hopeless = await self._fleet.await_ready(self._owner.progress)
            ready = run_state.AllReady() if hopeless is None else run_state.Failed(hopeless)
            state = await self._owner.tell(ready)
        if isinstance(state, run_state.Warming):
            state = await self._warm_up()
        if isinstance(state, run_state.Running):
            await self.measuring.run(state, self._fleet.live, self._written())

    async def rejoin(self, row: RunRow) -> None:
        """Takes over the run of an earlier soakd: its records, its shim, its nodes.

        What came about meanwhile, and what cannot be taken over, is told to the owner.
        """
        run_path = self._host.state_dir / "runs" / run_name(row.id)
        # First of all who its processes are: whatever fails from here on, they can be ended.
        self._crew.recognise(run_path / "shim", row)
        from_at = await self._reopen(run_path)
        await self._observer.load_gaps()
        self._observer.edits = json.loads(row.edits_json)
        try:
            if self.records is None:
                raise ShimLost("its run folder is not there")
            # An earlier soakd may have known more of them.
            registry.get(self._plan.driver)
            account = await self._account_of(row)
            with trio.fail_after(REJOIN_S):
                await self._rejoin_shim(row, account)
        except (ShimLost, trio.TooSlowError, SoakError) as lost:
            await self._lose_shim(row, str(lost) or "it does not answer")
        if from_at is not None:
            await self._book_absence(from_at)

    async def _account_of(self, row: RunRow) -> Account | None:
        """The submitter's account; None while the account database does not answer.

        Raises:
            UserError: the account is gone.
        """
        try:
            return await self._host.account(row.owner_uid)
        except HostError as slow:
            self._observer.event("account_unknown", None, {"text": slow.message})
            return None

    async def _lose_shim(self, row: RunRow, why: str) -> None:
        """The shim cannot be taken over: the run ends, or, while staging, gets another one."""
        self._observer.link = "lost"
        await self._crew.close()
        path = self._host.state_dir / "runs" / run_name(row.id) / "shim.ndjson"
        said = await trio.to_thread.run_sync(read_last_words, path)
        await self._fleet.remember(said.ends)
        if isinstance(self._owner.state, run_state.Staging):
            # Nothing of the run is lost with its shim yet.
            self._observer.left = await self._crew.put_down()
        else:
            self._owner.tell_soon(self._end_of_shim(row, said.reason, why))

    def _end_of_shim(self, row: RunRow, reason: str | None, why: str) -> run_state.Event:
        """What a run comes to whose shim is gone; `reason`: why it stopped the nodes before."""
        if reason in ASKED and row.boot_id == boot_id():
            return self._observer.shim_stopped(str(reason))
        if reason == ORPHAN:
            grace_s = min(self._plan.orphan_grace_s, self._host.config.orphan_grace_s)
            why = (
                f"its shim stopped the nodes: no soakd was there for {grace_s:g} s (orphan_grace_s)"
            )
        elif reason is not None:
            why = f"its shim stopped the nodes ({reason})"
        return loss_of_shim(row, why)

    async def _reopen(self, path: Path) -> float | None:
        """Opens the run folder; returns when it was last written to, None if it is not there."""
        if not (path / "logs").is_dir():
            # Cut off while it was being made: nothing is in it yet.
            await trio.to_thread.run_sync(
                functools.partial(shutil.rmtree, path, ignore_errors=True)
            )
            return None
        from_at = last_sign_of_life(path)
        folder = await trio.to_thread.run_sync(RunFolder.open, self._host.state_dir, self._id)
        await self._use(folder)
        return from_at

    async def _rejoin_shim(self, row: RunRow, account: Account | None) -> None:
        hello = await self._crew.rejoin(self._opened(), row, account)
        self._observer.uid = self._crew.uid
        await self._hear()
        self._begun = hello.get("begun") is True
        nodes = hello.get("nodes")
        was_ready = isinstance(self._owner.state, run_state.Warming | run_state.Running)
        held = nodes if isinstance(nodes, dict) else {}
        await self._fleet.rejoin(held, was_ready=was_ready)
        self._observer.take_ladder(hello)

    async def _hear(self) -> None:
        """From here on the shim is heard, and what the nodes print is read."""
        self._owner.spawn(self._observer.hear, self._crew.connection)
        await self._observer.open_logs()
        self._owner.spawn(self._observer.watch_logs)

    async def _book_absence(self, from_at: float) -> None:
        state = self._owner.state
        if isinstance(state, run_state.Running):
            to_at = wall_now()
            if state.deadline_s is not None and boot_now() > state.deadline_s:
                # Behind the deadline nothing was to be measured.
                to_at -= boot_now() - state.deadline_s
                self._observer.span = [state.since_s, state.deadline_s]
            await self._observer.add_gap(from_at, max(from_at, to_at), "soakd was away")
        cold = isinstance(state, run_state.Running) and state.cold
        if isinstance(state, run_state.Running | run_state.Stopping) and state.soak is not None:
            cold = self._written().is_cold
        section = section_of(self._plan, state)
        columns = functools.partial(section.columns, cold=cold)
        await self._written().skip_cut_round(columns, "gap")

    def lengthen(self, plan: Plan, deadline_s: float | None) -> None:
        """The run may take longer; `deadline_s` is None while its rounds are ahead."""
        self._plan = plan
        self.measuring.lengthen(deadline_s)

    async def let_go(self) -> None:
        """Closes every connection and file; processes are not touched."""
        await self._fleet.close()
        await self._crew.close()
        self._observer.close_logs()
        if self._folder is not None:
            self._folder.close()

    # -- staging -------------------------------------------------------------------------------

    async def _stage(self) -> None:
        host = self._host
        row = await host.db(host.store.get_run, self._id)
        assert row is not None, "the run's row is gone"
        if not self._crew.is_connected:
            await self._hire(row)
        if not self._begun:
            grace_s = min(self._plan.orphan_grace_s, host.config.orphan_grace_s)
            await self._crew.begin(self._opened(), grace_s)
        await self._fleet.stage(row)

    async def _hire(self, row: RunRow) -> None:
        host = self._host
        if self.records is None:
            create = functools.partial(
                RunFolder.create, host.state_dir, row.id, row.owner_uid, system=host.system
            )
            await self._use(await trio.to_thread.run_sync(create))
        await self._written().state_file("running")
        self._fleet.check_ports()
        account = await host.account(row.owner_uid)
        await self._crew.hire(self._opened(), row.shim_n + 1, account)
        self._observer.uid = self._crew.uid
        self._observer.link = "connected"
        await self._hear()

    async def _use(self, folder: RunFolder) -> None:
        self._folder = folder
        # In a thread: it reads everything that the run has recorded so far.
        windows_s = windows_of(self._plan.gates)
        records = await trio.to_thread.run_sync(Records, folder, windows_s)
        self.records = self._observer.records = records
        records.on_news = AbortGates(self._plan, self._observer, self._owner.tell_soon).look
        self._owner.spawn(self._watch_disk)
        self._observer.notes.extend(folder.notes)

    # -- measuring -----------------------------------------------------------------------------

    async def _warm_up(self) -> run_state.State:
        """Waits until the nodes are warm or time is up; returns the run's state then."""
        warmer = self._warmer = Warmer(self._plan, self._fleet.live, self._observer)
        came = await warmer.run(self._owner.progress)
        return await self._owner.tell(came)

    async def _watch_disk(self) -> None:
        limit_bytes = self._host.config.disk_max_bytes
        used_bytes = 0
        while used_bytes <= limit_bytes:
            await trio.sleep(DISK_CHECK_S)
            used_bytes = await trio.to_thread.run_sync(self._written().used_bytes)
        text = f"disk budget: the records take {used_bytes} bytes, disk_max_bytes is {limit_bytes}"
        self._owner.tell_soon(run_state.Failed(self._observer.cause("disk_budget", text)))

    async def store_checkpoint(self) -> None:
        """Stores the counters; the records are ahead of it at any time."""
        await self._host.db(self._host.store.checkpoint, self._id, **self.checkpoint())

    def checkpoint(self) -> dict[str, Any]:
        """Counters and the place in rounds.ndjson up to which they count."""
        records = self._written()
        return {
            "counters_json": json.dumps(counters_to_dict(records.counters)),
            "rounds_offset": records.rounds_bytes,
            "last_round": records.last_round,
        }

    # -- inner ---------------------------------------------------------------------------------

    def _opened(self) -> RunFolder:
        assert self._folder is not None, "the run folder is used before it was opened"
        return self._folder

    def _written(self) -> Records:
        assert self.records is not None, "records are written before they were opened"
        return self.records
