"""A run without processes and without waiting: a shim in memory, nodes that are scripts.

What is real here: the store, the run folder, the shim's protocol, everything of soakd between them.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pytest
import trio
import trio.testing

from soakd.core import readiness, run_state
from soakd.core.errors import HostError, NodeError
from soakd.core.plan import NodePlan, Plan, plan_to_dict
from soakd.drivers.driver import KeywordAnswer, KeywordHits, NodeConfig, Sources
from soakd.edge import clock, pidfds
from soakd.edge.config import Config
from soakd.edge.journal import RunFolder
from soakd.edge.peers import Account, Accounts, Peer
from soakd.edge.schema import MEMORY
from soakd.edge.shim_client import (
    ShimConnection,
    ShimLost,
    SpawnedShim,
    SweepOrder,
    Swept,
    connect_shim,
    spawn_shim,
    sweep_run,
)
from soakd.edge.store import NewRun, RunRow, Store
from soakd.host import Host
from soakd.hub import Hub
from soakd.listeners import Listener, Process, Stranger
from soakd.node import Access, NodeSink
from soakd.run import Run
from soakd.shim import protocol

ROOT = Path(__file__).resolve().parents[2]
UID = os.geteuid()
ME = Peer(UID, os.getegid(), (), "me", member=True, admin=True)
ANN = Peer(4001, 4001, (), "ann", member=True, admin=False)
BOB = Peer(4002, 4002, (), "bob", member=True, admin=False)
BOOT_S = 50_000.0
EPOCH_S = 1_700_000_000.0
KAD_ID = "aa" * 16
SHIM_PID = 4_000_000
"""Above any pid that is given out here: pids of the fakes mean no process."""
NO_PROCESS = SHIM_PID + 1
TICKS = 7

_T = TypeVar("_T")
_Stream = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]
_ports = itertools.count(20_000)


def make_plan(**changes: Any) -> Plan:
    """Two nodes, rounds of the default lengths, a minute; nobody ever binds their ports."""
    nodes = (
        NodePlan("a", "/dist/mule-a", "127.0.0.1", next(_ports), ("publisher",)),
        NodePlan("b", "/dist/mule-b", "127.0.0.1", next(_ports), ("searcher",)),
    )
    given: dict[str, Any] = {"nodes": nodes, "duration_s": 60.0, "rounds": None, "run_tag": "t1"}
    return Plan(**(given | changes))


def make_attached_plan(**changes: Any) -> Plan:
    """Two nodes that somebody else runs."""
    plan = make_plan(**changes)
    nodes = (
        replace(node, source="", token_file=f"/home/ann/{node.name}/api.token")
        for node in plan.nodes
    )
    return replace(plan, nodes=tuple(nodes))


def replace_everywhere(monkeypatch: pytest.MonkeyPatch, original: object, fake: object) -> None:
    """Put a fake in the place of something in every module of soakd that has imported it."""
    modules = {
        name: module
        for name, module in list(sys.modules.items())
        if name.startswith("soakd.") and not name.startswith("soakd.edge.")
    }
    places = [
        (module, attribute)
        for module in modules.values()
        for attribute, value in list(vars(module).items())
        if value is original and getattr(value, "__module__", "") != module.__name__
    ]
    assert places, f"nobody imports {original}"
    for module, attribute in places:
        monkeypatch.setattr(module, attribute, fake)


# -- time ------------------------------------------------------------------------------------


class VirtualTime:
    """Trio's mock clock as the boot clock and the wall clock; no thread is ever used."""

    def __init__(self, mock: trio.testing.MockClock) -> None:
        self._mock = mock
        mock.jump(BOOT_S)

    @property
    def boot_s(self) -> float:
        # The very number of trio's clock: a sum would round, and a wait for the rest never end.
        return self._mock.current_time()

    @property
    def wall_s(self) -> float:
        return EPOCH_S + self._mock.current_time() - BOOT_S

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = SimpleNamespace(
            CLOCK_BOOTTIME=time.CLOCK_BOOTTIME,
            clock_gettime=lambda _clock: self.boot_s,
            time=lambda: self.wall_s,
            strftime=time.strftime,
            gmtime=time.gmtime,
        )
        monkeypatch.setattr(clock, "time", module)
        monkeypatch.setattr(trio.to_thread, "run_sync", run_directly)
        append = RunFolder.append

        def append_now(folder: RunFolder, name: str, line: bytes) -> None:
            append(folder, name, line)
            os.utime(folder.path / name, (self.wall_s, self.wall_s))

        monkeypatch.setattr(RunFolder, "append", append_now)


