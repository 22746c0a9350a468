"""What is known of a live run's processes: hears the shim, keeps each node's state, writes events.

Decides nothing: what concerns the run's life is told to its owner. Lives longer than the work,
since the ladder's rungs and the nodes' ends come last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import trio

from soakd.core import node_state, run_state
from soakd.core.gates import Facts
from soakd.core.model import Cause
from soakd.drivers import rust_mule
from soakd.edge.clock import boot_now, rfc3339, wall_now
from soakd.edge.shim_client import ShimConnection
from soakd.host import Host
from soakd.hub import Hub
from soakd.records import Records
from soakd.view import rates

Event = dict[str, Any]


class Observer:
    """The processes of one run as they are known now."""

    def __init__(
        self,
        host: Host,
        run_id: int,
        nodes: tuple[str, ...],
        hub: Hub,
        tell_soon: Callable[[run_state.Event], None],
    ) -> None:
        """Knows nothing yet; `records` must be set before anything is heard."""
        self.records: Records | None = None
        self.states: dict[str, node_state.NodeState | None] = dict.fromkeys(nodes)
        self.left: list[int] = []
        self.ladder_done = trio.Event()
        self.link = "connected"
        self.notes: list[str] = []
        self.edits: list[str] = []
        self.simulation = False
        self.gap_s = 0.0
        self.gaps: list[dict[str, Any]] = []
        self._host = host
        self._run_id = run_id
        self._hub = hub
        self._tell_soon = tell_soon
        self._rung: dict[str, Any] | None = None
        self._ending = False
        self._node_exits = 0
        self._since_s: float | None = None
        self._until_s: float | None = None
        self._last_error: dict[str, str] = {}

    # -- hearing the shim ----------------------------------------------------------------------

    async def hear(self, connection: ShimConnection) -> None:
        """Takes the shim's events until the connection ends; a loss too early is told."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.pump)
            async for event in connection.events:
                await self._take(event)
        self.link = "lost"
        if not self.ladder_done.is_set():
            self.event("shim_lost", None, {})
            self._tell_soon(
                run_state.Failed(self.cause("shim_lost", "the shim ended or closed its connection"))
            )
            self.ladder_done.set()

    async def _take(self, event: Event) -> None:
        match event:
            case {"event": "stderr", "node": str(node), "line": str(line)}:
                self._stderr(node, line)
            case {"event": "node_exited", "node": str(node)}:
                await self.node_exited(node, event)
            case {"event": "rung", "rung": str(rung), "pids": list(pids)}:
                self._rung = {"rung": rung, "pids": pids}
                self._note_event("rung", None, {"rung": rung, "pids": pids, "n": event.get("n")})
                self._hub.publish("rung", self._rung)
            case {"event": "stopped", "left": list(left)}:
                self.left = [pid for pid in left if isinstance(pid, int)]
                self._rung = {"rung": "blocked", "pids": self.left} if self.left else None
                self._note_event("stopped", None, {"left": self.left})
                self.ladder_done.set()
            case {"event": "orphan" | "stopping" as kind, **facts}:
                # Begun by the shim itself (its latest end, a signal), the run ends with it; asked
                # for by soakd, the run is ending already and this tells it nothing new.
                self._note_event(kind, None, facts)
                self._tell_soon(
                    run_state.Failed(
                        self.cause(
                            "shim_stopped", f"the shim stopped the nodes: {facts.get('reason')}"
                        )
                    )
                )
            case _:
                return

    def _stderr(self, node: str, line: str) -> None:
        if rust_mule.is_panic(line):
            self._note_event("panic", node, {"line": line})
        if rust_mule.is_fatal(line):
            self._last_error[node] = line

    async def node_exited(self, node: str, facts: Mapping[str, Any]) -> None:
        """Books the end of a node; an unexpected one is told, with the node's own words."""
        code, number = facts.get("code"), facts.get("signal")
        known = self.states.get(node)
        if known is None or isinstance(known, node_state.Exited):
            return
        self.states[node] = node_state.advance(known, node_state.Gone(code, number), boot_now())
        ended = {"code": code} if number is None else {"signal": number}
        self._note_event("node_exited", node, {"pid": known.pid, **ended})
        if self.records is not None:
            self.records.folder.remove(f"logs/{node}.pid")
        with trio.CancelScope(shield=True):
            await self._host.db(self._host.store.node_exited, self._run_id, node, json.dumps(ended))
        if not self._ending:
            self._node_exits += 1
            how = node_state.exit_text(code, number)
            text = f"node {node} (pid {known.pid}) ended by itself: {how}"
            error = self._last_error.get(node)
            if error is not None:
                meaning = rust_mule.explain_failure(error)
                text += f"; {meaning}" if meaning else ""
                text += f" ({error[:300]})"
            self._tell_soon(run_state.NodeExited(node, text))

    # -- what others put in --------------------------------------------------------------------

    def ending(self) -> None:
        """From now on the end of a node is expected."""
        if not self._ending:
            self._ending = True
            self._until_s = boot_now()

    def take_ladder(self, hello: Mapping[str, Any]) -> None:
        """What a rejoined shim's hello says of a ladder that it began while nobody listened."""
        stopped = hello.get("stopped")
        if isinstance(stopped, dict):
            self.left = [pid for pid in stopped.get("left", ()) if isinstance(pid, int)]
            self.ladder_done.set()
        if isinstance(stopped, dict) or hello.get("stopping") is not None:
            text = "the shim stopped the nodes while soakd was away"
            self._tell_soon(run_state.Failed(self.cause("shim_stopped", text)))

    def running_since(self, since_s: float) -> None:
        """Measuring has begun (boot clock)."""
        self._since_s = since_s

    async def add_gap(self, from_at: float, to_at: float, why: str) -> None:
        """Books a time in which nobody measured (epoch seconds)."""
        length_s = max(0.0, to_at - from_at)
        self.gap_s += length_s
        gap = {"from": rfc3339(from_at), "to": rfc3339(to_at), "s": round(length_s, 3), "why": why}
        self.gaps.append(gap)
        self.event("gap", None, gap)
        await self._host.db(
            self._host.store.add_gap,
            self._run_id,
            from_at=from_at,
            to_at=to_at,
            s=length_s,
            why=why,
        )

    # NodeSink

    def event(self, kind: str, node: str | None, data: Mapping[str, Any]) -> None:
        """Something worth a line in events.ndjson, and worth telling watchers."""
        self._note_event(kind, node, data)

    def status_sample(self, node: str, body: str) -> None:
        """A status snapshot that was not seen before."""
        if self.records is not None:
            self.records.status_sample(node, body)

    def resources(self, node: str, sample: dict[str, Any]) -> None:
        """A sample of a node's process."""
        if self.records is not None:
            self.records.resources(node, sample)

    def marker(self, text: str) -> None:
        """A line of runner.log."""
        if self.records is not None:
            self.records.marker(text)

    # -- what others take out ------------------------------------------------------------------

    def cause(self, code: str, text: str, node: str | None = None) -> Cause:
        """A cause with the present time."""
        return Cause(code, text, node, rfc3339(wall_now()))

    def status(self) -> dict[str, Any]:
        """The part of `status` that is about processes and counts."""
        counted = {} if self.records is None else rates(self.records.counters)
        return {
            **counted,
            "link": self.link,
            "rung": self._rung,
            "nodes": [node_state.public_node(name, state) for name, state in self.states.items()],
            "gaps": self.gaps,
            "edits": self.edits,
            "notes": self.notes,
            "simulation": self.simulation,
        }

    def facts(self) -> Facts | None:
        """What the gates are held against; None when nothing was ever recorded."""
        if self.records is None:
            return None
        measured = None
        if self._since_s is not None and self._until_s is not None:
            whole_s = self._until_s - self._since_s
            measured = 1.0 if whole_s <= 0 else max(0.0, 1 - self.gap_s / whole_s)
        return Facts(self.records.counters, self._node_exits, self.records.panics, measured)

    def _note_event(self, kind: str, node: str | None, data: Mapping[str, Any]) -> None:
        if self.records is not None:
            self._hub.publish("event", self.records.event(kind, node, data))
