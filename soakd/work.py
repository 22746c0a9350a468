"""What a run does between its slot and its stop: stage, start, wait for readiness, measure.

Runs beside the run's owner, tells it what has come about, and never decides about the run itself.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio

from soakd.core import node_state, readiness, rows, run_state
from soakd.core.errors import HostError
from soakd.core.model import Cause
from soakd.core.plan import CONFIG, NodePlan, Plan, plan_to_dict
from soakd.core.rounds import Cut, NodeDown
from soakd.core.stats import counters_to_dict
from soakd.crew import Crew
from soakd.drivers import rust_mule
from soakd.drivers.rust_mule import NodeConfig
from soakd.edge import ports
from soakd.edge.clock import boot_id, boot_now, sleep_until_boot, wall_now
from soakd.edge.journal import RunFolder
from soakd.edge.shim_client import ShimLost
from soakd.edge.store import RunRow
from soakd.host import Host
from soakd.measure import Measure, pair_columns
from soakd.node import LiveNode, Process
from soakd.observer import Observer
from soakd.records import Records, last_sign_of_life
from soakd.staging import Staging
from soakd.view import run_name

BANNER_BYTES = 4096
REJOIN_S = 5.0
DISK_CHECK_S = 15.0


def loss_of_shim(row: RunRow, text: str) -> run_state.Event:
    """What a run comes to whose shim is not there any more when soakd starts."""
    if row.boot_id is not None and row.boot_id != boot_id():
        why = (
            f"the host was restarted; run it again with `soakctl start --again {run_name(row.id)}`"
        )
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
    """The work of one run; `run` does it, `cut` ends its rounds early."""

    def __init__(self, owner: Owner, host: Host, run_id: int, observer: Observer) -> None:
        """Nothing is touched before `run`."""
        self.records: Records | None = None
        self._owner = owner
        self._plan = owner.plan
        self._crew = owner.crew
        self._staging = Staging(owner.crew, owner.plan, run_name(run_id))
        self._host = host
        self._id = run_id
        self._observer = observer
        self._folder: RunFolder | None = None
        self._configs: dict[str, NodeConfig] = {}
        self._nodes: dict[str, LiveNode] = {}
        self._measure: Measure | None = None
        self._begun = False
        self._cut: Cut | NodeDown | None = None

    @property
    def is_measuring(self) -> bool:
        """Whether rounds are being played: they are cut, everything else is cancelled."""
        return self._measure is not None

    @property
    def phase(self) -> str | None:
        """Step of the round under way."""
        return None if self._measure is None else self._measure.phase

    @property
    def round_number(self) -> int | None:
        """The round under way, or the last one."""
        return None if self._measure is None else self._measure.round_number

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
            await self._launch()
            await self._await_ready()
            state = await self._owner.tell(run_state.AllReady())
        if isinstance(state, run_state.Warming):
            state = await self._owner.tell(run_state.Warmed())
        if isinstance(state, run_state.Running):
            await self._play_rounds(state)

    async def rejoin(self, row: RunRow) -> None:
        """Takes over the run of an earlier soakd: its records, its shim, its nodes.

        What cannot be taken over is told to the owner, who then ends the run.
        """
        folder = await trio.to_thread.run_sync(RunFolder.open, self._host.state_dir, self._id)
        self._use(folder)
        self._observer.edits = json.loads(row.edits_json)
        account = await self._host.account(row.owner_uid)
        try:
            with trio.fail_after(REJOIN_S):
                hello = await self._crew.rejoin(folder, row, account)
        except (ShimLost, trio.TooSlowError) as lost:
            self._observer.link = "lost"
            self._owner.tell_soon(loss_of_shim(row, str(lost) or "it does not answer"))
            return
        self._owner.spawn(self._observer.hear, self._crew.connection)
        self._begun = bool(hello.get("begun"))
        for node in self._plan.nodes:
            await self._rejoin_node(node, hello["nodes"].get(node.name, {}))
        self._observer.take_ladder(hello)
        state = self._owner.state
        if isinstance(state, run_state.Running):
            await self._observer.add_gap(last_sign_of_life(folder), wall_now(), "soakd was away")
            await self._written().skip_cut_round(pair_columns(self._plan, cold=state.cold), "gap")

    async def _rejoin_node(self, node: NodePlan, held: dict[str, Any]) -> None:
        if held.get("pid") is None:
            return
        text = (await self._staging.file_reader(node.name)(CONFIG)).decode()
        name = run_name(self._id)
        self._configs[node.name] = rust_mule.edit_config(text, self._plan, node, name)
        process = Process(int(held["pid"]), int(held["ticks"]), self._crew.uid)
        self._meet(node, process)
        if isinstance(self._owner.state, run_state.Warming | run_state.Running):
            self._see(node.name, readiness.Ready())
            self._observer.simulation = self._says_simulation()
        if held.get("state") == "exited":
            await self._observer.node_exited(node.name, held)

    def cut(self, event: Cut | NodeDown) -> None:
        """Ends the rounds now; the one under way is recorded with the event as its cause."""
        self._cut = event
        if self._measure is not None:
            self._measure.interrupt(event)

    def reopen(self) -> None:
        """Opens the records once more after `let_go`, for the last words of a run that crashed."""
        if self.records is not None:
            self._use(RunFolder.open(self._host.state_dir, self._id))

    async def let_go(self) -> None:
        """Closes every connection and file; processes are not touched."""
        for node in self._nodes.values():
            await node.close()
        await self._crew.close()
        if self._folder is not None:
            self._folder.close()

    # -- staging -------------------------------------------------------------------------------

    async def _stage(self) -> None:
        host = self._host
        row = await host.db(host.store.get_run, self._id)
        assert row is not None, "the run's row is gone"
        if not self._crew.hired:
            create = functools.partial(
                RunFolder.create, host.state_dir, row.id, row.owner_uid, system=host.system
            )
            self._use(await trio.to_thread.run_sync(create))
            await self._written().state_file("running")
            self._check_ports()
            account = await host.account(row.owner_uid)
            await self._crew.hire(self._opened(), row.shim_n + 1, account)
            self._owner.spawn(self._observer.hear, self._crew.connection)
        if not self._begun:
            grace_s = min(self._plan.orphan_grace_s, host.config.orphan_grace_s)
            await self._crew.begin(self._opened(), grace_s)
        await self._stage_nodes(row)

    async def _stage_nodes(self, row: RunRow) -> None:
        submitted: dict[str, str] = json.loads(row.sha256_json)
        found: dict[str, str] = {}
        for node in self._plan.nodes:
            staged = await self._staging.stage(node, submitted.get(node.name))
            self._configs[node.name] = staged.config
            found[node.name] = staged.program_sha256
        await self._write_plan(row, found)

    def _use(self, folder: RunFolder) -> None:
        self._folder = folder
        self.records = self._observer.records = Records(folder)
        self._observer.notes.extend(folder.notes)

    async def _write_plan(self, row: RunRow, program_sha256: dict[str, str]) -> None:
        edits = [edit for config in self._configs.values() for edit in config.edits]
        self._observer.edits = [edit.text for edit in edits]
        configs = {name: config.text for name, config in self._configs.items()}
        plan = {
            "run": run_name(self._id),
            "owner": row.owner_name,
            "plan": plan_to_dict(self._plan),
            "program_sha256": program_sha256,
            "edits": [edit.to_dict() for edit in edits],
            "config": configs,
        }
        await self._written().write_json("plan.json", plan)
        edits_json = json.dumps(self._observer.edits)
        await self._host.db(self._host.store.set_columns, self._id, edits_json=edits_json)

    def _check_ports(self) -> None:
        for node in self._plan.nodes:
            holder = ports.check_free(node.port)
            if holder is not None:
                text = (
                    f"cannot use port {node.port} for node {node.name}: {holder.text};"
                    " end it or choose another port"
                )
                raise HostError("refused", text, {"cause": "port_busy", "node": node.name})

    # -- starting ------------------------------------------------------------------------------

    async def _launch(self) -> None:
        records, plan = self._written(), self._plan
        sessions = {
            node.name: rust_mule.session_name(plan, node.name, run_name(self._id))
            for node in plan.nodes
        }
        records.marker(rows.run_tag(plan.run_tag, sessions, fresh_identity=plan.fresh_identity))
        self._check_ports()
        pids = {}
        for node in plan.nodes:
            if node.name not in self._nodes:
                process = await self._staging.launch(node, self._staging.node_env())
                self._meet(node, process)
                await self._write_down(node, process)
            pids[node.name] = self._nodes[node.name].process.pid
        records.marker(rows.started(pids))
        self._owner.progress()

    def _meet(self, node: NodePlan, process: Process) -> None:
        """From here on the node is one that can be called."""
        launched = node_state.Launched(process.pid, process.ticks)
        self._observer.states[node.name] = launched
        self._nodes[node.name] = LiveNode(
            node,
            self._configs[node.name],
            process,
            self._staging.file_reader(node.name),
            self._keep_token,
        )

    async def _write_down(self, node: NodePlan, process: Process) -> None:
        records = self._written()
        await records.write(f"logs/{node.name}.pid", f"{process.pid}\n")
        records.event("node_started", node.name, {"pid": process.pid, "ticks": process.ticks})
        put_node = self._host.store.put_node
        await self._host.db(put_node, self._id, node.name, process.pid, process.ticks)

    async def _keep_token(self, token: str) -> None:
        """Remembers a token for as long as bundles of the run may be made."""
        await self._host.db(self._host.store.add_secret, self._id, "token", token)

    async def _await_ready(self) -> None:
        began_s = boot_now()
        waiting = readiness.begin(self._nodes, began_s)
        while True:
            for name, node in self._nodes.items():
                answer = await node.readiness()
                waiting = readiness.advance(waiting, name, answer, boot_now())
                self._see(name, answer)
            elapsed_s = boot_now() - began_s
            self._written().marker(rows.ready_check(elapsed_s, readiness.answers(waiting)))
            match readiness.decide(waiting, boot_now()):
                case readiness.AllReady():
                    self._observer.simulation = self._says_simulation()
                    return
                case readiness.Failed(cause=cause):
                    await self._owner.tell(run_state.Failed(cause))
                    raise HostError("refused", cause.text, {"cause": cause.code})
                case readiness.Wait(next_poll_s=next_poll_s):
                    await sleep_until_boot(next_poll_s)

    def _see(self, name: str, answer: readiness.Answer) -> None:
        state = self._observer.states[name]
        if state is None or isinstance(state, node_state.Exited):
            return
        event: node_state.NodeEvent | None = None
        if isinstance(answer, readiness.Ready):
            event = node_state.Turned200()
        elif isinstance(answer, readiness.Warming503):
            event = node_state.Answers503()
        if event is not None:
            self._observer.states[name] = node_state.advance(state, event, boot_now())
            self._owner.progress()

    def _says_simulation(self) -> bool:
        """Whether a node's own banner says that it is a simulation."""
        records = self._written()
        return any(
            rust_mule.SIMULATION_MARK in records.head(f"logs/{name}.out", BANNER_BYTES)
            for name in self._nodes
        )

    # -- measuring -----------------------------------------------------------------------------

    async def _play_rounds(self, running: run_state.Running) -> None:
        observer, records = self._observer, self._written()
        observer.running_since(running.since_s)
        if records.last_round == 0:
            left_s = None if running.deadline_s is None else running.deadline_s - boot_now()
            deadline = None if left_s is None else wall_now() + left_s
            records.marker(rows.soak_start(self._plan.duration_s, deadline))
        measure = Measure(self._plan, self._nodes, records, self._show, self._checkpoint)
        self._measure = measure
        if self._cut is not None:
            measure.interrupt(self._cut)
        async with trio.open_nursery() as nursery:
            for node in self._nodes.values():
                nursery.start_soon(node.watch_status, observer)
                nursery.start_soon(node.watch_resources, observer)
            nursery.start_soon(self._watch_disk)
            ended = await measure.run(running)
            nursery.cancel_scope.cancel()
        if ended is not None:
            await self._owner.tell(ended)

    def _show(self, rests: bool) -> None:  # noqa: FBT001 - a callback
        self._owner.progress(rests=rests)

    async def _watch_disk(self) -> None:
        limit_bytes = self._host.config.disk_max_bytes
        used_bytes = 0
        while used_bytes <= limit_bytes:
            await trio.sleep(DISK_CHECK_S)
            used_bytes = await trio.to_thread.run_sync(self._written().used_bytes)
        text = f"disk budget: the records take {used_bytes} bytes, disk_max_bytes is {limit_bytes}"
        self._owner.tell_soon(run_state.Failed(self._observer.cause("disk_budget", text)))

    async def _checkpoint(self) -> None:
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
