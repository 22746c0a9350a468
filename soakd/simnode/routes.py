"""The routes of the API: what each demands and what it answers.

A handler raises `ApiError` for the error envelope. Kad handlers check their input first and then
hand a command to the queue of the service loop.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from soakd.simnode.exchange import ApiError, Exchange, Response, compact, failure, success
from soakd.simnode.identity import TOKEN, is_id, new_token
from soakd.simnode.node import Node

Access = Literal["open", "bearer", "cookie"]
KEEP_ALIVE_S = 15.0


class Call(NamedTuple):
    """A request that has passed limits, access and origin."""

    exchange: Exchange
    parameter: str  # what stands where the route has its one variable part

    def answer(
        self, value: Any, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        """Answer with a JSON body."""
        self.exchange.answer(success(value, status=status, headers=headers))

    def body(self) -> dict[str, Any]:
        """Return the JSON object of the body.

        Raises:
            ApiError: 400.
        """
        try:
            value = json.loads(self.exchange.request.body or b"")
        except (ValueError, RecursionError) as error:
            raise ApiError(400) from error
        if not isinstance(value, dict):
            raise ApiError(400)
        return value

    def id(self) -> str:
        """Return the id in the path, in lower case.

        Raises:
            ApiError: 400.
        """
        return checked_id(self.parameter)


Handler = Callable[[Node, Call], None]


class Route(NamedTuple):
    """One row of the table; `body_limit` in bytes."""

    access: Access
    handler: Handler
    body_limit: int = 64 * 1024


def checked_id(value: object) -> str:
    """Return a Kad id in lower case.

    Raises:
        ApiError: 400.
    """
    if not is_id(value):
        raise ApiError(400)
    return value.lower()


def field(body: dict[str, Any], name: str, kind: type, default: Any = None) -> Any:
    """Return a field of the body; without a default it is required.

    Raises:
        ApiError: 400 missing or of another type.
    """
    value = body.get(name, default)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ApiError(400)
    if isinstance(value, int) and not 0 <= value < 1 << 64:
        raise ApiError(400)
    return value


def _health(_node: Node, call: Call) -> None:
    call.answer({"ok": True})


def _bootstrap(node: Node, call: Call) -> None:
    if node.parts.config.get("api", "auth_mode") != "local_ui":
        raise ApiError(404)
    call.answer({"token": node.auth.token})


def _open_session(node: Node, call: Call) -> None:
    call.answer({"ok": True}, headers=(("set-cookie", node.auth.open_session()),))


def _logout(node: Node, call: Call) -> None:
    cookie = node.auth.close_session(call.exchange.request)
    call.answer({"ok": True}, headers=(("set-cookie", cookie),))


def _rotate(node: Node, call: Call) -> None:
    try:
        token = new_token(node.parts.config.data_path(TOKEN))
    except OSError as error:
        raise ApiError(500) from error
    node.auth.replace_token(token)
    call.answer({"token": token, "sessions_cleared": True})


def _status(node: Node, call: Call) -> None:
    snapshot = node.kad.snapshot
    call.exchange.answer(failure(503) if snapshot is None else Response(200, snapshot))


def _events(node: Node, call: Call) -> None:
    def send(snapshot: bytes) -> None:
        stream.write(b"event: status\ndata: " + snapshot + b"\n\n")

    def keep_alive() -> None:
        if not call.exchange.ended:
            stream.write(b":\n\n")
            node.parts.loop.later(KEEP_ALIVE_S, keep_alive)

    node.kad.on_snapshot.append(send)
    stream = call.exchange.stream("text/event-stream", lambda: node.kad.on_snapshot.remove(send))
    if node.kad.snapshot is not None:
        send(node.kad.snapshot)
    node.parts.loop.later(KEEP_ALIVE_S, keep_alive)


def _settings(node: Node, call: Call) -> None:
    call.answer(node.settings.shown())


def _patch_settings(node: Node, call: Call) -> None:
    call.answer(node.settings.patch(call.body()))


def _publish_source(node: Node, call: Call) -> None:
    _source_command(node, call, node.sources.publish)


def _search_sources(node: Node, call: Call) -> None:
    _source_command(node, call, node.sources.search)


def _source_command(node: Node, call: Call, command: Callable[[str, int], None]) -> None:
    body = call.body()
    file_id, size = checked_id(body.get("file_id_hex")), field(body, "file_size", int, 0)
    queued = success({"queued": True})
    node.kad.commands.post(call.exchange, lambda: command(file_id, size), queued)


def _sources(node: Node, call: Call) -> None:
    file_id = call.id()

    def rows() -> Response:
        listed = [
            {"source_id_hex": row.source_id, "udp_dest_b64": row.destination}
            for row in node.sources.rows(file_id)
        ]
        return Response(200, compact({"file_id_hex": file_id, "sources": listed}))

    node.kad.commands.ask(call.exchange, rows)


def _downloads(node: Node, call: Call) -> None:
    call.answer(node.downloads.listing())


def _create_download(node: Node, call: Call) -> None:
    body = call.body()
    entry = node.downloads.create(
        field(body, "file_name", str),
        field(body, "file_size", int),
        field(body, "file_hash_md4_hex", str),
    )
    call.answer({"download": entry}, status=201)


def _part(call: Call) -> int:
    if not (call.parameter.isascii() and call.parameter.isdigit() and len(call.parameter) < 6):
        raise ApiError(400)
    return int(call.parameter)


def _change_download(node: Node, call: Call) -> None:
    action = call.exchange.request.path.rpartition("/")[2]
    call.answer({"download": node.downloads.change(_part(call), action)})


def _delete_download(node: Node, call: Call) -> None:
    node.downloads.delete(_part(call))
    call.answer({"deleted": True})


_KAD_BODY = 16 * 1024

# (method, path below /api/v1 with ":" for its variable part) -> what happens.
CORE_ROUTES: dict[tuple[str, str], Route] = {
    ("GET", "/health"): Route("open", _health),
    ("GET", "/auth/bootstrap"): Route("open", _bootstrap),
    ("POST", "/session"): Route("bearer", _open_session),
    ("GET", "/session/check"): Route("cookie", _health),
    ("POST", "/session/logout"): Route("cookie", _logout),
    ("POST", "/token/rotate"): Route("bearer", _rotate),
    ("GET", "/status"): Route("bearer", _status),
    ("GET", "/events"): Route("cookie", _events),
    ("GET", "/settings"): Route("bearer", _settings),
    ("PATCH", "/settings"): Route("bearer", _patch_settings, 32 * 1024),
    ("POST", "/kad/publish_source"): Route("bearer", _publish_source, _KAD_BODY),
    ("POST", "/kad/search_sources"): Route("bearer", _search_sources, _KAD_BODY),
    ("GET", "/kad/sources/:"): Route("bearer", _sources),
    ("GET", "/downloads"): Route("bearer", _downloads),
    ("POST", "/downloads"): Route("bearer", _create_download, 8 * 1024),
    ("POST", "/downloads/:/pause"): Route("bearer", _change_download),
    ("POST", "/downloads/:/resume"): Route("bearer", _change_download),
    ("POST", "/downloads/:/cancel"): Route("bearer", _change_download),
    ("DELETE", "/downloads/:"): Route("bearer", _delete_download),
}
