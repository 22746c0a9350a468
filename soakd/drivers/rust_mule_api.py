"""The rust-mule driver's HTTP half: one node's routes as calls (node contract §§5–7).

Owns the token: it is sent only after the connection was verified, re-read when the node answers
403, and every value ever read is reported to `on_token` so that bundles can be cleaned of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from soakd.core import readiness
from soakd.core.errors import NodeError
from soakd.core.plan import CALL_TIMEOUT_S
from soakd.drivers.driver import (
    Answer,
    Api,
    Http,
    KeywordAnswer,
    KeywordHits,
    OnToken,
    ReadToken,
    Snapshot,
    Sources,
)
from soakd.edge.clock import boot_now

HTTP_OK = 200
HTTP_FORBIDDEN = 403
HTTP_UNAVAILABLE = 503
API = "/api/v1"
MAX_ERROR_BODY = 120
MIN_CALL_S = 0.5
MAX_UPTIME_S = 1 << 53
"""No message holds the numbers of any length that JSON may have."""

LOOKS: Mapping[str, tuple[str, str, dict[str, Any] | None]] = {
    "health": ("GET", "/health", None),
    "status": ("GET", "/status", None),
    "peers": ("GET", "/kad/peers", None),
    "routing_summary": ("GET", "/debug/routing/summary", None),
    "routing_buckets": ("GET", "/debug/routing/buckets", None),
    "debug_lookup": ("POST", "/debug/lookup_once", {}),
}
"""What a self-test looks at, by name: method, path and body."""
_KEYWORD_ID = re.compile(r"[0-9a-fA-F]{32}")


class RustMuleApi(Api):
    """The routes of one node that a soak uses."""

    routes: ClassVar = {
        "publish_source": "/kad/publish_source",
        "search_sources": "/kad/search_sources",
        "sources": "/kad/sources",
        "publish_keyword": "/kad/publish_keyword",
        "search_keyword": "/kad/search_keyword",
        "keyword_hits": "/kad/keyword_results",
        "status_snapshot": "/status",
    }

    def __init__(self, http: Http, read_token: ReadToken, on_token: OnToken) -> None:
        """Wraps `http`; `read_token` reads `api.token` now, `on_token` hears of each new value."""
        self._http = http
        self._read_token = read_token
        self._on_token = on_token
        self._token: str | None = None

    async def readiness(self) -> readiness.Answer:
        """What `GET /status` says: 200 is ready, 503 warm-up, 403 a wrong token."""
        status, body = await self.status()
        if status == HTTP_OK:
            return readiness.Ready()
        if status == HTTP_UNAVAILABLE:
            return readiness.Warming503()
        if status == HTTP_FORBIDDEN:
            self._token = None
            return readiness.Forbidden403()
        return readiness.Bad(f"HTTP {status} {body[:120]!r}")

    async def status(self) -> tuple[int, str]:
        """HTTP status and raw body of `GET /status`; 503 is warm-up, 403 a wrong token.

        A 200 must hold a status: a node that answers garbage is not ready.
        """
        answer = await self._call("GET", "/status", None)
        if answer.status == HTTP_OK:
            return answer.status, _snapshot(answer).body
        return answer.status, answer.body.decode("utf-8", "replace")

    async def status_snapshot(self, *, aside: bool = False) -> Snapshot:
        """A status that must be there (the node is past its warm-up).

        Args:
            aside: no round waits for it, so that it must not make one wait.
        """
        return _snapshot(await self._call("GET", "/status", None, aside=aside))

    async def publish_source(self, file_id: str, size_bytes: int) -> str:
        """Queues a source publish; returns the raw answer."""
        return await self._queued("/kad/publish_source", file_id, size_bytes)

    async def search_sources(self, file_id: str, size_bytes: int) -> str:
        """Queues a source search; returns the raw answer."""
        return await self._queued("/kad/search_sources", file_id, size_bytes)

    async def sources(self, file_id: str) -> Sources:
        """What the node's table holds for a file: own, stored and found rows (contract §7.1)."""
        body, data = await self._json("GET", f"/kad/sources/{file_id}", None)
        rows = data.get("sources")
        if not isinstance(rows, list) or not all(
            isinstance(row, dict) and isinstance(row.get("source_id_hex"), str) for row in rows
        ):
            raise NodeError(
                "bad_answer", f"cannot read the sources: {_short(body)} is not a source list"
            )
        return Sources(body, tuple(row["source_id_hex"] for row in rows))

    async def publish_keyword(
        self, query: str, file_id: str, size_bytes: int, filename: str, file_type: str | None
    ) -> KeywordAnswer:
        """Queues the publish of a file under the first word of a query (contract §5.6)."""
        file = {"file_id_hex": file_id, "filename": filename, "file_size": size_bytes}
        kind = {} if file_type is None else {"file_type": file_type}
        return await self._keyword("/kad/publish_keyword", {"query": query, **file, **kind})

    async def search_keyword(self, query: str, keyword_id: str | None) -> KeywordAnswer:
        """Queues a search, by the keyword's id if that is known."""
        by = {"query": query} if keyword_id is None else {"keyword_id_hex": keyword_id}
        return await self._keyword("/kad/search_keyword", by)

    async def keyword_hits(self, keyword_id: str) -> KeywordHits:
        """What the node has found, or published, under a keyword (contract §7.4)."""
        body, data = await self._json("GET", f"/kad/keyword_results/{keyword_id}", None)
        rows = data.get("hits")
        if not isinstance(rows, list) or not all(
            isinstance(row, dict) and isinstance(row.get("file_id_hex"), str) for row in rows
        ):
            raise NodeError(
                "bad_answer", f"cannot read the keyword results: {_short(body)} is no list of hits"
            )
        hits = tuple((row["file_id_hex"].lower(), str(row.get("origin"))) for row in rows)
        return KeywordHits(body, hits)

    async def look(self, what: str) -> str:
        """The raw answer of a look, one of `LOOKS`."""
        method, path, sent = LOOKS[what]
        body, _ = await self._json(method, path, sent)
        return body

    async def _queued(self, path: str, file_id: str, size_bytes: int) -> str:
        body, data = await self._json(
            "POST", path, {"file_id_hex": file_id, "file_size": size_bytes}
        )
        if data.get("queued") is not True:
            raise _not_queued(path, body)
        return body

    async def _keyword(self, path: str, request: dict[str, Any]) -> KeywordAnswer:
        body, data = await self._json("POST", path, request)
        if data.get("queued") is not True:
            raise _not_queued(path, body)
        known = data.get("keyword_id_hex")
        is_id = isinstance(known, str) and _KEYWORD_ID.fullmatch(known) is not None
        return KeywordAnswer(body, str(known).lower() if is_id else None)

    async def _json(
        self, method: str, path: str, body: dict[str, Any] | None
    ) -> tuple[str, dict[str, Any]]:
        return _object(path, await self._call(method, path, body))

    async def _call(
        self, method: str, path: str, body: dict[str, Any] | None, *, aside: bool = False
    ) -> Answer:
        """One call with the node's token; on a 403 the token file is read again, once."""
        known = self._token
        token = known if known is not None else await self._fresh_token()
        began_s = boot_now()
        answer = await self._http.call(method, API + path, token=token, body=body, aside=aside)
        if answer.status == HTTP_FORBIDDEN and known is not None:
            token = await self._fresh_token()
            if token != known:
                # Both together may take as long as one: a round's time is made of calls.
                left_s = max(MIN_CALL_S, CALL_TIMEOUT_S - (boot_now() - began_s))
                answer = await self._http.call(
                    method, API + path, token=token, body=body, timeout_s=left_s, aside=aside
                )
        return answer

    async def _fresh_token(self) -> str:
        token = await self._read_token()
        if token != self._token:
            await self._on_token(token)
        self._token = token
        return token


