"""The nodes of one run as its work sees them: met, waited for, called.

What soakd does with nodes of its own stands in `fleet`, what it does with somebody else's in
`attached`. Tells nobody what to do: its caller is the run's work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import trio

from soakd.core import node_state, readiness, rows
from soakd.core.errors import NodeError
from soakd.core.model import Cause
from soakd.core.plan import Plan
from soakd.crew import Crew
from soakd.drivers import registry
from soakd.edge.clock import boot_now, sleep_until_boot
from soakd.edge.shim_client import NodeEnd
from soakd.edge.store import RunRow
from soakd.host import Host
from soakd.node import LiveNode
from soakd.observer import Observer
from soakd.records import Records

MAX_TOKENS = 1000


class Nodes(ABC):
    """The nodes of one run; `live` are those that can be called, by name.

    Attributes:
        last_answers: what they answered last while they were waited for; empty before that.
    """

    def __init__(self, host: Host, run_id: int, plan: Plan, crew: Crew, observer: Observer) -> None:
        """Nothing is touched yet."""
        self.live: dict[str, LiveNode] = {}
        self.last_answers = ""
        self._host = host
        self._id = run_id
        self._plan = plan
        self._observer = observer
        self._crew = crew
        self._driver = registry.of_stored(plan)
        self._tokens = 0

    async def close(self) -> None:
        """Closes every connection; processes are not touched."""
        for node in self.live.values():
            await node.close()

    @abstractmethod
    async def stage(self, row: RunRow) -> None:
        """Makes everything ready for `launch`, and writes plan.json.

        Raises:
            SoakError: it cannot be done.
        """

    @abstractmethod
    def check_ports(self) -> None:
        """Refuses ports that cannot be used.

        Raises:
            HostError: it names the holder.
        """

    @abstractmethod
    async def remember(self, ends: Iterable[NodeEnd] = ()) -> None:
        """Knows what an earlier soakd knew of the nodes, when its shim cannot be asked.

        Args:
            ends: what the shim has written down of the nodes' ends; those not asked for are told.
        """

    @abstractmethod
    async def rejoin(self, held: Mapping[str, Any], *, was_ready: bool) -> None:
        """Meets the nodes that an earlier soakd had.

        Args:
            held: what the shim says of each.
            was_ready: all of them had been ready.

        Raises:
            HostError: plan.json does not know a node.
        """

    @abstractmethod
    async def launch(self) -> None:
        """Sees to it that every node can be called from here on, and says so in runner.log.

        Raises:
            SoakError: a node could not be started.
        """

    # -- readiness -----------------------------------------------------------------------------

    async def await_ready(self, show: Callable[[], None]) -> Cause | None:
        """Waits until all nodes are ready; returns why that is hopeless, None when they are.

        Args:
            show: called when what `status` says of a node has changed.

        Raises:
            SoakError: something else runs in a node's place.
        """
        began_s = boot_now()
        waiting = readiness.begin(self.live, began_s)
        while True:
            await self._before_asking()
            for name, answer in (await self._ask_all()).items():
                waiting = readiness.advance(waiting, name, answer, boot_now())
                if self.see(name, answer):
                    show()
            elapsed_s = boot_now() - began_s
            self.last_answers = readiness.described(waiting)
            self._written().marker(rows.ready_check(elapsed_s, readiness.answers(waiting)))
            await self._after_asking()
            match readiness.decide(waiting, boot_now(), attached=self._plan.is_attached):
                case readiness.AllReady():
                    self._observer.simulation = self._says_simulation()
                    return None
                case readiness.Failed(cause=cause):
                    return cause
                case readiness.Wait(next_poll_s=next_poll_s):
                    await sleep_until_boot(next_poll_s)

    @abstractmethod
    async def _before_asking(self) -> None:
        """Looks whether the nodes may be asked."""

    @abstractmethod
    async def _after_asking(self) -> None:
        """Looks whether the nodes are what they should be."""

    @abstractmethod
    def _says_simulation(self) -> bool:
        """Whether a node says of itself that it is a simulation."""

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

    # -- inner ---------------------------------------------------------------------------------

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

    def _written(self) -> Records:
        records = self._observer.records
        assert records is not None, "records are written before they were opened"
        return records
