"""What a self-test looks at besides its flows: health, peers, routing tables, each raw answer kept.

None of it decides anything: a look that fails is noted as an event, and the self-test goes on.
When it looks is the plan's choice (`peers_snapshot`, `routing_snapshot`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import trio

from soakd.core.errors import SoakError
from soakd.core.flows import Flow
from soakd.core.plan import Plan

_BEFORE = ("health", "status")
_ROUTING = ("routing_summary", "routing_buckets")


class LookNode(Protocol):
    """The looks at one node; one that fails raises `SoakError`."""

    async def look(self, what: str) -> str:
        """Returns the raw answer of a look by its name, as the driver has it."""


class LookSink(Protocol):
    """Where looks go."""

    def answer(self, node: str, step: str, body: str) -> None:
        """Keeps a raw answer."""

    def event(self, kind: str, node: str | None, data: Mapping[str, Any]) -> None:
        """Notes a look that failed."""


class Looks:
    """The looks of one self-test."""

    def __init__(self, plan: Plan, nodes: Mapping[str, LookNode], sink: LookSink) -> None:
        """Looks at nothing yet."""
        self._plan = plan
        self._nodes = nodes
        self._sink = sink

    async def before_warmup(self) -> None:
        """The state of all nodes before anything is done to them."""
        looks = list(_BEFORE)
        if self._plan.peers_snapshot != "none":
            looks.append("peers")
        if self._plan.routing_snapshot in {"each", "first"}:
            looks += _ROUTING
        await self._all(looks)
        if self._plan.debug_lookup:
            await self._all(["debug_lookup"])

    async def after_warmup(self) -> None:
        """Routing again."""
        if self._plan.routing_snapshot == "each":
            await self._all(_ROUTING[:1])

    async def after(self, flow: Flow) -> None:
        """What is to be seen after a flow."""
        looks = []
        if flow.shows_peers and self._plan.peers_snapshot == "each":
            looks.append("peers")
        if flow.shows_routing and self._plan.routing_snapshot == "each":
            looks.append(_ROUTING[0])
        await self._all(looks)

    async def at_end(self) -> None:
        """Routing once the rounds are over."""
        if self._plan.routing_snapshot == "end":
            await self._all(_ROUTING)

    async def _all(self, looks: Sequence[str]) -> None:
        for what in looks:
            async with trio.open_nursery() as nursery:
                for name, node in self._nodes.items():
                    nursery.start_soon(self._look, name, node.look, what)

    async def _look(self, name: str, look: Callable[[str], Any], what: str) -> None:
        try:
            self._sink.answer(name, what, await look(what))
        except SoakError as error:
            self._sink.event("step_failed", name, {"step": what, "text": error.message})
