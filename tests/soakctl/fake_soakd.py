"""A soakd for tests of the client: a real socket and real frames, answers from a table."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soakd.wire.errors import WireError
from soakd.wire.frames import Decoder, Request, encode_notification, encode_response
from soakd.wire.messages import check_params

Params = dict[str, Any]
Notify = Callable[[str, Params], None]
Handler = Callable[[Params, Notify], Any]

HELLO = {
    "server": "soakd 0.1.0",
    "protocol": 1,
    "minor": 0,
    "mode": "user",
    "uid": 0,
    "member": True,
    "admin": True,
}


class Hangup(Exception):
    """A handler raises it to close the connection without an answer."""


class FakeSoakd:
    """Serves until closed; each request in a thread of its own, as soakd's tasks do.

    Attributes:
        handlers: by method; a value that is no function is the answer itself.
        calls: what was asked, hello left out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.handlers: dict[str, Any] = {"hello": HELLO}
        self.calls: list[tuple[str, Params]] = []
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._spawn(self._accept)

    def close(self) -> None:
        """Ends every connection and joins every thread."""
        # shutdown() wakes a thread in accept(), close() alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            _hang_up(connection)
        for thread in self._threads:
            thread.join(5)
        for connection in self._connections:
            connection.close()

    def _spawn(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._spawn(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        decoder, lock = Decoder(), threading.Lock()

        def send(frame: bytes) -> None:
            with lock:
                connection.sendall(frame)

        while True:
            try:
                data = connection.recv(65536)
            except OSError:
                return
            if not data:
                return
            for message in decoder.feed(data):
                assert isinstance(message, Request)
                self._spawn(self._answer, connection, send, message)

    def _answer(
        self, connection: socket.socket, send: Callable[[bytes], None], request: Request
    ) -> None:
        if request.method != "hello":
            self.calls.append((request.method, request.params))
        try:
            try:
                check_params(request.method, request.params)
                handler = self.handlers[request.method]
                result = handler
                if callable(handler):
                    result = handler(
                        request.params,
                        lambda method, params: send(encode_notification(method, params)),
                    )
                send(encode_response(request.id, None, result))
            except WireError as error:
                send(encode_response(request.id, error.to_map(), None))
            except Hangup:
                _hang_up(connection)
        except OSError:
            # The client has left.
            return


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
