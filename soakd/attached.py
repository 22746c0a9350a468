"""The nodes of one run that somebody else runs: met where they listen, never started or stopped.

Nothing of them is staged, launched, signalled or read but the token files, and those by the shim,
with the submitter's rights. Whose listener it is, is all that is known of a node's process.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import trio

from soakd.core import node_state, rows
from soakd.core.errors import HostError, NodeError
from soakd.core.plan import NodePlan, Plan, plan_to_dict
from soakd.crew import Crew, words_of
from soakd.drivers.driver import NodeConfig
from soakd.edge.journal import RunFolder
from soakd.edge.shim_client import NodeEnd, ShimLost, ShimRefused
from soakd.edge.store import RunRow
from soakd.guests import check_leases
from soakd.host import Host
from soakd.listeners import Stranger
from soakd.node import Access, LiveNode
from soakd.nodes import Nodes
from soakd.observer import Observer
from soakd.view import run_name


def base_url(node: NodePlan) -> str:
    """Where a node's API is, for people and plan.json."""
    host = f"[{node.host}]" if ":" in node.host else node.host
    return f"http://{host}:{node.port}"


class AttachedNodes(Nodes):
    """Somebody else's nodes."""

    def __init__(self, host: Host, run_id: int, plan: Plan, crew: Crew, observer: Observer) -> None:
        """Nothing is asked yet."""
        super().__init__(host, run_id, plan, crew, observer)
        self._strangers: dict[str, Stranger] = {}
        self._written_uids: dict[str, int] = {}
        self._was_announced = False
        observer.states.update({node.name: node_state.Attached() for node in plan.nodes})

    async def stage(self, row: RunRow) -> None:
        """Writes plan.json: there is nothing to stage."""
        self._was_announced = False
        await self._write_plan(row, {})

    def check_ports(self) -> None:
        """They are held, and should be."""

    async def remember(self, ends: Iterable[NodeEnd] = ()) -> None:
        """Of nodes that no shim holds nothing is to be known; `ends` there are none."""

    async def rejoin(self, _held: Mapping[str, Any], *, was_ready: bool) -> None:  # noqa: ARG002
        """Goes on where an earlier soakd was; whom it met, nobody else may be now."""
        folder = self._written().folder
        if not folder.exists("plan.json"):
            # It had not come so far.
            return
        self._written_uids = _met_before(folder)
        self._was_announced = True
        await self._meet(self._written_uids)

    async def launch(self) -> None:
        """Says which nodes these are; they run already."""
        if not self._was_announced:
            urls = {node.name: base_url(node) for node in self._plan.nodes}
            self._written().marker(rows.attached(urls))
            await self._meet({})

    async def _meet(self, uids: Mapping[str, int]) -> None:
        for node in self._plan.nodes:
            # How often a status is made anew is not known of these: as the driver has it.
            edit = functools.partial(
                self._driver.edit_config, None, self._plan, node, run_name(self._id)
            )
            window_s = (await trio.to_thread.run_sync(edit)).status_window_s
            stranger = Stranger(self._observer.event, uids.get(node.name))
            self._strangers[node.name] = stranger
            access = Access(
                self._driver, self._token_reader(node.name), self._keep_token, node.token_file
            )
            config = NodeConfig("", (), "", (), window_s)
            self.live[node.name] = LiveNode(node, config, stranger, access, self._observer)

    def _token_reader(self, node: str) -> Callable[[str], Awaitable[bytes]]:
        """A function that reads a node's token file through the shim, as the user."""

        async def read(_path: str) -> bytes:
            try:
                return await self._crew.connection.read_token(node)
            except ShimRefused as refusal:
                raise NodeError("no_file", words_of(refusal)) from refusal
            except ShimLost as lost:
                text = f"cannot read the token of node {node}: the shim is lost ({lost})"
                raise HostError("internal", text) from lost

        return read

    # -- readiness -----------------------------------------------------------------------------

    async def _before_asking(self) -> None:
        """Nobody is met on a port that another user's run has by now."""
        unmet = [node for node in self._plan.nodes if self._strangers[node.name].uid is None]
        if unmet:
            await check_leases(self._host, (await self._row()).owner_uid, unmet)

    async def _after_asking(self) -> None:
        """Writes down who was met, so that no other soakd believes anybody else."""
        met = {name: who.uid for name, who in self._strangers.items() if who.uid is not None}
        if met != self._written_uids:
            await self._write_plan(await self._row(), met)
            self._written_uids = met

    def _says_simulation(self) -> bool:
        """What they print is not read."""
        return False

    async def _row(self) -> RunRow:
        row = await self._host.db(self._host.store.get_run, self._id)
        assert row is not None, "the run's row is gone"
        return row

    async def _write_plan(self, row: RunRow, listeners: Mapping[str, int]) -> None:
        plan = {
            "run": run_name(self._id),
            "owner": row.owner_name,
            "plan": plan_to_dict(self._plan),
            "program_sha256": {},
            "edits": [],
            "config": {},
            "staged": {},
            "base_urls": {node.name: base_url(node) for node in self._plan.nodes},
            "listeners": dict(listeners),
        }
        await self._written().write_json("plan.json", plan)


def _met_before(folder: RunFolder) -> dict[str, int]:
    """By node, whose listener an earlier soakd met.

    Raises:
        HostError: plan.json does not say.
    """
    try:
        plan = json.loads((folder.path / "plan.json").read_text())
        return {str(node): int(uid) for node, uid in plan["listeners"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        text = f"cannot read plan.json of the run for its listeners: {error!r}"
        raise HostError("internal", text) from error
