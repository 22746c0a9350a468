"""Runs on nodes that somebody else runs: they start at once, hold no slot and lease no port.

Decided here: whether one may start. So many of a user may live at a time, none may use a port that
is leased to another user's run, and a draining soakd starts none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

from soakd.core.errors import UserError
from soakd.core.plan import NodePlan, Plan
from soakd.edge.peers import Peer
from soakd.host import Host
from soakd.view import run_name


class Guests:
    """Who has how many such runs; `owners` are those that live, by number."""

    def __init__(self, host: Host) -> None:
        """Knows none yet."""
        self.owners: dict[int, int] = {}
        self._host = host
        self._arriving: Counter[int] = Counter()

    @asynccontextmanager
    async def arriving(self, peer: Peer, plan: Plan, *, is_draining: bool) -> AsyncIterator[None]:
        """Refuses a run that may not start now, else counts it until it is among `owners`.

        Of a plan whose nodes soakd runs itself it has nothing to say.

        Raises:
            UserError: `refused` or `not_allowed`, with what to do.
        """
        if not plan.is_attached:
            yield
            return
        if is_draining:
            text = "soakd is draining and starts nothing until an admin says"
            raise UserError(
                "refused", f"cannot attach to the nodes: {text} `soakctl daemon resume`"
            )
        await check_leases(self._host, peer.uid, plan.nodes)
        most = self._host.config.attached_per_user
        mine = sorted(run_id for run_id, uid in self.owners.items() if uid == peer.uid)
        if len(mine) + self._arriving[peer.uid] >= most:
            names = " ".join(map(run_name, mine))
            raise UserError(
                "refused",
                f"cannot attach to the nodes: {len(mine)} such runs of yours live ({names}),"
                f" attached_per_user is {most}; wait for one to end, or stop it with"
                " `soakctl stop RUN`",
            )
        self._arriving[peer.uid] += 1
        try:
            yield
        finally:
            self._arriving[peer.uid] -= 1


async def check_leases(host: Host, uid: int, nodes: Iterable[NodePlan]) -> None:
    """Refuses nodes on ports that are leased to another user's run: they are that user's.

    A run of one's own is fine: a self-test may use the nodes that it keeps.

    Raises:
        UserError: `not_allowed`.
    """
    wanted: Mapping[str, NodePlan] = {str(node.port): node for node in nodes}
    for lease in await host.db(host.store.leases):
        if lease.kind != "port" or lease.key not in wanted:
            continue
        row = await host.db(host.store.get_run, lease.run_id)
        if row is not None and row.owner_uid != uid:
            node = wanted[lease.key]
            raise UserError(
                "not_allowed",
                f"cannot attach to node {node.name}: port {node.port} is leased to"
                f" {run_name(row.id)} of {row.owner_name}; name a node of your own",
                {"cause": "port_leased", "node": node.name},
            )
