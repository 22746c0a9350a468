"""A driver for gossipd: all that soakd has to know of it. Walked through in docs/drivers.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from soakd.core import readiness
from soakd.core.errors import NodeError
from soakd.core.plan import NodePlan, Plan
from soakd.drivers.driver import (
    Answer,
    Api,
    Driver,
    Edit,
    Files,
    Http,
    NodeConfig,
    OnToken,
    ReadToken,
    Snapshot,
    Sources,
    Words,
)

HOME = "state"
SEAL = "seal.key"
DEFAULT_BEAT_S = 1.0


def is_panic(line: str) -> bool:
    return line.startswith("gossipd: PANIC: ")


def is_fatal(line: str) -> bool:
    return line.startswith(("gossipd: giving up: ", "gossipd: PANIC: "))


def explain_failure(line: str) -> str | None:
    if line.startswith("gossipd: giving up: LOCK"):
        return "another gossipd works in this folder"
    return None


def log_trouble(line: str) -> str | None:
    return "peer_silent" if line.startswith("! no answer from ") else None


class GossipApi(Api):
    """The routes of one node. It has no token: none is read, none is sent."""

    routes: ClassVar = {
        "publish_source": "/entries",
        "search_sources": "/queries",
        "sources": "/entries",
        "status_snapshot": "/health",
    }

    def __init__(self, http: Http) -> None:
        self._http = http

    async def readiness(self) -> readiness.Answer:
        _, data = await self._ask("GET", "/health")
        if data.get("state") == "up":
            return readiness.Ready()
        return readiness.Warming503()

    async def status_snapshot(self, *, aside: bool = False) -> Snapshot:
        body, data = await self._ask("GET", "/health", aside=aside)
        return Snapshot(body, int(data["beats"]))

    async def publish_source(self, file_id: str, size_bytes: int) -> str:
        body, _ = await self._ask("PUT", f"/entries/{file_id}", {"size": size_bytes}, wanted=(201,))
        return body

    async def search_sources(self, file_id: str, size_bytes: int) -> str:
        body, _ = await self._ask("POST", "/queries", {"key": file_id}, wanted=(202,))
        return body

    async def sources(self, file_id: str) -> Sources:
        # 404 is an answer: it knows no holder yet.
        body, data = await self._ask("GET", f"/entries/{file_id}", wanted=(200, 404))
        return Sources(body, tuple(data.get("holders", ())))

    async def _ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        wanted: tuple[int, ...] = (200,),
        aside: bool = False,
    ) -> tuple[str, dict[str, Any]]:
        answer = await self._http.call(method, path, token=None, body=body, aside=aside)
        return _object(path, answer, wanted)


def _object(path: str, answer: Answer, wanted: tuple[int, ...]) -> tuple[str, dict[str, Any]]:
    text = answer.body.decode("utf-8", "replace")
    if answer.status not in wanted:
        raise NodeError("bad_status", f"cannot use the answer of {path}: HTTP {answer.status}")
    try:
        return text, dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise NodeError("bad_answer", f"cannot read the answer of {path}: {text[:80]!r}") from error


class Gossip:
    """What soakd asks."""

    name = "gossip"
    files = Files(
        program="gossipd",
        config="gossip.json",
        program_advice="it is one file of this driver's package",
        locks=("LOCK",),
        secrets=(SEAL,),
        keys=SEAL,
    )
    words = Words(
        marks=(b"! no answer", b"gossipd: PANIC", b"gossipd: giving up"),
        is_panic=is_panic,
        is_fatal=is_fatal,
        explain_failure=explain_failure,
        log_trouble=log_trouble,
    )
    scenarios = frozenset({"source_probe"})
    environment: Mapping[str, str] = {"GOSSIP_MOOD": "calm"}

    def config_problem(self, data: bytes) -> str | None:
        try:
            json.loads(data)
        except ValueError as error:
            return f"it is not JSON: {error}"
        return None

    def edit_config(self, text: str | None, plan: Plan, node: NodePlan, run: str) -> NodeConfig:
        try:
            settings = dict(json.loads(text or "{}"))
        except (ValueError, TypeError) as error:
            raise NodeError(
                "bad_config", f"cannot read gossip.json of node {node.name}: {error}"
            ) from error
        peers = settings.get("peers", [])
        wanted = {
            "listen": [node.host, node.port],
            "home": HOME,
            "peers": peers + [[other.host, other.port] for other in plan.nodes if other != node],
        }
        edits = tuple(
            Edit(node.name, key, _shown(settings.get(key)), json.dumps(value))
            for key, value in wanted.items()
            if settings.get(key) != value
        )
        beat_s = float(settings.get("beat_s", DEFAULT_BEAT_S))
        new_text = json.dumps(settings | wanted, indent=1)
        return NodeConfig(new_text, edits, HOME, (f"{HOME}/{SEAL}",), beat_s)

    def session_name(self, plan: Plan, node: str, run: str) -> str | None:
        return None

    def api(self, http: Http, read_token: ReadToken, on_token: OnToken) -> Api:
        return GossipApi(http)


def _shown(value: object) -> str | None:
    return None if value is None else json.dumps(value)


DRIVER: Driver = Gossip()
