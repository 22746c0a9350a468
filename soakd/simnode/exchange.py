"""One request and its one answer, and the JSON bodies of answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

_MESSAGES = {
    400: "bad request",
    401: "unauthorized",
    403: "forbidden",
    404: "not found",
    409: "conflict",
    413: "request body too large",
    429: "too many requests",
    500: "internal server error",
    503: "service unavailable",
    504: "gateway timeout",
}


class Request(NamedTuple):
    """A request as it came: header names in lower case, `body` None when above 64 KiB."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes | None
    client: str


class Response(NamedTuple):
    """An answer with its whole body."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"


class ApiError(Exception):
    """Ends a request with the error envelope."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Stream(Protocol):
    """An answer without end."""

    def write(self, data: bytes) -> None:
        """Send a piece, or drop it when the reader is slow."""
        ...


class Sender(Protocol):
    """The connection behind an exchange."""

    def respond(self, response: Response) -> None:
        """Send an answer."""
        ...

    def proceed(self) -> None:
        """Go on with the next request, if it is there."""
        ...

    def start_stream(self, content_type: str) -> Stream:
        """Send the head of an endless answer."""
        ...

    def pour(self, pieces: Iterator[bytes], pause_s: float = 0.0) -> None:
        """Send bytes as they are, then close."""
        ...


class Exchange:
    """A request in work; the first answer counts, later ones are dropped."""

    __slots__ = ("_after", "_sender", "ended", "request")

    def __init__(self, request: Request, sender: Sender) -> None:
        self.request = request
        self.ended = False
        self._sender = sender
        self._after: list[Callable[[], None]] = []

    def on_end(self, call: Callable[[], None]) -> None:
        """Call once, when answered or when the client has gone."""
        if self.ended:
            call()
        else:
            self._after.append(call)

    def answer(self, response: Response) -> None:
        """Send the answer unless there was one or the client has gone."""
        if not self.ended:
            self._sender.respond(response)
            self.abandon()
            self._sender.proceed()

    def stream(self, content_type: str, on_close: Callable[[], None]) -> Stream:
        """Begin an answer that ends with the connection; `on_close` is called then.

        What waits for the end of the exchange is told now: its head is the answer.
        """
        after, self._after = self._after, [on_close]
        stream = self._sender.start_stream(content_type)
        for call in after:
            call()
        return stream

    def pour(self, pieces: Iterator[bytes], pause_s: float = 0.0) -> None:
        """Send bytes that need not be an answer, a piece each `pause_s`, and close after the last.

        The exchange ends with the connection.
        """
        if not self.ended:
            self._sender.pour(pieces, pause_s)

    def abandon(self) -> None:
        """End without an answer: the client has gone."""
        if self.ended:
            return
        self.ended = True
        after, self._after = self._after, []
        for call in after:
            call()


def compact(value: Any) -> bytes:
    """Return compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def success(
    value: Any, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()
) -> Response:
    """Return an answer with a JSON body."""
    return Response(status, compact(value), headers)


def failure(status: int) -> Response:
    """Return the error envelope of a status."""
    message = _MESSAGES.get(status, "request failed")
    return Response(status, compact({"code": status, "message": message}))


def reason(status: int) -> str:
    """Return the reason phrase of a status line."""
    return HTTPStatus(status).phrase
