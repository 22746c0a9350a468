"""The connection to soakd: accepted by uid, newest wins, bounded in both directions."""

from __future__ import annotations

import selectors
import socket
import struct
from collections.abc import Callable

from soakd.shim import protocol
from soakd.shim.errors import VerbError

READ_BYTES = 64 * 1024
PAUSE_BYTES = 128 * 1024
"""With more than this unsent, no further request is read and no stderr line is queued."""
LIMIT_BYTES = 1024 * 1024
"""With more than this unsent the connection is given up; the journal has what was lost."""
FLUSH_S = 1.0


def peer_uid(sock: socket.socket) -> int:
    """The uid that called connect(), by SO_PEERCRED."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    uid: int = struct.unpack("iII", raw)[1]
    return uid


class Link:
    """One accepted connection.

    Args:
        sock: the accepted socket; closed by `close`.
        selector: the main loop's.
        on_message: called with each request.
        on_lost: called once when the other side is gone or sent nonsense.
    """

    def __init__(
        self,
        sock: socket.socket,
        selector: selectors.BaseSelector,
        on_message: Callable[[dict[str, object]], None],
        on_lost: Callable[[Link], None],
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._selector = selector
        self._on_message = on_message
        self._on_lost = on_lost
        self._decoder = protocol.Decoder()
        self._out = bytearray()
        self._mask = selectors.EVENT_READ
        self.closed = False
        selector.register(sock, self._mask, self._ready)

    @property
    def slow(self) -> bool:
        """Whether so much is unsent that what may be dropped should be."""
        return len(self._out) > PAUSE_BYTES

    def send(self, message: dict[str, object]) -> None:
        """Queue one frame and send what the socket takes."""
        if self.closed:
            return
        self._out += protocol.encode(message)
        self._write()

    def refuse(self, request_id: object, exc: VerbError) -> None:
        """Answer a request with an error."""
        self.send({"id": request_id, "error": {"code": exc.code, "text": exc.text[:2000]}})

    def close(self) -> None:
        """Let go without telling anyone."""
        if not self.closed:
            self.closed = True
            self._selector.unregister(self._sock)
            self._sock.close()

    def flush_and_close(self) -> None:
        """Send what is queued, for at most `FLUSH_S`, and close."""
        if not self.closed:
            try:
                self._sock.settimeout(FLUSH_S)
                self._sock.sendall(self._out)
            except OSError:
                self._out.clear()
            self.close()

    def _ready(self, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._write()
        if mask & selectors.EVENT_READ and not self.closed:
            self._read()

    def _read(self) -> None:
        try:
            data = self._sock.recv(READ_BYTES)
            messages = self._decoder.feed(data) if data else None
        except BlockingIOError:
            return
        except (OSError, protocol.FrameError):
            messages = None
        if messages is None:
            self._lose()
            return
        for message in messages:
            if not self.closed:
                self._on_message(message)

    def _write(self) -> None:
        try:
            while self._out:
                sent = self._sock.send(self._out)
                del self._out[:sent]
        except BlockingIOError:
            if len(self._out) > LIMIT_BYTES:
                self._lose()
                return
        except OSError:
            self._lose()
            return
        self._watch()

    def _watch(self) -> None:
        mask = selectors.EVENT_WRITE if self._out else 0
        if not self.slow:
            mask |= selectors.EVENT_READ
        if mask != self._mask:
            self._mask = mask
            self._selector.modify(self._sock, mask, self._ready)

    def _lose(self) -> None:
        if not self.closed:
            self.close()
            self._on_lost(self)