in_thread = ContextVar("in_thread", default=False)
"""Whether what runs now would be in a thread: there it may wait for a disk."""


async def run_directly(
    function: Callable[..., _T],
    *args: Any,
    limiter: trio.CapacityLimiter | None = None,
    abandon_on_cancel: bool = False,
) -> _T:
    """What `trio.to_thread.run_sync` does, on the loop: not begun in a cancelled scope."""
    await trio.lowlevel.checkpoint_if_cancelled()
    async with limiter or contextlib.nullcontext():
        entered = in_thread.set(True)
        try:
            result = function(*args)
        finally:
            in_thread.reset(entered)
    await trio.lowlevel.cancel_shielded_checkpoint()
    return result


# -- the shim --------------------------------------------------------------------------------


class FakeProcess:
    """The shim's process as its parent sees it."""

    def __init__(self) -> None:
        self.stdin = None
        self.stdout = None
        self.returncode: int | None = None
        self.killed = False
        self._gone = trio.Event()

    def exit(self, status: int = 0) -> None:
        if self.returncode is None:
            self.returncode = status
            self._gone.set()

    async def wait(self) -> int:
        await self._gone.wait()
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        self.killed = True
        self.exit(-9)


class FakeStdin:
    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class FakeShim:
    """Speaks the shim's protocol over memory streams; its nodes are entries in a table."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.calls: list[dict[str, Any]] = []
        self.refuse: dict[str, str] = {}
        self.mute: set[str] = set()
        self.odd: dict[str, dict[str, Any]] = {}
        """Replaces parts of an answer."""
        self.sources: dict[str, dict[str, bytes]] = {}
        self.files: dict[tuple[str, str], bytes] = {}
        self.nodes: dict[str, dict[str, Any]] = {}
        self.begun = False
        self.stopping = False
        self.stopped: dict[str, Any] | None = None
        self.left: list[int] = []
        self.ladder_s = 1.0
        self.nonce = ""
        self.spawned_n: list[int] = []
        self.env: dict[str, str] = {}
        self.reachable = True
        self.sweeps: list[SweepOrder] = []
        self.swept = Swept((), (), ())
        self.sweep_error: HostError | None = None
        self.process = FakeProcess()
        self.connections = 0
        self._nursery = nursery
        self._sending = trio.Lock()
        self._stream: _Stream | None = None
        self._pids = itertools.count(NO_PROCESS)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for original, fake in (
            (spawn_shim, self.spawn),
            (connect_shim, self.connect),
            (sweep_run, self.sweep),
            (pidfds.start_ticks, self.start_ticks),
            (pidfds.kill, self.kill),
            (pidfds.wait_for_end, self.wait_for_end),
        ):
            replace_everywhere(monkeypatch, original, fake)

    async def sweep(self, order: SweepOrder, **_how: object) -> Swept:
        """After a dead shim without a cgroup."""
        await trio.lowlevel.checkpoint()
        self.sweeps.append(order)
        if self.sweep_error is not None:
            raise self.sweep_error
        return self.swept

    def start_ticks(self, pid: int) -> int | None:
        if pid != SHIM_PID:
            return pidfds.start_ticks(pid)
        return TICKS if self.process.returncode is None else None

    def kill(self, pid: int, ticks: int) -> bool:
        assert (pid, ticks) == (SHIM_PID, TICKS), "the fakes have no other process to kill"
        if self.process.returncode is not None:
            return False
        self.process.kill()
        self._hang_up()
        return True

    async def wait_for_end(self, pid: int, ticks: int) -> None:
        if pid != SHIM_PID:
            await pidfds.wait_for_end(pid, ticks)
        elif self.start_ticks(pid) == ticks:
            await self.process.wait()

    def _hang_up(self) -> None:
        if self._stream is not None:
            self._stream.send_stream.close()
            self._stream.receive_stream.close()

    def verbs(self) -> list[str]:
        """What was asked, in order; repeated verbs once."""
        return [verb for verb, _ in itertools.groupby(call["verb"] for call in self.calls)]

    def params(self, verb: str) -> dict[str, Any]:
        """The parameters of the last call of a verb."""
        return next(call for call in reversed(self.calls) if call["verb"] == verb)

    async def spawn(self, **order: Any) -> SpawnedShim:
        await trio.lowlevel.checkpoint()
        self.nonce, self.env = order["nonce"], order["env"]
        self.spawned_n.append(order["n"])
        if self.process.returncode is not None:
            # Another shim after the first one's death.
            self.process = FakeProcess()
            self.begun, self.nodes = False, {}
            self.stopping, self.stopped = False, None
        process = cast("trio.Process", self.process)
        return SpawnedShim(SHIM_PID, TICKS, process, cast("trio.abc.SendStream", FakeStdin()))

    async def connect(self, _folder: Path, _n: int, _uid: int, _pid: int | None) -> ShimConnection:
        if not self.reachable:
            await trio.sleep_forever()
        if self.process.returncode is not None:
            raise ShimLost("cannot connect to 1.sock: nobody listens")
        ours, theirs = trio.testing.memory_stream_pair()
        self._stream = theirs
        self.connections += 1
        self._nursery.start_soon(self._serve, theirs)
        connection = ShimConnection(ours)
        await connection.take_hello()
        return connection

    async def send(self, **event: Any) -> None:
        assert self._stream is not None
        await self._put(self._stream, event)

    async def _put(self, stream: trio.abc.Stream, message: dict[str, Any]) -> None:
        async with self._sending:
            await stream.send_all(protocol.encode(message))

    async def exit_node(self, name: str, **how: int) -> None:
        """A node ends by itself: `code=1` or `signal=9`."""
        node = self.nodes[name]
        node |= {"state": "exited", **how}
        await self.send(event="node_exited", node=name, pid=node["pid"], at=0.0, boot_s=0.0, **how)

    async def vanish(self) -> None:
        """The shim dies."""
        await trio.lowlevel.checkpoint()
        self.process.exit(-9)
        self._hang_up()

    async def _serve(self, stream: trio.abc.Stream) -> None:
        decoder = protocol.Decoder()
        # soakd may hang up at any time, before it has heard who this is too.
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._put(stream, self._hello())
            async for data in stream:
                for request in decoder.feed(bytes(data)):
                    await self._answer(stream, request)

    def _hello(self) -> dict[str, Any]:
        return {
            "event": "hello", "protocol": protocol.PROTOCOL, "run": "r1", "nonce": self.nonce,
            "pid": SHIM_PID, "ticks": TICKS, "begun": self.begun,
            "latest_end_boot_s": 1.0, "nodes": self.nodes,
            "stopping": "sigint" if self.stopping and self.stopped is None else None,
            "stopped": self.stopped, "journal_seq": 1,
        }  # fmt: skip

    async def _answer(self, stream: trio.abc.Stream, request: dict[str, Any]) -> None:
        verb = request["verb"]
        self.calls.append(request)
        if verb in self.mute:
            return
        named = {"read": request.get("path"), "read_token": "the token"}
        missing = verb in named and (request["node"], named[verb]) not in self.files
        if verb in self.refuse or missing:
            code = "missing" if missing else "refused"
            text = self.refuse.get(verb, f"cannot read {request.get('path')}: no such file")
            answer: dict[str, Any] = {"error": {"code": code, "text": text}}
        else:
            answer = {"ok": getattr(self, f"_do_{verb}")(request) | self.odd.get(verb, {})}
        await self._put(stream, {"id": request["id"], **answer})
        if verb == "end" and "ok" in answer:
            self.process.exit()
            await stream.aclose()

    def _do_begin(self, request: dict[str, Any]) -> dict[str, Any]:
        self.begun = True
        for node in request.get("token_files", {}):
            self.files.setdefault((node, "the token"), f"token-of-{node}-1234\n".encode())
        return {"root": "/nodes"}

    def _do_latest_end(self, _request: dict[str, Any]) -> dict[str, Any]:
        return {}

    def _do_stage(self, request: dict[str, Any]) -> dict[str, Any]:
        source = self.sources.get(
            request["source"],
            {"rust-mule": b"program", "config.toml": b"[api]\nport = 1\n"},
        )
        for path, data in source.items():
            self.files[request["node"], path] = data
        digests = {path: hashlib.sha256(data).hexdigest() for path, data in source.items()}
        return {"bytes": 1, "files": len(source), "sha256": digests}

    def _do_read(self, request: dict[str, Any]) -> dict[str, Any]:
        data = self.files[request["node"], request["path"]]
        piece = data[request["offset"] : request["offset"] + request["length"]]
        return {"data": base64.b64encode(piece).decode(), "total": len(data), "mode": 0o600}

    def _do_replace(self, request: dict[str, Any]) -> dict[str, Any]:
        self.files[request["node"], request["path"]] = base64.b64decode(request["data"])
        return {"done": True}

    def _do_read_token(self, request: dict[str, Any]) -> dict[str, Any]:
        data = self.files[request["node"], "the token"]
        return {"data": base64.b64encode(data).decode()}

    def _do_remove(self, request: dict[str, Any]) -> dict[str, Any]:
        found = self.files.pop((request["node"], request["path"]), None)
        return {"removed": found is not None}

    def _do_launch(self, request: dict[str, Any]) -> dict[str, Any]:
        pid = next(self._pids)
        self.nodes[request["node"]] = {"state": "running", "pid": pid, "ticks": TICKS}
        return {
            "pid": pid, "ticks": TICKS, "script": False, "cwd_ok": True, "exe_dev": 1, "exe_ino": 2,
            "file_dev": 1, "file_ino": 2,
        }  # fmt: skip

    def _do_inspect(self, request: dict[str, Any]) -> dict[str, Any]:
        exe = f"/nodes/mule-{request['node']}/rust-mule"
        return {"cwd": "/nodes", "exe": exe, "argv": ["./rust-mule"]}

    def _do_stop(self, _request: dict[str, Any]) -> dict[str, Any]:
        if self.stopping:
            return {}
        self.stopping = True
        self._nursery.start_soon(self._walk_ladder)
        return {}

    def _do_end(self, _request: dict[str, Any]) -> dict[str, Any]:
        return {}

    async def _walk_ladder(self) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self.send(event="stopping", reason="asked")
            pids = [node["pid"] for node in self.nodes.values() if node["state"] == "running"]
            await self.send(event="rung", rung="sigint", pids=pids, n=1)
            await trio.sleep(self.ladder_s)
            for name, node in self.nodes.items():
                if node["state"] == "running":
                    await self.exit_node(name, code=0)
            self.stopped = {"left": self.left, "reason": "asked"}
            await self.send(event="stopped", left=self.left, reason="asked")


# -- the nodes -------------------------------------------------------------------------------


class FakeNet:
    """What both nodes of a run live in: the fate of each publish, in order, again and again.

    `hit` is seen two seconds after the search, `late` 25 s after it, `prestored` before it.
    """

    def __init__(self, *fates: str) -> None:
        self.fates = list(fates or ("hit",))
        self.hangs: set[tuple[str, str]] = set()
        self.fails: dict[tuple[str, str], Exception] = {}
        self.answers: dict[str, list[readiness.Answer]] = {}
        self.published: list[str] = []
        self.called: list[tuple[str, str]] = []
        self.keywords: dict[str, tuple[str, str]] = {}
        self.tells_keyword_ids = True
        self.listeners: dict[str, int] = {}
        """By node of somebody else's, whose listener is met."""
        self._searched_s: dict[str, float] = {}

    def keyword_id(self, query: str) -> str | None:
        """What an answer says of a word; older nodes say nothing."""
        return f"id of {query}" if self.tells_keyword_ids else None

    async def meet(self, name: str, call: str) -> None:
        self.called.append((name, call))
        await trio.lowlevel.checkpoint()
        if (name, call) in self.hangs:
            await trio.sleep_forever()
        failure = self.fails.get((name, call))
        if failure is not None:
            raise failure

    def publish(self, file_id: str) -> None:
        self.published.append(file_id)

    def search(self, file_id: str) -> None:
        self._searched_s.setdefault(file_id, trio.current_time())

    def seen(self, file_id: str) -> bool:
        place = self.published.index(file_id)
        fate = self.fates[place % len(self.fates)]
        if fate == "prestored":
            return True
        searched_s = self._searched_s.get(file_id)
        wait_s = {"hit": 2.0, "late": 25.0}.get(fate)
        if searched_s is None or wait_s is None:
            return False
        return trio.current_time() >= searched_s + wait_s


