"""One live node of a run: its verified connection, its calls, and what is sampled from it.

Decides nothing about the run: what it notices goes to the `NodeSink` as events and samples. The
process itself belongs to the shim, or to somebody else; that whoever listens on the node's port is
the node is proven by `listeners`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TypeVar

import trio

from soakd.core import readiness
from soakd.core.errors import NodeError, SoakError
from soakd.core.plan import NodePlan
from soakd.drivers.driver import (
    Driver,
    KeywordAnswer,
    KeywordHits,
    NodeConfig,
    Snapshot,
    Sources,
)
from soakd.edge.clock import boot_now
from soakd.edge.node_api import NodeApi
from soakd.edge.node_link import NodeCallError
from soakd.listeners import Listener

RESOURCE_SAMPLE_S = 10.0
STALLED_WINDOWS = 2
# Older nodes take any text as token (contract §11); a shorter one could not be masked in bundles.
TOKEN = re.compile(rb"[\x21-\x7e]{16,256}")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Access:
    """How a node's program is spoken to.

    Attributes:
        driver: knows the program.
        read_file: reads a file of the node's folder, as the node's user.
        on_token: hears of every new token value, before it is used.
        token_file: where the token stands if not in the node's folder, as `read_file` takes it.
    """

    driver: Driver
    read_file: Callable[[str], Awaitable[bytes]]
    on_token: Callable[[str], Awaitable[None]]
    token_file: str | None = None


class NodeSink(Protocol):
    """Where a node's observations go."""

    def call_ended(self, node: str, route: str, error: SoakError | None) -> None:
        """What a call to a ready node came to; None: its answer could be used."""

    def event(self, kind: str, node: str | None, data: dict[str, Any]) -> None:
        """Something worth a line in events.ndjson."""

    def status_sample(self, node: str, body: str) -> None:
        """A status snapshot that was not seen before."""

    def resources(self, node: str, sample: dict[str, Any]) -> None:
        """RSS, CPU time, descriptors and threads of the process."""


