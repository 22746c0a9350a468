"""HTTP/1.1 on the loop: keep-alive connections, one request at a time on each.

Bodies come with `Content-Length`; chunked requests are answered 411, which no harness needs.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

from soakd.simnode.clock import http_date
from soakd.simnode.exchange import Exchange, Request, Response, failure, reason
from soakd.simnode.loop import READ, WRITE, Loop

HEAD_LIMIT = 64 * 1024
BODY_LIMIT = 64 * 1024
_RECEIVE = 64 * 1024
_ACCEPT_PAUSE_S = 0.1
_DRAINED = 16
SERVER = "soakd-simnode (SIMULATION)"

Handle = Callable[[Exchange], None]


def listen(address: tuple[str, int], family: socket.AddressFamily) -> socket.socket:
    """Bind and listen with address reuse, non-blocking.

    Raises:
        OSError: the address is taken or unavailable.
    """
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(1024)
    except OSError:
        sock.close()
        raise
    return sock


class Listener:
    """Accepts connections of one address."""

    def __init__(self, loop: Loop, sock: socket.socket, handle: Handle) -> None:
        self._loop = loop
        self._socket = sock
        self._handle = handle
        loop.add(sock, READ, self._accept)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Accept nobody any more; open connections go on."""
        with contextlib.suppress(KeyError):  # just looking away
            self._loop.remove(self._socket)
        self._socket.close()

    def _listen_again(self) -> None:
        if self.fileno() >= 0:
            self._loop.add(self._socket, READ, self._accept)

    def _accept(self, _events: int) -> None:
        try:
            sock, address = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:
            # Out of descriptors: the connection stays ready, so look away for a moment.
            self._loop.remove(self._socket)
            self._loop.later(_ACCEPT_PAUSE_S, self._listen_again)
            return
        Connection(self._loop, sock, address[0], self._handle)


class Connection:
    """One client; closed by the client, by `Connection: close`, or by what cannot be parsed."""

    def __init__(self, loop: Loop, sock: socket.socket, client: str, handle: Handle) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop = loop
        self._socket = sock
        self._client = client
        self._handle = handle
        self._in = bytearray()
        self._out = bytearray()
        self._exchange: Exchange | None = None
        self._events = READ
        self._last = False  # close when all is sent
        self._head_only = False
        self._parsing = False
        self._pieces: Iterator[bytes] | None = None
        self._pause_s = 0.0
        self.closed = False
        loop.add(sock, READ, self._ready)

    def respond(self, response: Response) -> None:
        """Send an answer."""
        self._exchange = None
        head = (
            f"HTTP/1.1 {response.status} {reason(response.status)}\r\n"
            f"content-type: {response.content_type}\r\n"
            f"content-length: {len(response.body)}\r\n"
        )
        for name, value in response.headers:
            head += f"{name}: {value}\r\n"
        if self._last:
            head += "connection: close\r\n"
        head += f"server: {SERVER}\r\ndate: {http_date()}\r\n\r\n"
        self._send(head.encode() + (b"" if self._head_only else response.body))

    def start_stream(self, content_type: str) -> EventStream:
        """Send the head of an endless chunked answer."""
        head = (
            f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncache-control: no-cache\r\n"
            f"transfer-encoding: chunked\r\nserver: {SERVER}\r\ndate: {http_date()}\r\n\r\n"
        )
        self._send(head.encode())
        return EventStream(self)

    def chunk(self, data: bytes) -> None:
        """Send a piece of an endless answer, or drop it when the reader is slow."""
        if not self._out and not self.closed:
            self._send(b"%x\r\n%s\r\n" % (len(data), data))

    def pour(self, pieces: Iterator[bytes], pause_s: float = 0.0) -> None:
        """Send bytes as they are, a piece each `pause_s` or as there is room, then close."""
        self._pieces, self._pause_s = pieces, pause_s
        self._next_piece()

    def _next_piece(self) -> None:
        piece = None if self._pieces is None or self.closed else next(self._pieces, None)
        if piece is None:
            self._close()
            return
        self._out += piece
        if self._pause_s:
            self._loop.later(self._pause_s, self._next_piece)
            self._flush()
        else:
            self._watch()  # one piece each turn of the loop

    def proceed(self) -> None:
        """Go on with the next request, if all of it is here."""
        if self._parsing:
            return  # whoever parses goes on by itself
        self._parsing = True
        try:
            while self._exchange is None and not self.closed and not self._last:
                request = self._next_request()
                if request is None:
                    break
                self._head_only = request.method == "HEAD"
                exchange = Exchange(request, self)
                self._exchange = exchange
                self._handle(exchange)
        finally:
            self._parsing = False
        self._watch()

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if not events & READ or self.closed:
            return
        try:
            data = self._socket.recv(_RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close()
            return
        self._in += data
        self.proceed()

    def _next_request(self) -> Request | None:
        end = self._in.find(b"\r\n\r\n")
        if end < 0:
            if len(self._in) > HEAD_LIMIT:
                self._refuse(431)
            return None
        first, *lines = self._in[:end].decode("latin-1").split("\r\n")
        parts = first.split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            self._refuse(400)
            return None
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not (length.isascii() and length.isdigit()):
            self._refuse(411)
            return None
        return self._request(parts, headers, end + 4, int(length))

    def _request(
        self, parts: list[str], headers: dict[str, str], start: int, length: int
    ) -> Request | None:
        wants_close = headers.get("connection", "").lower() == "close"
        body: bytes | None = None
        if length <= BODY_LIMIT:
            if len(self._in) < start + length:
                return None
            body = bytes(self._in[start : start + length])
            del self._in[: start + length]
        self._last = wants_close or parts[2] == "HTTP/1.0" or body is None
        path, _, query = parts[1].partition("?")
        return Request(parts[0], path, query, headers, body, self._client)

    def _refuse(self, status: int) -> None:
        self._last = True
        self.respond(failure(status))

    def _send(self, data: bytes) -> None:
        if self.closed:
            return
        self._out += data
        self._flush()

    def _flush(self) -> None:
        try:
            sent = self._socket.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close()
            return
        del self._out[:sent]
        if self._last and not self._out and self._exchange is None:
            self._close()
        elif self._pieces is not None and not self._out and not self._pause_s:
            self._next_piece()
        else:
            self._watch()

    def _watch(self) -> None:
        """Wait for room to write if needed, and for requests unless enough of them wait."""
        if self.closed:
            return
        full = self._exchange is not None and len(self._in) > HEAD_LIMIT
        events = (0 if full else READ) | (WRITE if self._out else 0)
        if events == self._events:
            return
        if not self._events:
            self._loop.add(self._socket, events, self._ready)
        elif not events:
            self._loop.remove(self._socket)
        else:
            self._loop.change(self._socket, events, self._ready)
        self._events = events

    def _close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self._events:
            self._loop.remove(self._socket)
        with contextlib.suppress(OSError):
            # What was not read would turn the close into a reset, and lose the answer on its way.
            self._socket.shutdown(socket.SHUT_WR)
            for _ in range(_DRAINED):
                if not self._socket.recv(_RECEIVE):
                    break
        self._socket.close()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abandon()


class EventStream:
    """Server-sent events of one reader."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def write(self, data: bytes) -> None:
        """Send a piece, or drop it when the reader is slow."""
        self._connection.chunk(data)