class FakeNode:
    """One node as rounds see it."""

    def __init__(
        self,
        name: str,
        net: FakeNet,
        process: Listener | None = None,
        sink: NodeSink | None = None,
    ) -> None:
        self.name = name
        self.net = net
        self.sink = sink
        self.kad_id: str | None = None
        self.process = process or Process(NO_PROCESS, TICKS, UID)
        self.on_token: Callable[[str], Awaitable[None]] | None = None
        self.read_file: Callable[[str], Awaitable[bytes]] | None = None
        self.closed = False
        self.idle_s = 0.0

    def was_idle(self, since_s: float) -> bool:
        return self.idle_s >= since_s

    async def _meet(self, step: str, route: str) -> None:
        try:
            await self.net.meet(self.name, step)
        except NodeError as error:
            if self.sink is not None:
                self.sink.call_ended(self.name, route, error)
            raise
        if self.sink is not None:
            self.sink.call_ended(self.name, route, None)

    async def publish_source(self, file_id: str, _size: int) -> str:
        await self._meet("publish", "/kad/publish_source")
        self.net.publish(file_id)
        return '{"queued":true}'

    async def search_sources(self, file_id: str, _size: int) -> str:
        await self._meet("search", "/kad/search_sources")
        self.net.search(file_id)
        return '{"queued": true}'

    async def sources(self, file_id: str) -> Sources:
        await self._meet("sources", "/kad/sources")
        if self.name == "a" or self.net.seen(file_id):
            return Sources(f'{{"sources":[{{"source_id_hex":"{KAD_ID}"}}]}}', (KAD_ID,))
        return Sources('{"sources":[]}', ())

    async def publish_keyword(
        self, query: str, file_id: str, _size: int, filename: str, _type: str | None
    ) -> KeywordAnswer:
        await self._meet("publish_keyword", "/kad/publish_keyword")
        self.net.publish(file_id)
        self.net.keywords[query] = (self.name, file_id)
        return KeywordAnswer(f'{{"queued":true,"said":"{filename}"}}', self.net.keyword_id(query))

    async def search_keyword(self, query: str, keyword_id: str | None) -> KeywordAnswer:
        by = "query" if keyword_id is None else "id"
        await self._meet(f"search_keyword by {by}", "/kad/search_keyword")
        self.net.search(self.net.keywords[query][1])
        return KeywordAnswer('{"queued":true}', self.net.keyword_id(query))

    async def keyword_hits(self, keyword_id: str) -> KeywordHits:
        await self._meet("keyword_hits", "/kad/keyword_results")
        publisher, file_id = self.net.keywords[keyword_id.removeprefix("id of ")]
        if self.net.seen(file_id):
            return KeywordHits("found", ((file_id, "network"),))
        local = ((file_id, "local"),) if self.name == publisher else ()
        return KeywordHits("nothing", local)

    async def look(self, what: str) -> str:
        await self.net.meet(self.name, f"look {what}")
        return f'{{"look":"{what}"}}'

    async def status(self) -> str:
        await self._meet("status", "/status")
        return '{"uptime_secs":5}'

    async def learn_kad_id(self, _file_id: str) -> None:
        await self.net.meet(self.name, "learn")
        self.kad_id = KAD_ID

    async def readiness(self) -> readiness.Answer:
        await self.net.meet(self.name, "readiness")
        if isinstance(self.process, Stranger) and self.process.uid is None:
            self.process.uid = self.net.listeners.get(self.name, UID)
        if self.on_token is not None:
            await self.on_token(f"token-of-{self.name}")
        answers = self.net.answers.get(self.name)
        return answers.pop(0) if answers else readiness.Ready()

    async def watch_status(self) -> None:
        await self.net.meet(self.name, "watch_status")
        assert self.sink is not None
        self.sink.status_sample(self.name, '{"uptime_secs":5}')
        await trio.sleep_forever()

    async def watch_resources(self) -> None:
        assert self.sink is not None
        self.sink.resources(self.name, {"rss_bytes": 1})
        await trio.sleep_forever()

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
        self.closed = True