class LiveNode:
    """A node that can be called. `close` it when it is gone or soakd lets go of the run."""

    def __init__(
        self,
        plan: NodePlan,
        config: NodeConfig,
        process: Listener,
        access: Access,
        sink: NodeSink,
    ) -> None:
        """Connects nothing yet.

        Args:
            plan: name and port.
            config: what was staged: where the token file is, how long a status window is.
            process: who must be listening on the port.
            access: how it is spoken to.
            sink: hears of everything that is noticed.
        """
        self.name = plan.name
        self.config = config
        self.process = process
        self.kad_id: str | None = None
        self._access = access
        self._sink = sink
        self._idle_s = 0.0
        self._stalled = False
        self._uptime: int | None = None
        self._seen_s = 0.0
        self._told_token: str | None = None
        self._token_turn = trio.Lock()
        self._http = NodeApi(plan.host, plan.port, self._verify)
        self._api = access.driver.api(self._http, self._token, self._new_token)

    async def close(self) -> None:
        """Closes the connection."""
        await self._http.aclose()

    # -- calls of a round ----------------------------------------------------------------------

    async def publish_source(self, file_id: str, size_bytes: int) -> str:
        """Queues a publish; raises `SoakError` when the node did not say queued."""
        return await self._ask("publish_source", self._api.publish_source(file_id, size_bytes))

    async def search_sources(self, file_id: str, size_bytes: int) -> str:
        """Queues a search; raises `SoakError` when the node did not say queued."""
        return await self._ask("search_sources", self._api.search_sources(file_id, size_bytes))

    async def sources(self, file_id: str) -> Sources:
        """Reads the source table for a file; raises `SoakError` when there is no usable answer."""
        return await self._ask("sources", self._api.sources(file_id))

    async def publish_keyword(
        self, query: str, file_id: str, size_bytes: int, filename: str, file_type: str | None
    ) -> KeywordAnswer:
        """Queues a keyword publish; raises `SoakError` when the node did not say queued."""
        call = self._api.publish_keyword(query, file_id, size_bytes, filename, file_type)
        return await self._ask("publish_keyword", call)

    async def search_keyword(self, query: str, keyword_id: str | None) -> KeywordAnswer:
        """Queues a keyword search; raises `SoakError` when the node did not say queued."""
        return await self._ask("search_keyword", self._api.search_keyword(query, keyword_id))

    async def keyword_hits(self, keyword_id: str) -> KeywordHits:
        """Reads what is known of a keyword; raises `SoakError` without a usable answer."""
        return await self._ask("keyword_hits", self._api.keyword_hits(keyword_id))

    async def look(self, what: str) -> str:
        """Raw answer of a look by its name; it is no part of a round, so its failure no trouble."""
        return await self._api.look(what)

    async def status(self) -> str:
        """Raw body of the last snapshot; raises `SoakError` when there is no usable answer."""
        return (await self._snapshot()).body

    async def learn_kad_id(self, file_id: str) -> None:
        """Learns the node's own Kad id from its publish: a fresh id has no other source there."""
        if self.kad_id is None:
            ids = (await self.sources(file_id)).source_ids
            self.kad_id = ids[0] if len(ids) == 1 else None

    def was_idle(self, since_s: float) -> bool:
        """Whether its service loop is known to have stood still since then (boot clock)."""
        return self._stalled or self._idle_s >= since_s

    # -- readiness -----------------------------------------------------------------------------

    async def readiness(self) -> readiness.Answer:
        """What it says about readiness now; never raises for what a node does."""
        try:
            return await self._api.readiness()
        except NodeCallError as error:
            if error.kind == "foreign":
                return readiness.Foreign(error.message)
            refused = error.kind == "refused"
            return readiness.Refused() if refused else readiness.Bad(error.message)
        except SoakError as error:
            if error.code != "no_token":
                return readiness.Bad(error.message)
            # Before the node has written its token it does not listen either; a token file that
            # somebody has named should be there.
            is_early = self._access.token_file is None
            return readiness.Refused() if is_early else readiness.NoToken(error.message)

    # -- tasks ---------------------------------------------------------------------------------

    async def watch_status(self) -> NoReturn:
        """Reads the status at half its window; hands on each snapshot once, notices a stall."""
        uptime: int | None = None
        changed_s = boot_now()
        while True:
            # A call that fails is heard of by the sink already.
            with suppress(SoakError):
                body, now_uptime = await self._snapshot(aside=True)
                now_s = boot_now()
                if now_uptime != uptime:
                    if self._stalled:
                        self._idle_s = now_s
                        facts = {"kind": "loop_stalled", "for_s": round(now_s - changed_s, 1)}
                        self._sink.event("trouble_over", self.name, facts)
                    uptime, changed_s, self._stalled = now_uptime, now_s, False
                    self._sink.status_sample(self.name, body)
                elif not self._stalled and now_s - changed_s > self._stall_s:
                    self._stalled = True
                    facts = {"uptime_s": uptime, "for_s": round(now_s - changed_s, 1)}
                    self._sink.event("loop_stalled", self.name, facts)
            await trio.sleep(self.config.status_window_s / 2)

    async def watch_resources(self) -> None:
        """Samples the process every ten seconds until it is gone, if it can be sampled."""
        while (sample := self.process.sample()) is not None:
            self._sink.resources(self.name, sample)
            await trio.sleep(RESOURCE_SAMPLE_S)

    # -- inner ---------------------------------------------------------------------------------

    async def _ask(self, name: str, call: Awaitable[_T]) -> _T:
        """Makes a call to a ready node and tells the sink what it came to."""
        route = self._api.routes.get(name, name)
        try:
            answer = await call
        except SoakError as error:
            # An API that went with its process is no trouble of the API: the exit tells it.
            if not self.process.has_ended:
                self._sink.call_ended(self.name, route, error)
            raise
        self._sink.call_ended(self.name, route, None)
        return answer

    async def _snapshot(self, *, aside: bool = False) -> Snapshot:
        asked_s = boot_now()
        snapshot = await self._ask("status_snapshot", self._api.status_snapshot(aside=aside))
        # Of two that were asked for at the same time the older one may come last.
        if asked_s >= self._seen_s:
            self._seen_s = boot_now()
            self._uptime_moved(self._uptime, snapshot.uptime_s)
            self._uptime = snapshot.uptime_s
        return snapshot

    @property
    def _stall_s(self) -> float:
        return STALLED_WINDOWS * self.config.status_window_s + 1

    def _uptime_moved(self, before: int | None, uptime: int) -> None:
        if before is not None and uptime < before:
            self._idle_s = boot_now()
            facts = {"uptime_before_s": before, "uptime_s": uptime}
            self._sink.event(self._access.driver.words.began_anew, self.name, facts)

    async def _new_token(self, token: str) -> None:
        # A round's call and one aside may both have been refused the old token.
        async with self._token_turn:
            if token == self._told_token:
                return
            if self._told_token is not None:
                text = f"{self._token_file()} holds another token than before; it is used"
                self._sink.event("token_replaced", self.name, {"text": text})
            await self._access.on_token(token)
            self._told_token = token

    async def _token(self) -> str:
        try:
            data = await self._access.read_file(self._token_file())
        except SoakError as error:
            raise NodeError(
                "no_token", f"cannot read the API token of node {self.name}: {error.message}"
            ) from error
        token = data.strip()
        if not TOKEN.fullmatch(token):
            text = f"cannot use the API token of node {self.name}: {len(data)} odd bytes"
            raise NodeError("no_token", text)
        return token.decode("ascii")

    def _token_file(self) -> str:
        if self._access.token_file is not None:
            return self._access.token_file
        name = self._access.driver.files.token
        if name is None:
            raise NodeError("no_token", f"cannot read a token of node {self.name}: it has none")
        return self.config.file(name)

    def _verify(self, port: int, host: str) -> None:
        """Proves that the listener is the node before any token is sent to it."""
        self.process.check(self.name, host, port)
