"""One connection to a node with HTTP/1.1 on it: a request goes out, a whole answer comes in.

Decided here: what is refused of an answer while it comes, so that no node costs memory. Not decided
here: when to connect, whom to believe and how long to wait (`soakd.edge.node_api`).
"""

from __future__ import annotations

import socket
from typing import Final, Literal

import h11
import httpx
import trio

from soakd.core.errors import HostError, NodeError

MAX_BODY_BYTES: Final = 1 << 20
MAX_HEADER_BYTES: Final = 16 << 10
READ_BYTES: Final = 64 << 10
WIRE_FACTOR: Final = 2
"""How much larger than its body an answer may be: chunks of a byte each cost CPU, not memory."""

Kind = Literal["refused", "timeout", "protocol", "too_big", "foreign", "lost"]


class NodeCallError(NodeError):
    """A call got no usable answer.

    Attributes:
        kind: `refused`: nobody listens. `timeout`: connect or whole call. `protocol`: not HTTP as
            we asked for it. `too_big`: body or headers over the limit. `foreign`: the listener is
            not the node, no token was sent. `lost`: the connection ended before the answer did.
        text: the cause alone, without which call it was.
    """

    def __init__(self, kind: Kind, text: str, act: str = "call the node") -> None:
        super().__init__(f"api_{kind}", f"cannot {act}: {text}")
        self.kind: Kind = kind
        self.text = text


class Died(Exception):
    """The connection ended before a byte of the answer came."""


class Whole(httpx.ByteStream):
    """A body that is here, as it came: nothing of it is encoded."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


class Link:
    """A socket with the state of HTTP on it."""

    def __init__(self, family: socket.AddressFamily) -> None:
        try:
            self.raw = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise HostError("internal", f"cannot make a socket: {error.strerror}") from error
        self.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = trio.socket.from_stdlib_socket(self.raw)
        self.http = h11.Connection(h11.CLIENT, MAX_HEADER_BYTES)
        self.heard = False
        """A byte of the answer under way came."""
        self.taken_bytes = 0
        """What came since the request was sent."""
        self.ended = False
        """The node closed its side."""

    def close(self) -> None:
        """Close it, whatever is on its way."""
        self.socket.close()

    def is_clean(self) -> bool:
        """Whether another exchange may follow; prepares it."""
        http = self.http
        if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
            return False
        if http.trailing_data[0]:
            return False
        http.start_next_cycle()
        return True

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        view = memoryview(data)
        while view:
            view = view[await self.socket.send(view) :]

    async def receive(self) -> None:
        """Feed what comes next to h11; raises `Died` if that is the end, unheard."""
        data = await self.socket.recv(READ_BYTES)
        self.heard = self.heard or bool(data)
        self.ended = not data
        self.taken_bytes += len(data)
        if not self.heard:
            raise Died
        self.http.receive_data(data)


async def converse(link: Link, request: httpx.Request) -> httpx.Response:
    """Send a request and take the whole answer, whose stream is a `Whole`.

    Raises:
        Died: the connection had ended before.
        NodeCallError: what came is more than an answer may have, or no answer to us.
        OSError, h11.RemoteProtocolError, h11.LocalProtocolError: as they are.
    """
    http = link.http
    head = h11.Request(
        method=request.method, target=request.url.raw_path, headers=request.headers.raw
    )
    data = http.send(head) or b""
    stream = request.stream
    if content := stream.data if isinstance(stream, Whole) else await request.aread():
        data += http.send(h11.Data(data=content)) or b""
    await link.send(data + (http.send(h11.EndOfMessage()) or b""))
    body = bytearray()
    link.taken_bytes = 0
    try:
        answer = await _receive(link, body)
        headers = answer.headers.raw_items()
        return httpx.Response(answer.status_code, headers=headers, stream=Whole(bytes(body)))
    finally:
        # The frames of an exception may live until the next garbage collection, and bodies that
        # were refused with them.
        body.clear()


async def _receive(link: Link, body: bytearray) -> h11.Response:
    """Receive a whole answer; its body goes into `body`."""
    http, answer = link.http, None
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            await link.receive()
            _refuse_padding(link.taken_bytes)
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY_BYTES:
                raise NodeCallError("too_big", f"the body has more than {MAX_BODY_BYTES} bytes")
        elif isinstance(event, h11.Response):
            answer = event
            _refuse_encoding(event)
            _refuse_length(event)
        elif isinstance(event, h11.EndOfMessage) and answer is not None:
            return answer
        elif not isinstance(event, h11.InformationalResponse):
            raise NodeCallError("protocol", "the answer switches protocols")


def _refuse_encoding(answer: h11.Response) -> None:
    for name, value in answer.headers:
        if name == b"content-encoding" and value.lower() != b"identity":
            how = repr(value.decode("latin-1")[:40])
            raise NodeCallError("protocol", f"the body is encoded ({how}) though not asked for")


def _refuse_length(answer: h11.Response) -> None:
    for name, value in answer.headers:
        # h11 has checked that it is a number.
        if name == b"content-length" and int(value) > MAX_BODY_BYTES:
            text = f"the body is announced with {int(value)} bytes, more than {MAX_BODY_BYTES}"
            raise NodeCallError("too_big", text)


def _refuse_padding(taken_bytes: int) -> None:
    """Refuse an answer that hides a small body in interim answers or in chunks of nothing."""
    most = WIRE_FACTOR * MAX_BODY_BYTES + MAX_HEADER_BYTES + READ_BYTES
    if taken_bytes > most:
        raise NodeCallError("too_big", f"the answer has more than {most} bytes and no end")