def no_answer(text: str = "cannot call the node: it said nothing") -> NodeError:
    """The usual failure of a call."""
    return NodeError("api_timeout", text)


# -- all together ----------------------------------------------------------------------------


class FakeAccounts(Accounts):
    """The submitter's account, until it is taken away."""

    def __init__(self) -> None:
        super().__init__()
        self.gone = False

    async def account(self, uid: int) -> Account | None:
        await trio.lowlevel.checkpoint()
        return None if self.gone else Account(uid, os.getegid(), (), "ann", "/home/ann", "/bin/sh")


def make_host(state_dir: Path, store: Store | None = None, **changes: Any) -> Host:
    """A user-mode host of our own uid, contained by nothing."""
    given: dict[str, Any] = {"containment": "evidence"}
    return Host(
        store=store or Store(MEMORY),
        config=Config(**(given | changes)),
        state_dir=state_dir,
        system=False,
        shim_python="/usr/bin/python3",
        uid=UID,
        accounts=FakeAccounts(),
    )


def add_run(host: Host, plan: Plan, *, owner: Peer = ME, **sha256: str) -> int:
    """Put a queued run into the store, as `submit` does."""
    new = NewRun(
        owner_uid=owner.uid,
        owner_name=owner.name,
        label=plan.label,
        created_at=1000.0,
        state="queued",
        state_json=json.dumps(run_state.to_dict(run_state.Queued())),
        plan_json=json.dumps(plan_to_dict(plan)),
        sha256_json=json.dumps(sha256),
    )
    return host.store.create_run(new)


