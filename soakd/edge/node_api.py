"""HTTP to one node: persistent connections whose far end was proven before it hears a token.

Decided here: how a call to a node that hangs, drips, lies or restarts ends, always within its
time, as an `Answer` or a `NodeCallError`. Not decided here: what an answer means (the driver), who
may listen on the port (`verify`, from the layer above) and what a failure does to a round (core).

Why not `httpx.AsyncClient`: it costs 0.3-0.4 ms of CPU per call, its pool may not be told which
connection to verify, and leaks when cancelled under contention. `NodeConnection` is an httpx
transport on h11 (0.2 ms) that is called directly; tests may put `httpx.MockTransport` in its place.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import h11
import httpx
import trio

from soakd.core.errors import NodeError
from soakd.edge.node_link import (
    MAX_HEADER_BYTES,
    Died,
    Link,
    NodeCallError,
    Whole,
    converse,
)

CONNECT_S: Final = 3.0
CALL_S: Final = 12.0

Verify = Callable[[int, str], None]
"""Given port and address, raises `NodeError` unless the node itself listens there now."""


@dataclass(slots=True)
class Answer:
    """What the node answered: HTTP status and the whole body, as sent."""

    status: int
    body: bytes


class NodeApi:
    """The HTTP API of one node. Calls of several tasks take turns; `aclose` it in the end.

    Calls made `aside` have a connection and turns of their own: a sampler's call that hangs would
    else make each call of a round wait for its time-out, and a round takes longer than it may.

    Args:
        host: a loopback literal, or `localhost` (IPv4 first, then IPv6).
        port: the node's port.
        verify: asked before and after each new connect, before any byte is sent; blocking, short.
        transport: for tests; default is a `NodeConnection`.
    """

    def __init__(
        self,
        host: str,
        port: int,
        verify: Verify,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._lanes = tuple(
            _Lane(transport or NodeConnection(host, port, verify), trio.Lock()) for _ in range(2)
        )

    async def call(
        self,
        method: str,
        path: str,
        *,
        token: str | None,
        body: Mapping[str, Any] | None = None,
        timeout_s: float = CALL_S,
        aside: bool = False,
    ) -> Answer:
        """Send one request and return the answer, whatever its status.

        A GET whose idle connection turns out dead is sent once more on a new one; nothing else is
        ever repeated, no redirect is followed.

        Args:
            method: `GET`, `POST`, ...
            path: absolute, with query; becomes the request target.
            token: for `Authorization: Bearer`; None sends none.
            body: sent as JSON; None sends none.
            timeout_s: for the whole call; the wait for calls of other tasks does not count.
            aside: the call is not one that a round waits for.

        Raises:
            NodeCallError: there was no usable answer; the next call connects anew.
        """
        act = f"{method} {path} on {self._authority}"
        request = self._request(method, path, token, body)
        lane = self._lanes[aside]
        async with lane.turn:
            try:
                with trio.fail_after(timeout_s):
                    response = await lane.transport.handle_async_request(request)
                    return Answer(response.status_code, await _body_of(response))
            except trio.TooSlowError:
                text = f"no whole answer within {timeout_s:g} s"
                raise NodeCallError("timeout", text, act) from None
            except NodeCallError as error:
                raise NodeCallError(error.kind, error.text, act) from error

    async def aclose(self) -> None:
        """Close the connections; a later call would open a new one."""
        for lane in self._lanes:
            await lane.transport.aclose()

    def _request(
        self, method: str, path: str, token: str | None, body: Mapping[str, Any] | None
    ) -> httpx.Request:
        headers = [("Host", self._authority), ("Accept-Encoding", "identity")]
        if token is not None:
            # The token comes from a file of the user's: it must not bring headers of its own.
            if not (token.isascii() and token.isprintable()):
                raise NodeCallError("protocol", "the token holds characters no header may hold")
            headers.append(("Authorization", f"Bearer {token}"))
        content = b""
        if body is not None:
            headers.append(("Content-Type", "application/json"))
            content = json.dumps(body, separators=(",", ":")).encode()
        if body is not None or method != "GET":
            headers.append(("Content-Length", str(len(content))))
        # Of a stream httpx takes the headers as they are: no work on what is known here.
        stream = Whole(content)
        url = _url(f"http://{self._authority}{path}")
        return httpx.Request(method, url, headers=headers, stream=stream)


@functools.lru_cache(maxsize=64)
def _url(text: str) -> httpx.URL:
    """Parse a URL once: a round reads the same few again and again."""
    return httpx.URL(text)


async def _body_of(response: httpx.Response) -> bytes:
    stream = response.stream
    return stream.data if isinstance(stream, Whole) else await response.aread()


@dataclass(slots=True)
class _Lane:
    """A connection, and whose turn it is to use it."""

    transport: httpx.AsyncBaseTransport
    turn: trio.Lock


class NodeConnection(httpx.AsyncBaseTransport):
    """One verified HTTP/1.1 connection, replaced when it ends; for one task at a time.

    Answers are complete `httpx.Response`s.
    """

    def __init__(self, host: str, port: int, verify: Verify) -> None:
        self._addresses = ("127.0.0.1", "::1") if host == "localhost" else (host,)
        self._port = port
        self._verify = verify
        self._link: Link | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request` and read its answer; any failure or cancellation closes the connection.

        Raises:
            NodeCallError: see there.
        """
        link = self._reusable()
        if link is not None:
            try:
                return await self._exchange(link, request)
            except Died:
                if request.method != "GET":
                    raise NodeCallError("lost", "the connection ended unanswered") from None
        link = self._link = await self._connect()
        try:
            return await self._exchange(link, request)
        except Died:
            raise NodeCallError("lost", "the node closed a new connection unanswered") from None

    async def aclose(self) -> None:
        """Close the connection if there is one."""
        self._drop()
        await trio.lowlevel.checkpoint()

    async def _exchange(self, link: Link, request: httpx.Request) -> httpx.Response:
        try:
            response = await converse(link, request)
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == 431:
                text = f"the headers have no end within {MAX_HEADER_BYTES} bytes"
                raise NodeCallError("too_big", text) from error
            raise NodeCallError("lost" if link.ended else "protocol", str(error)) from error
        except h11.LocalProtocolError as error:
            raise NodeCallError("protocol", f"the request is not HTTP: {error}") from error
        except OSError as error:
            if not link.heard:
                raise Died from error
            raise NodeCallError("lost", error.strerror or str(error)) from error
        finally:
            # On any failure, Cancelled included, half an answer may be on the wire: it would
            # become the next call's. So would what came behind a whole one.
            if not link.is_clean():
                self._drop()
        return response

    def _reusable(self) -> Link | None:
        """The idle connection, unless it ended or said things unasked."""
        link = self._link
        if link is not None:
            with contextlib.suppress(ConnectionError):
                try:
                    link.raw.recv(1, socket.MSG_PEEK)
                except BlockingIOError:
                    link.heard = False
                    return link
            self._drop()
        return None

    async def _connect(self) -> Link:
        before = None
        for _ in range(2):
            address, before, link = await self._open()
            after = self._objection(address)
            if after is None and before is None:
                return link
            link.close()
            if after is not None:
                raise NodeCallError("foreign", after)
            # The node's listener came up while we connected. Whoever listened before it may have
            # accepted us and gone, so that this connection proves nothing: make another.
        raise NodeCallError("foreign", before or "the listener changes with every connection")

    async def _open(self) -> tuple[str, str | None, Link]:
        """Connect: the address, what `verify` objected to just before, and the connection."""
        refusal = "no address"
        for address in self._addresses:
            before = self._objection(address)
            link = Link(socket.AF_INET6 if ":" in address else socket.AF_INET)
            try:
                with trio.fail_after(CONNECT_S):
                    await link.socket.connect((address, self._port))
            except OSError as error:
                link.close()
                refusal = os.strerror(error.errno or 0)  # trio's text repeats the address
            except trio.TooSlowError:
                link.close()
                text = f"{address} did not take the connection within {CONNECT_S:g} s"
                raise NodeCallError("timeout", text) from None
            except BaseException:
                link.close()
                raise
            else:
                return address, before, link
        raise NodeCallError("refused", refusal)

    def _objection(self, address: str) -> str | None:
        try:
            self._verify(self._port, address)
        except NodeError as error:
            return error.message
        return None

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
