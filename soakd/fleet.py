"""The nodes of one run that soakd runs itself, from staged folders to ready processes.

Stages them through the shim, launches them, and meets those that an earlier soakd launched.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import trio

from soakd import leases
from soakd.core import node_state, readiness, rows
from soakd.core.errors import HostError, SoakError, UserError
from soakd.core.plan import NodePlan, Plan, plan_to_dict
from soakd.crew import Crew
from soakd.drivers.driver import NodeConfig
from soakd.edge import ports
from soakd.edge.clock import boot_now
from soakd.edge.shim_client import NodeEnd
from soakd.edge.store import RunRow
from soakd.host import Host
from soakd.listeners import Process
from soakd.node import Access, LiveNode
from soakd.nodes import Nodes
from soakd.observer import Observer
from soakd.staging import Staged, Staging
from soakd.view import run_name

BANNER_BYTES = 4096


class Fleet(Nodes):
    """Nodes that soakd stages and launches; `live` are those that run or ran under this soakd."""

    def __init__(self, host: Host, run_id: int, plan: Plan, crew: Crew, observer: Observer) -> None:
        """Nothing is touched yet."""
        super().__init__(host, run_id, plan, crew, observer)
        self._staging = Staging(crew, plan, run_name(run_id))
        self._configs: dict[str, NodeConfig] = {}
        self._pids: dict[str, int] = {}

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
            if isinstance(state, node_state.Ours) and state.pid == end.pid:
                facts = {"code": end.code, "signal": end.signal}
                await self._observer.node_exited(end.node, facts)
        await self._observer.settle()

    # -- starting ------------------------------------------------------------------------------

    async def rejoin(self, held: Mapping[str, Any], *, was_ready: bool) -> None:
        """Meets the nodes that an earlier soakd launched.

        Raises:
            HostError: plan.json does not know a node.
        """
        for node in self._plan.nodes:
            known = held.get(node.name)
            if isinstance(known, dict) and type(known.get("pid")) is int:
                await self._rejoin_one(node, known, was_ready=was_ready)

    async def _rejoin_one(self, node: NodePlan, held: dict[str, Any], *, was_ready: bool) -> None:
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
        records.marker(rows.started(self._pids))

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
        self._pids[node.name] = process.pid
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

    # -- readiness -----------------------------------------------------------------------------

    async def _before_asking(self) -> None:
        """Nothing to look at: whose listeners they are is proven with each connection."""

    async def _after_asking(self) -> None:
        # In each look: the real node of a wrapper may write its token elsewhere, and would
        # then be waited for to the very end.
        for node_plan in self._plan.nodes:
            await self._staging.verify_running(node_plan)

    def _says_simulation(self) -> bool:
        """Whether a node's own banner says that it is a simulation."""
        records, mark = self._written(), self._driver.words.simulation_mark
        return mark is not None and any(
            mark in records.head(f"logs/{name}.out", BANNER_BYTES) for name in self.live
        )