@dataclass
class World:
    """A host with a fake shim and fake nodes."""

    host: Host
    shim: FakeShim
    net: FakeNet
    time: VirtualTime
    nodes: dict[str, FakeNode] = field(default_factory=dict)

    def node(
        self,
        plan: NodePlan,
        _config: NodeConfig,
        process: Listener,
        access: Access,
        sink: NodeSink,
    ) -> FakeNode:
        """In place of `LiveNode`."""
        self.nodes[plan.name] = made = FakeNode(plan.name, self.net, process, sink)
        made.on_token, made.read_file = access.on_token, access.read_file
        return made

    def new_run(self, plan: Plan | None = None) -> Run:
        """A run that was just given its slot."""
        plan = plan or make_plan()
        return self.run(add_run(self.host, plan), plan)

    def run(self, run_id: int, plan: Plan) -> Run:
        return Run(self.host, run_id, plan, Hub())

    def row(self, run_id: int = 1) -> RunRow:
        row = self.host.store.get_run(run_id)
        assert row is not None
        return row

    def folder(self, run_id: int = 1) -> Path:
        return self.host.state_dir / "runs" / f"r{run_id}"

    def text(self, name: str, run_id: int = 1) -> str:
        return (self.folder(run_id) / name).read_text()

    def lines(self, name: str, run_id: int = 1) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text(name, run_id).splitlines()]

    def events(self, run_id: int = 1) -> list[str]:
        return [event["kind"] for event in self.lines("logs/events.ndjson", run_id)]


