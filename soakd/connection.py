"""One client's connection: reads requests, runs them side by side, writes through one queue.

However the connection ends (the client closes, breaks the framing or stops reading) its streams
end and plain requests under way are finished first, so that no half-submitted run stays behind;
only the end of the daemon cancels them.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass

import trio

from soakd.edge.peers import Peer
from soakd.handlers.context import ClientGone, Context, Daemon, Scheduler
from soakd.handlers.dispatch import answer
from soakd.log import get_logger
from soakd.wire.errors import WireError
from soakd.wire.frames import (
    Decoder,
    FrameError,
    Message,
    Notification,
    Request,
    encode_notification,
    encode_response,
)
from soakd.wire.messages import METHODS

_READ_BYTES = 64 * 1024
_WRITE_BYTES = 64 * 1024
_COLLECT = "run.collect"

_log = get_logger()


@dataclass(frozen=True, slots=True)
class Limits:
    """Numbers that bound what one client can cost; times in seconds.

    Attributes:
        send_timeout_s: how long 64 KiB may take to be read, else the connection ends.
        collect_timeout_s: the same while a bundle is streamed.
        finish_s: how long plain requests may go on after the client has gone.
        flush_s: how long the last frames may take.
    """

    handshake_s: float = 5.0
    send_timeout_s: float = 10.0
    collect_timeout_s: float = 60.0
    finish_s: float = 10.0
    flush_s: float = 1.0
    max_connections_per_uid: int = 64
    max_connections: int = 512
    max_requests: int = 32
    max_streams: int = 256
    outbox_frames: int = 16


@dataclass(frozen=True, slots=True)
class _InFlight:
    method: str
    is_stream: bool
    scope: trio.CancelScope


class Connection:
    """Serves one accepted connection; `run` returns when it has ended, the caller closes it."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        peer: Peer,
        scheduler: Scheduler,
        daemon: Daemon,
        limits: Limits,
    ) -> None:
        self._stream = stream
        self._limits = limits
        self._context = Context(peer, scheduler, daemon, self._notify)
        self._decoder = Decoder()
        self._inbox: deque[Message] = deque()
        self._in_flight: dict[int, _InFlight] = {}
        self._outbox, self._frames = trio.open_memory_channel[bytes](limits.outbox_frames)
        self._send_timeout_s = limits.send_timeout_s
        self._reading = trio.CancelScope()
        self._writing = trio.CancelScope(shield=True)

    async def run(self) -> None:
        """Serve until the client goes, errs, or this task is cancelled."""
        goodbye: WireError | None = WireError("no_daemon", "cannot go on: this soakd is stopping")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            try:
                goodbye = await self._serve()
            finally:
                # The shielded writer sends what is queued, also when the daemon ends.
                if goodbye is not None:
                    with suppress(trio.WouldBlock, trio.BrokenResourceError):
                        self._outbox.send_nowait(_bye_frame(goodbye))
                self._outbox.close()
                self._writing.deadline = trio.current_time() + self._limits.flush_s

    async def _serve(self) -> WireError | None:
        """Serve requests to the end of the connection; returns what to say last."""
        with trio.move_on_after(self._limits.handshake_s) as handshake:
            refusal = await self._shake_hands()
        if handshake.cancelled_caught:
            return WireError(
                "timeout", f"cannot wait for hello longer than {self._limits.handshake_s:g} s"
            )
        if refusal is not None:
            return refusal
        async with trio.open_nursery() as nursery:
            goodbye = await self._take_requests(nursery)
            for request in self._in_flight.values():
                if request.is_stream:
                    request.scope.cancel()
            nursery.cancel_scope.deadline = trio.current_time() + self._limits.finish_s
        return goodbye

    async def _shake_hands(self) -> WireError | None:
        try:
            message = await self._next_message()
            # Foreign clients introduce themselves with notifications of their own.
            while isinstance(message, Notification):
                message = await self._next_message()
        except FrameError as error:
            return await self._refuse_frame(error)
        if message is None:
            return WireError("bad_frame", "cannot go on: the connection ended before hello")
        if not isinstance(message, Request) or message.method != "hello":
            request_id = message.id if isinstance(message, Request) else None
            return await self._refuse_frame(
                FrameError("cannot serve anything before hello", request_id=request_id)
            )
        failure, result = await answer(self._context, message)
        await self._reply(encode_response(message.id, failure, result))
        return None if failure is None else WireError.from_map(failure)

    async def _take_requests(self, nursery: trio.Nursery) -> WireError | None:
        """Start a task for each request until there are no more; returns what to say last."""
        with self._reading:
            try:
                while (message := await self._next_message()) is not None:
                    if isinstance(message, Request):
                        await self._begin(message, nursery)
                    elif not isinstance(message, Notification):
                        raise FrameError("cannot take a response: nothing was asked")
            except FrameError as error:
                return await self._refuse_frame(error)
        return None

    async def _next_message(self) -> Message | None:
        """Return the next message, or None when the client sends no more."""
        while not self._inbox:
            try:
                data = await self._stream.receive_some(_READ_BYTES)
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self._inbox.extend(self._decoder.feed(data))
        return self._inbox.popleft()

    async def _refuse_frame(self, error: FrameError) -> WireError:
        goodbye = WireError("bad_frame", str(error))
        if error.request_id is not None:
            await self._reply(encode_response(error.request_id, goodbye.to_map(), None))
        return goodbye

    async def _begin(self, request: Request, nursery: trio.Nursery) -> None:
        if request.id in self._in_flight:
            raise FrameError(f"cannot take request {request.id}: that id is still being served")
        method = METHODS.get(request.method)
        is_stream = method is not None and method.stream
        refusal = self._refusal(request, is_stream=is_stream)
        if refusal is not None:
            await self._reply(encode_response(request.id, refusal.to_map(), None))
            return
        in_flight = _InFlight(request.method, is_stream, trio.CancelScope())
        self._in_flight[request.id] = in_flight
        if request.method == _COLLECT:
            self._send_timeout_s = self._limits.collect_timeout_s
        nursery.start_soon(self._answer, request, in_flight.scope)

    def _refusal(self, request: Request, *, is_stream: bool) -> WireError | None:
        method = request.method
        if request.problem is not None:
            return WireError("bad_params", f"cannot call {method}: {request.problem}")
        others = list(self._in_flight.values())
        # Chunks fill the queue to everyone; a bundle must not hold up, nor be held up by, the rest.
        if any(other.method == _COLLECT for other in others) or (method == _COLLECT and others):
            return WireError(
                "refused",
                f"cannot serve {method} beside others: {_COLLECT} needs its own connection",
            )
        same_kind = sum(other.is_stream is is_stream for other in others)
        limit = self._limits.max_streams if is_stream else self._limits.max_requests
        if same_kind >= limit:
            return WireError("refused", f"cannot serve {method}: {limit} are under way already")
        return None

    async def _answer(self, request: Request, scope: trio.CancelScope) -> None:
        try:
            with scope:
                error, result = await answer(self._context, request)
                await self._reply(_response_frame(request, error, result))
        finally:
            del self._in_flight[request.id]

    async def _notify(self, method: str, params: dict[str, object]) -> None:
        await self._send(encode_notification(method, params))

    async def _reply(self, frame: bytes) -> None:
        # The writer has seen that the client is gone and ends the reading.
        with suppress(ClientGone):
            await self._send(frame)

    async def _send(self, frame: bytes) -> None:
        try:
            await self._outbox.send(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ClientGone from error

    async def _write(self) -> None:
        """Write queued frames until the queue is closed or the client reads no more."""
        with self._writing, self._frames:
            try:
                async for frame in self._frames:
                    await _send_frame(self._stream, frame, self._send_timeout_s)
            except trio.BrokenResourceError:
                self._reading.cancel()
            except trio.TooSlowError:
                # A frame may have gone out in part: nothing can follow it.
                _log.warning("client_too_slow")
                self._reading.cancel()


async def _send_frame(stream: trio.abc.SendStream, frame: bytes, timeout_s: float) -> None:
    """Send a frame in pieces, so that the time-out is one without progress.

    Raises:
        trio.TooSlowError: a piece was not taken in time; the stream cannot be used any more.
        trio.BrokenResourceError: the client has gone.
    """
    for start in range(0, len(frame), _WRITE_BYTES):
        with trio.fail_after(timeout_s):
            await stream.send_all(memoryview(frame)[start : start + _WRITE_BYTES])


async def say_bye(stream: trio.abc.SendStream, reason: WireError) -> None:
    """Send `bye` to a client that is not served at all; does not wait for it."""
    with suppress(trio.BrokenResourceError), trio.move_on_after(1.0):
        await stream.send_all(_bye_frame(reason))


def _bye_frame(reason: WireError) -> bytes:
    return encode_notification("bye", reason.to_map())


def _response_frame(request: Request, error: dict[str, object] | None, result: object) -> bytes:
    try:
        return encode_response(request.id, error, result)
    except FrameError as too_large:
        _log.error("answer_unsendable", method=request.method, reason=str(too_large))
        failure = WireError("internal", f"cannot send the answer to {request.method}: {too_large}")
        return encode_response(request.id, failure.to_map(), None)
