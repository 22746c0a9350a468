"""A small client for tests of the server: one real Unix socket, our own codec."""

from __future__ import annotations

import itertools
from typing import Any

import trio

from soakd.wire.frames import (
    Decoder,
    Message,
    Notification,
    Request,
    Response,
    encode_request,
)


class WireClient:
    """Sends requests and keeps what arrives, in order."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.notes: list[Notification] = []
        self._decoder = Decoder()
        self._inbox: list[Message] = []
        self._answers: dict[int, Response] = {}
        self._ids = itertools.count(1)

    async def send(self, method: str, **params: Any) -> int:
        """Send a request without waiting for its answer; returns its id."""
        request_id = next(self._ids)
        await self.stream.send_all(encode_request(request_id, method, params))
        return request_id

    async def next(self) -> Message | None:
        """Return the next message, None at the end of the connection."""
        while not self._inbox:
            try:
                data = await self.stream.receive_some(65536)
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self._inbox.extend(self._decoder.feed(data))
        return self._inbox.pop(0)

    async def answer(self, request_id: int) -> Response:
        """Return the answer to a request; notifications before it go to `notes`."""
        while request_id not in self._answers:
            message = await self.next()
            assert message is not None, "the connection ended before the answer"
            if isinstance(message, Response):
                self._answers[message.id] = message
            else:
                assert isinstance(message, Notification)
                self.notes.append(message)
        return self._answers.pop(request_id)

    async def call(self, method: str, **params: Any) -> Any:
        """Return the result of a call that must succeed."""
        response = await self.answer(await self.send(method, **params))
        assert response.error is None, response.error
        return response.result

    async def fail(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the error of a call that must fail."""
        response = await self.answer(await self.send(method, **params))
        assert response.error is not None
        return response.error

    async def last_words(self) -> dict[str, Any] | None:
        """Read to the end of the connection; returns the error map of `bye`, if there was one."""
        words: dict[str, Any] | None = None
        while (message := await self.next()) is not None:
            if isinstance(message, Notification) and message.method == "bye":
                words = message.params
            elif isinstance(message, Notification):
                self.notes.append(message)
            else:
                assert not isinstance(message, Request)
        return words