async def hold(run: Run) -> None:
    """Live with a run as the scheduler does, but for its patience with a store that fails."""
    try:
        try:
            await run.live()
        except Exception as error:
            await run.bury(error)
    finally:
        with trio.CancelScope(shield=True):
            await run.let_go()


@contextlib.asynccontextmanager
async def living(run: Run) -> AsyncIterator[trio.CancelScope]:
    """The run lives beside the test, which returns when the run has ended."""
    scope = trio.CancelScope()

    async def live() -> None:
        with scope:
            await hold(run)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live)
        yield scope


async def leave(run: Run, after_s: float = 60.0, state: str = "running") -> None:
    """soakd is ended while the run goes on."""
    async with living(run) as scope:
        await state_reached(run, state)
        await trio.sleep(after_s)
        scope.cancel()


async def state_reached(run: Run, *names: str) -> None:
    """Wait until the run is in one of these states."""
    await until(lambda: run_state.name(run.state) in names)


async def until(holds: Callable[[], bool]) -> None:
    """Look again and again: each tenth of a virtual second, later each hundredth of the wait.

    A look takes no virtual time but costs real time: there are 36,000 tenths in an hour.
    """
    began_s = trio.current_time()
    with trio.fail_after(10_000):
        while not holds():
            await trio.sleep(max(0.1, (trio.current_time() - began_s) / 100))


