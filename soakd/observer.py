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
from soakd.core.errors import SoakError
from soakd.core.gates import Facts
from soakd.core.model import Cause
from soakd.drivers.driver import Words
from soakd.edge.clock import boot_now, rfc3339, wall_now
from soakd.edge.pidfds import MAX_PID, real_uid, start_ticks
from soakd.edge.shim_client import RUNGS, ShimConnection
from soakd.host import Host
from soakd.hub import Hub
from soakd.log_watch import LogWatch
from soakd.records import Records
from soakd.troubles import Troubles
from soakd.view import gap_map, rates

Event = dict[str, Any]
MAX_PIDS = 256
MAX_REASON_CHARS = 200
ASKED = ("SIGINT", "SIGTERM", "SIGHUP")
"""Reasons of a shim that was sent a signal."""


def _pids(values: list[object]) -> list[int]:
    """Pids out of a list that a shim sent."""
    pids = [pid for pid in values[:MAX_PIDS] if type(pid) is int]
    return [pid for pid in pids if 1 < pid < MAX_PID]


class Observer:
    """The processes of one run as they are known now."""

    def __init__(
        self,
        host: Host,
        run_id: int,
        nodes: tuple[str, ...],
        hub: Hub,
        tell_soon: Callable[[run_state.Event], None],
        words: Words,
    ) -> None:
        """Knows nothing yet; `records` must be set before anything is heard."""
        self.records: Records | None = None
        self.uid = host.uid
        """Whose the run's processes are; set when the submitter's account is known."""
        self.states: dict[str, node_state.NodeState | None] = dict.fromkeys(nodes)
        self.left: list[tuple[int, int]] = []
        """Pids with start ticks of what survived the ladder: they keep slot and ports."""
        self.has_stopped = False
        """The shim has said that the ladder has ended."""
        self.gates: list[dict[str, Any]] = []
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
        self.span: list[float | None] | None = None
        """Begin and end of measuring (boot clock), as stored; no end while it goes on."""
        self._last_error: dict[str, str] = {}
        self._early_ends: dict[str, Mapping[str, Any]] = {}
        self._words = words
        self._troubles = Troubles(self._note_event, self._stderr, words)
        self._logs = LogWatch(self._troubles)

    # -- hearing the shim ----------------------------------------------------------------------

    async def hear(self, connection: ShimConnection) -> None:
        """Takes the shim's events until the connection ends; a loss too early is told."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.pump)
            async for event in connection.events:
                await self._take(event)
        if not self.ladder_done.is_set():
            self.link = "lost"
            self.event("shim_lost", None, {})
            self._tell_soon(
                run_state.Failed(self.cause("shim_lost", "the shim ended or closed its connection"))
            )
            self.ladder_done.set()

    async def _take(self, event: Event) -> None:
        match event:
            case {"event": "stderr", "node": str(node), "line": str(line)}:
                if node in self.states:
                    self._stderr(node, line, self._output_bytes(node))
            case {"event": "node_exited", "node": str(node)}:
                await self.node_exited(node, event)
            case {"event": "rung", "rung": str(rung), "pids": list(pids)} if rung in RUNGS:
                self._rung = {"rung": rung, "pids": _pids(pids)}
                self._note_event("rung", None, self._rung)
                self._hub.publish("rung", self._rung)
            case {"event": "output_cut", "node": str(node), "dropped_bytes": int(dropped)}:
                if node in self.states:
                    self._note_event("output_cut", node, {"dropped_bytes": dropped})
            case {"event": "stopped", "left": list(left)}:
                self._take_left(left)
            case {"event": "orphan" | "stopping" as kind, **facts}:
                # Begun by the shim itself (its latest end, a signal), the run ends with it; asked
                # for by soakd, the run is ending already and this tells it nothing new.
                self._note_event(kind, None, facts)
                self._tell_soon(self.shim_stopped(str(facts.get("reason"))[:MAX_REASON_CHARS]))
            case _:
                return

    def shim_stopped(self, reason: str) -> run_state.Event:
        """What a run comes to whose shim has stopped the nodes by itself."""
        if reason in ASKED:
            text = f"the shim was told to stop ({reason}): by systemd, at a shutdown, or by hand"
            return run_state.Aborted(self.cause("shim_told", text))
        text = f"the shim stopped the nodes: {reason}"
        return run_state.Failed(self.cause("shim_stopped", text))

    def _take_left(self, pids: list[object]) -> None:
        """What the shim says is left: believed only as far as the kernel confirms it."""
        identities = ((pid, start_ticks(pid)) for pid in _pids(pids) if real_uid(pid) == self.uid)
        self.left = [(pid, ticks) for pid, ticks in identities if ticks is not None]
        blocked = [pid for pid, _ in self.left]
        self._rung = {"rung": "blocked", "pids": blocked} if blocked else None
        self._note_event("stopped", None, {"left": blocked})
        self.has_stopped = True
        self.ladder_done.set()

    def _stderr(self, node: str, line: str, at_byte: int) -> None:
        if self._words.is_panic(line):
            self._troubles.tell_line("panic", node, line, at_byte)
        if self._words.is_fatal(line):
            self._last_error[node] = line

    def _output_bytes(self, node: str) -> int:
        return 0 if self.records is None else self.records.folder.size(f"logs/{node}.out")

    async def watch_logs(self) -> None:
        """Reads what the nodes print until cancelled; first what nobody was there to hear."""
        await self._logs.run()

    async def open_logs(self) -> None:
        """Opens the nodes' outputs and takes what was missed in them.

        Raises:
            HostError: they cannot be watched.
        """
        records = self.records
        assert records is not None, "outputs are read before the records were opened"
        self._troubles.known = records
        self._logs.open(
            (node, records.folder.path / "logs" / f"{node}.out", 0)
            for node, state in self.states.items()
            if not isinstance(state, node_state.Attached)
        )
        await self._logs.catch_up()

    def close_logs(self) -> None:
        """Lets go of the nodes' outputs."""
        self._logs.close()

    async def node_exited(self, node: str, facts: Mapping[str, Any]) -> None:
        """Books the end of a node; an unexpected one is told, with the node's own words."""
        code, number = facts.get("code"), facts.get("signal")
        known = self.states.get(node)
        if known is None and node in self.states:
            # It ended so soon that this overtook the answer to `launch`.
            self._early_ends[node] = facts
        if known is None or isinstance(known, node_state.Exited | node_state.Attached):
            return
        # Its last words come before its end.
        await self._logs.catch_up()
        self._troubles.gone(node)
        self.states[node] = node_state.advance(known, node_state.Gone(code, number), boot_now())
        ended = {"code": code, "signal": number}
        self._note_event("node_exited", node, {"pid": known.pid, **ended})
        await self._forget(node, ended)
        if not self._ending:
            self._node_exits += 1
            how = node_state.exit_text(code, number)
            text = f"node {node} (pid {known.pid}) ended by itself: {how}"
            error = self._last_error.get(node)
            if error is not None:
                meaning = self._words.explain_failure(error)
                text += f"; {meaning}" if meaning else ""
                text += f" ({error[:300]})"
            self._tell_soon(run_state.NodeExited(node, text))

    async def start_is_written(self, node: str) -> None:
        """Books an end that came before the start of the node was known and written down.

        What was written of the start came later than what was written of such an end, and says
        that the node lives.
        """
        early = self._early_ends.pop(node, None)
        known = self.states[node]
        if isinstance(known, node_state.Exited):
            await self._forget(node, {"code": known.code, "signal": known.signal})
        elif early and isinstance(known, node_state.Ours) and early.get("pid") == known.pid:
            await self.node_exited(node, early)

    async def settle(self) -> None:
        """Books the end of nodes whose exit nobody has told: their shim died, or was away."""
        for node, known in self.states.items():
            if known is None or isinstance(known, node_state.Exited | node_state.Attached):
                continue
            if start_ticks(known.pid) == known.ticks:
                continue
            gone = node_state.Gone(None, None)
            self.states[node] = node_state.advance(known, gone, boot_now())
            self._note_event("node_gone", node, {"pid": known.pid, "code": None, "signal": None})
            await self._forget(node, {"code": None, "signal": None})

    async def _forget(self, node: str, ended: Mapping[str, Any]) -> None:
        if self.records is not None:
            self.records.folder.remove(f"logs/{node}.pid")
        with trio.CancelScope(shield=True):
            await self._host.db(self._host.store.node_exited, self._run_id, node, json.dumps(ended))

    # -- what others put in --------------------------------------------------------------------

    def ending(self) -> None:
        """From now on the end of a node is expected."""
        if not self._ending:
            self._ending = True
            if self.span is not None and self.span[1] is None:
                self.span = [self.span[0], boot_now()]

    def take_ladder(self, hello: Mapping[str, Any]) -> None:
        """What a rejoined shim's hello says of a ladder that it began while nobody listened."""
        stopped = hello.get("stopped")
        if isinstance(stopped, dict) and isinstance(stopped.get("left"), list):
            self._take_left(stopped["left"])
        if isinstance(stopped, dict) or hello.get("stopping") is not None:
            text = "the shim stopped the nodes while soakd was away"
            self._tell_soon(run_state.Failed(self.cause("shim_stopped", text)))

    def round_error(self, number: int, step: str, text: str) -> None:
        """Books why a round failed."""
        node, kind = self._troubles.round_failed(text)
        facts = {"round": number, "step": step, "text": text, "trouble": kind}
        self.event("round_error", node, facts)

    def error_sentence(self) -> str:
        """What most failed rounds failed of, for the verdict; empty if none did."""
        return "" if self.records is None else self.records.errors.sentence()

    def running_since(self, since_s: float) -> None:
        """Measuring has begun (boot clock)."""
        self.span = [float(since_s), None]

    async def load_gaps(self) -> None:
        """Knows the gaps that earlier soakds booked."""
        for gap in await self._host.db(self._host.store.gaps, self._run_id):
            self.gap_s += gap.s
            self.gaps.append(gap_map(gap))

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

    def call_ended(self, node: str, route: str, error: SoakError | None) -> None:
        """What a call to a ready node came to."""
        self._troubles.call_ended(node, route, error)

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
            "nodes": [
                node_state.public_node(name, state) | {"trouble": self._troubles.sentences(name)}
                for name, state in self.states.items()
            ],
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
        match self.span:
            case [float(since_s), float(until_s)]:
                whole_s = until_s - since_s
                measured = 1.0 if whole_s <= 0 else max(0.0, 1 - self.gap_s / whole_s)
            case _:
                measured = None
        return Facts(self.records.series, self._node_exits, self.records.panics, measured)

    def _note_event(self, kind: str, node: str | None, data: Mapping[str, Any]) -> None:
        if self.records is not None:
            self._hub.publish("event", self.records.event(kind, node, data))
