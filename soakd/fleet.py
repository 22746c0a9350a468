"""The nodes of one run, from staged folders to ready processes.

Stages them through the shim, launches them, meets those that an earlier soakd launched, and waits
until all are ready. Tells nobody what to do: its caller is the run's work.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import trio

from soakd import leases
from soakd.core import node_state, readiness, rows
from soakd.core.errors import HostError, NodeError, SoakError, UserError
from soakd.core.model import Cause
from soakd.core.plan import NodePlan, Plan, plan_to_dict
from soakd.crew import Crew
from soakd.drivers import registry
from soakd.drivers.driver import NodeConfig
from soakd.edge import ports
from soakd.edge.clock import boot_now, sleep_until_boot
from soakd.edge.shim_client import NodeEnd
from soakd.edge.store import RunRow
from soakd.host import Host
from soakd.node import Access, LiveNode, Process
from soakd.observer import Observer
from soakd.records import Records
from soakd.staging import Staged, Staging
from soakd.view import run_name

BANNER_BYTES = 4096
MAX_TOKENS = 1000


class Fleet:
    """The nodes of one run; `live` are those that run or ran under this soakd, by name."""

    def __init__(self, host: Host, run_id: int, plan: Plan, crew: Crew, observer: Observer) -> None:
        """Nothing is touched yet."""
        self.live: dict[str, LiveNode] = {}
        self.last_answers = ""
        self._host = host
        self._id = run_id
        self._plan = plan
        self._observer = observer
        self._crew = crew
        self._staging = Staging(crew, plan, run_name(run_id))
        self._driver = registry.of_stored(plan)
        self._configs: dict[str, NodeConfig] = {}
        self._tokens = 0

    async def close(self) -> None:
        """Closes every connection; processes are not touched."""
        for node in self.live.values():
            await node.close()

    # -- staging -------------------------------------------------------------------------------

    async def stage(self, row: RunRow) -> None:
        """Stages every node folder and writes plan.json.

        Raises:
            SoakError: a folder could not be copied, edited or checked.
        """
        submitted: dict[str, str] = json.loads(row.sha256_json)
        found: dict[str, str] = {}
        for node in self._plan.nodes:
            try:
                staged = await self._staging.stage(node, submitted.get(node.name))
            except SoakError as error:
                error.details.setdefault("node", node.name)
                raise
            for secret in staged.secrets:
                add_secret = self._host.store.add_secret
                await self._host.db(add_secret, self._id, secret.kind, secret.value)
            await self._lease_identity(node, staged)
            self._configs[node.name] = staged.config
            found[node.name] = staged.program_sha256
        await self._write_plan(row, found)

    async def _lease_identity(self, node: NodePlan, staged: Staged) -> None:
        """Two nodes of one identity must not live at the same time, whoever submitted them."""
        if staged.keys is None:
            return
        lease = leases.identity(staged.keys)
        holder = await self._host.db(self._host.store.lease, *lease, self._id)
        if holder is not None:
            raise UserError(
                "refused",
                f"cannot start node {node.name} with the identity in {node.source}:"
                f" {run_name(holder)} uses it; wait for the end of {run_name(holder)}, or use"
                " SOAK_FRESH_IDENTITY=1",
                {"cause": "identity_leased", "node": node.name},
            )

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
            "staged": {name: config.to_dict() for name, config in self._configs.items()},
        }
        await self._written().write_json("plan.json", plan)
        edits_json = json.dumps(self._observer.edits)
        await self._host.db(self._host.store.set_columns, self._id, edits_json=edits_json)

    def check_ports(self) -> None:
        """Refuses a port that somebody holds, before and again right before the launch.

        Raises:
            HostError: it names the holder.
        """
        for node in self._plan.nodes:
            holder = None if node.name in self.live else ports.check_free(node.port)
            if holder is not None:
                text = (
                    f"cannot use port {node.port} for node {node.name}: {holder.text};"
                    " end it or choose another port, as `soakctl start --ports auto` does"
                )
                raise HostError("refused", text, {"cause": "port_busy", "node": node.name})

    async def remember(self, ends: Iterable[NodeEnd] = ()) -> None:
        """Knows from the store what an earlier soakd launched, when its shim cannot be asked.

        Args:
            ends: what the shim has written down of the nodes' ends; those not asked for are told.
        """
        for row in await self._host.db(self._host.store.nodes, self._id):
            if row.pid is None or row.ticks is None:
                continue
            launched = node_state.Launched(row.pid, row.ticks)
            if row.exit_json is None:
                self._observer.states[row.name] = launched
            else:
                ended = node_state.Gone(**json.loads(row.exit_json))
                self._observer.states[row.name] = node_state.advance(launched, ended, boot_now())
        for end in ends:
            if end.asked:
                self._observer.ending()
            state = self._observer.states.get(end.node)
            if state is not None and state.pid == end.pid:
                facts = {"code": end.code, "signal": end.signal}
                await self._observer.node_exited(end.node, facts)
        await self._observer.settle()

    # -- starting ------------------------------------------------------------------------------

    async def rejoin(self, node: NodePlan, held: dict[str, Any], *, was_ready: bool) -> None:
        """Meets a node that an earlier soakd launched; `held` is what the shim says of it.

        Raises:
            HostError: plan.json does not know the node.
        """
        self._configs[node.name] = self._written().staged_config(node.name)
        ticks = held.get("ticks")
        process = Process(held["pid"], ticks if type(ticks) is int else 0, self._crew.uid)
        self._meet(node, process)
        await self._write_down(node, process, is_new=False)
        await self._observer.start_is_written(node.name)
        if was_ready:
            self.see(node.name, readiness.Ready())
        if held.get("state") == "exited":
            await self._observer.node_exited(node.name, held)

    async def launch(self) -> None:
        """Launches every node that does not run yet, and says so in runner.log.

        Raises:
            SoakError: a port is taken, or a node could not be executed.
        """
        records, plan = self._written(), self._plan
        if self.live:
            # Taken over from a soakd that has said all this already.
            await self._launch_missing()
            return
        sessions = leases.session_names(self._id, plan)
        records.marker(rows.run_tag(plan.run_tag, sessions, fresh_identity=plan.fresh_identity))
        await self._launch_missing()
        pids = {name: node.process.pid for name, node in self.live.items()}
        records.marker(rows.started(pids))

    async def _launch_missing(self) -> None:
        self.check_ports()
        for node in self._plan.nodes:
            if node.name not in self.live:
                if node.name not in self._configs:
                    # Staged by a soakd that ended before it launched the node.
                    self._configs[node.name] = self._written().staged_config(node.name)
                try:
                    process = await self._staging.launch(node, self._staging.node_env(node))
                except SoakError as error:
                    error.details.setdefault("node", node.name)
                    raise
                self._meet(node, process)
                # Whole even if this very node's end cancels it: half of it says that it lives.
                with trio.CancelScope(shield=True):
                    await self._write_down(node, process, is_new=True)
                    await self._observer.start_is_written(node.name)

    def _meet(self, node: NodePlan, process: Process) -> None:
        """From here on the node is one that can be called."""
        launched = node_state.Launched(process.pid, process.ticks)
        self._observer.states[node.name] = launched
        self.live[node.name] = LiveNode(
            node,
            self._configs[node.name],
            process,
            Access(self._driver, self._staging.file_reader(node.name), self._keep_token),
            self._observer,
        )

    async def _write_down(self, node: NodePlan, process: Process, *, is_new: bool) -> None:
        records = self._written()
        await records.write(f"logs/{node.name}.pid", f"{process.pid}\n")
        if is_new:
            facts = {"pid": process.pid, "ticks": process.ticks}
            records.event("node_started", node.name, facts)
        put_node = self._host.store.put_node
        await self._host.db(put_node, self._id, node.name, process.pid, process.ticks)

    async def _keep_token(self, token: str) -> None:
        """Remembers a token for as long as bundles of the run may be made.

        Raises:
            NodeError: the node makes new tokens without end.
        """
        self._tokens += 1
        if self._tokens > MAX_TOKENS:
            raise NodeError(
                "too_many_tokens", "cannot go on: the node replaces its token endlessly"
            )
        await self._host.db(self._host.store.add_secret, self._id, "token", token)

    async def await_ready(self, show: Callable[[], None]) -> Cause | None:
        """Waits until all nodes are ready; returns why that is hopeless, None when they are.

        Args:
            show: called when what `status` says of a node has changed.

        Raises:
            NodeError: something else runs in a node's place.
        """
        began_s = boot_now()
        waiting = readiness.begin(self.live, began_s)
        while True:
            for name, answer in (await self._ask_all()).items():
                waiting = readiness.advance(waiting, name, answer, boot_now())
                if self.see(name, answer):
                    show()
            elapsed_s = boot_now() - began_s
            self.last_answers = readiness.described(waiting)
            self._written().marker(rows.ready_check(elapsed_s, readiness.answers(waiting)))
            # In each look: the real node of a wrapper may write its token elsewhere, and would
            # then be waited for to the very end.
            for node_plan in self._plan.nodes:
                await self._staging.verify_running(node_plan)
            match readiness.decide(waiting, boot_now()):
                case readiness.AllReady():
                    self._observer.simulation = self._says_simulation()
                    return None
                case readiness.Failed(cause=cause):
                    return cause
                case readiness.Wait(next_poll_s=next_poll_s):
                    await sleep_until_boot(next_poll_s)

    async def _ask_all(self) -> dict[str, readiness.Answer]:
        """What every node says now; one that hangs makes no other's answer old."""
        answers: dict[str, readiness.Answer] = {}

        async def ask(name: str, node: LiveNode) -> None:
            answers[name] = await node.readiness()

        async with trio.open_nursery() as nursery:
            for name, node in self.live.items():
                nursery.start_soon(ask, name, node)
        return answers

    def see(self, name: str, answer: readiness.Answer) -> bool:
        """Takes an answer into the node's state; whether it has one."""
        state = self._observer.states[name]
        if state is None or isinstance(state, node_state.Exited):
            return False
        event: node_state.NodeEvent | None = None
        if isinstance(answer, readiness.Ready):
            event = node_state.Turned200()
        elif isinstance(answer, readiness.Warming503):
            event = node_state.Answers503()
        if event is not None:
            self._observer.states[name] = node_state.advance(state, event, boot_now())
            return True
        return False

    def _says_simulation(self) -> bool:
        """Whether a node's own banner says that it is a simulation."""
        records, mark = self._written(), self._driver.words.simulation_mark
        return mark is not None and any(
            mark in records.head(f"logs/{name}.out", BANNER_BYTES) for name in self.live
        )

    # -- inner ---------------------------------------------------------------------------------

    def _written(self) -> Records:
        records = self._observer.records
        assert records is not None, "records are written before they were opened"
        return records
