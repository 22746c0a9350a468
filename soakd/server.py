"""Serves the socket: accepts, says who it is, and runs one `Connection` per client.

What a method does is decided in `handlers`; here are only the limits on connections, so that no
client can make soakd wait, grow or fall, whatever it sends or does not read.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

import trio

from soakd.connection import Connection, Limits, say_bye
from soakd.edge.peers import Admission, peer_ids
from soakd.handlers.context import Daemon, Scheduler
from soakd.log import bind, get_logger
from soakd.wire.errors import WireError

_log = get_logger()


@dataclass(frozen=True, slots=True)
class ServerContext:
    """What the server hands to the handlers, and its limits."""

    scheduler: Scheduler
    daemon: Daemon
    admission: Admission
    limits: Limits = field(default_factory=Limits)


async def serve(
    listener_socket: socket.socket,
    *,
    context: ServerContext,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Serve until cancelled; started means accepting.

    Cancelling stops accepting and closes the listening socket; each connection finishes the frame
    in hand and says goodbye, at most `limits.flush_s` long. Requests under way are cancelled.

    Args:
        listener_socket: bound and listening, see `edge.listen`.
        context: what requests are served with.
        task_status: gets the listener, for nursery.start().
    """
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(listener_socket))
    await trio.serve_listeners(_Server(context).handle, [listener], task_status=task_status)


class _Server:
    """Counts connections; everything else belongs to one connection."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._connections: Counter[int] = Counter()

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serve one connection to its end; never raises but for cancellation."""
        async with stream:
            try:
                uid, _gid = peer_ids(stream.socket)
                with bind(peer_uid=uid), self._counted(uid) as refusal:
                    if refusal is None:
                        await self._serve(stream)
                    else:
                        await say_bye(stream, refusal)
            except Exception as error:  # noqa: BLE001 - one bad connection must not end the daemon
                _log.error("connection_failed", exc_info=error)

    async def _serve(self, stream: trio.SocketStream) -> None:
        context = self._context
        peer = await context.admission.admit(stream.socket)
        if context.admission.mode == "user" and not peer.member:
            refusal = WireError("not_allowed", "cannot serve you: this soakd serves its own user")
            await say_bye(stream, refusal)
            return
        await Connection(stream, peer, context.scheduler, context.daemon, context.limits).run()

    @contextmanager
    def _counted(self, uid: int) -> Iterator[WireError | None]:
        limits = self._context.limits
        self._connections[uid] += 1
        try:
            yield self._over_limit(uid, limits)
        finally:
            self._connections[uid] -= 1
            if self._connections[uid] == 0:
                del self._connections[uid]

    def _over_limit(self, uid: int, limits: Limits) -> WireError | None:
        if self._connections[uid] > limits.max_connections_per_uid:
            text = f"uid {uid} has {limits.max_connections_per_uid} already; close some"
        # Root is not counted here: an admin must get in when users have taken everything.
        elif uid != 0 and self._connections.total() > limits.max_connections:
            text = f"all users together have {limits.max_connections} already; try again later"
        else:
            return None
        _log.warning("too_many_connections", uid=uid)
        return WireError("refused", f"cannot serve one more connection: {text}")