@contextlib.contextmanager
def leftover(world: World) -> Iterator[subprocess.Popen[bytes]]:
    """A real process that the ladder of every run from now on leaves behind."""
    with subprocess.Popen(["sleep", "1000"]) as child:
        world.shim.left = [child.pid]
        try:
            yield child
        finally:
            world.shim.left = []
            child.kill()


async def drain(hub: Hub, into: list[dict[str, Any]]) -> None:
    """Collect everything that a watcher hears, from the beginning to the end."""
    async with hub.subscribe(0) as events:
        async for event in events:
            into.append(event)


def kinds(events: Iterable[dict[str, Any]]) -> list[str]:
    """The kinds of events, in order."""
    return [event["kind"] for event in events]


def full_disk(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """From now on appending to these records fails as on a full disk; no name = to any."""
    append = RunFolder.append

    def refuse(folder: RunFolder, name: str, line: bytes) -> None:
        if not names or name in names:
            with folder_full():
                raise OSError(28, "No space left on device")
        append(folder, name, line)

    monkeypatch.setattr(RunFolder, "append", refuse)


@contextlib.contextmanager
def folder_full() -> Any:
    """Turns an error into the one that `RunFolder` makes of it."""
    from soakd.edge.journal import _explain

    with _explain("cannot append"):
        yield


def child_gone(process: subprocess.Popen[bytes]) -> None:
    """End a helper child and reap it."""
    process.kill()
    process.wait()


def wait_until(holds: Callable[[], bool]) -> None:
    """Return as soon as it holds, of real processes; the deadline is a guard, not a pace."""
    deadline_s = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline_s, "it never came true"
        time.sleep(0.02)