def _not_queued(path: str, body: str) -> NodeError:
    text = f"cannot use the answer of {path}: {_short(body)} does not say queued"
    return NodeError("bad_answer", text)


def _object(path: str, answer: Answer) -> tuple[str, dict[str, Any]]:
    """Text and object of an answer that must be 200 and a JSON object.

    Raises:
        NodeError: it is not; `token_refused` if the node does not know the token just read.
    """
    text = answer.body.decode("utf-8", "replace")
    if answer.status != HTTP_OK:
        refused = answer.status == HTTP_FORBIDDEN
        raise NodeError(
            "token_refused" if refused else "bad_status",
            f"cannot use the answer of {path}: HTTP {answer.status} {_short(text)}",
        )
    try:
        data = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise NodeError(
            "bad_answer", f"cannot read the answer of {path}: {_short(text)} is not JSON"
        ) from error
    if not isinstance(data, dict):
        raise NodeError(
            "bad_answer", f"cannot read the answer of {path}: {_short(text)} is not an object"
        )
    return text, data


def _snapshot(answer: Answer) -> Snapshot:
    body, data = _object("/status", answer)
    uptime_s = data.get("uptime_secs")
    if not isinstance(uptime_s, int) or not 0 <= uptime_s <= MAX_UPTIME_S:
        raise NodeError("bad_answer", f"cannot use the status: no uptime_secs in {_short(body)}")
    return Snapshot(body, uptime_s)


def _short(text: str) -> str:
    # Cut before it is split: a megabyte of short words would take thirty to flatten.
    head = text.lstrip()[: 2 * MAX_ERROR_BODY]
    flat = " ".join(head.split())
    is_whole = len(head) < 2 * MAX_ERROR_BODY and len(flat) <= MAX_ERROR_BODY
    return repr(flat if is_whole else flat[:MAX_ERROR_BODY] + "…")
