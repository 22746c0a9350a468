"""One connection to soakd: requests, answers and numbered notifications over a blocking socket.

The codec is `soakd.wire.frames`, the daemon's own; here are only the pump and the time-outs.
"""

from __future__ import annotations

import socket
import time
from collections import deque

from soakctl.failures import ConnectionLost, Failure, failure_of
from soakd.wire.frames import (
    Decoder,
    FrameError,
    Notification,
    Response,
    encode_request,
)

# The same as soakd.wire.messages.PROTOCOL_MAJOR, by a test: that module's typed results take 5 ms
# to import, and nothing else of it is needed here.
PROTOCOL_MAJOR = 1

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Any, Self

    from soakctl.shapes import Params
HELLO_TIMEOUT_S = 5.0
CALL_TIMEOUT_S = 30.0
READ_BYTES = 65536
_LAST_WORDS_S = 0.2


class Client:
    """A connection that has said hello; closes its socket on leaving the `with` block."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._decoder = Decoder()
        self._last_id = 0
        self._answers: dict[int, Response] = {}
        self._notifications: deque[Params] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the socket; soakd ends whatever stream was under way."""
        self._socket.close()

    def hello(self) -> dict[str, Any]:
        """Introduces us; soakd refuses another major version here."""
        return self.call(
            "hello", {"client": "soakctl", "protocol": PROTOCOL_MAJOR}, timeout_s=HELLO_TIMEOUT_S
        )

    def call(
        self, method: str, params: Params | None = None, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> dict[str, Any]:
        """Asks and waits for the answer; notifications that come first are kept for their stream.

        Raises:
            Failure: soakd refused, or did not answer within `timeout_s`.
            ConnectionLost: the connection ended first.
        """
        number = self.send(method, params)
        deadline = time.monotonic() + timeout_s
        while number not in self._answers:
            if not self._pump(deadline - time.monotonic()):
                raise Failure(
                    "timeout",
                    f"cannot {method}: soakd did not answer within {timeout_s:g} s",
                    advice=["it may be busy; try again, or look at its log"],
                )
        return self.take(number)

    def stream(
        self,
        method: str,
        params: Params | None = None,
        *,
        tick_s: float | None = None,
        idle_timeout_s: float | None = None,
    ) -> Stream:
        """Asks for a stream: iterate over it, then read its `result`. One stream per client.

        Args:
            method: a method whose notifications come before its answer.
            params: its parameters.
            tick_s: yields `None` each time so long passed without a notification.
            idle_timeout_s: so long without any notification is a failure.
        """
        return Stream(self, self.send(method, params), tick_s=tick_s, idle_timeout_s=idle_timeout_s)

    def send(self, method: str, params: Params | None = None) -> int:
        """Sends a request and returns its number without waiting."""
        self._last_id += 1
        try:
            request = encode_request(self._last_id, method, params or {})
        except FrameError as error:
            # What was typed need be no UTF-8, and a number of any size.
            text = f"cannot ask soakd for {method} of what was given: {error}"
            raise Failure("usage", text) from error
        try:
            self._socket.settimeout(CALL_TIMEOUT_S)
            self._socket.sendall(request)
        except OSError as error:
            # A server that refuses the connection may have said why before it closed.
            self._hear_last_words()
            if self._last_id not in self._answers:
                raise ConnectionLost(f"cannot {method}: the connection to soakd broke") from error
        return self._last_id

    def answered(self, number: int) -> bool:
        """Whether the answer to request `number` has arrived."""
        return number in self._answers

    def take(self, number: int) -> dict[str, Any]:
        """Gives the result of an answered request, or raises its error."""
        answer = self._answers.pop(number)
        if answer.error is not None:
            raise failure_of(answer.error)
        return answer.result if isinstance(answer.result, dict) else {}

    def next_notification(self, number: int, timeout_s: float | None) -> Params | None:
        """Waits for a notification of stream `number`; None = time passed, or the answer came."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._notifications and number not in self._answers:
            left = None if deadline is None else deadline - time.monotonic()
            if not self._pump(left):
                return None
        return self._notifications.popleft() if self._notifications else None

    def _pump(self, timeout_s: float | None) -> bool:
        """Reads once; False = nothing came in time."""
        if timeout_s is not None and timeout_s <= 0:
            return False
        try:
            self._socket.settimeout(timeout_s)
            data = self._socket.recv(READ_BYTES)
        except TimeoutError:
            return False
        except OSError as error:
            raise ConnectionLost("cannot go on: the connection to soakd broke") from error
        if not data:
            raise ConnectionLost("cannot go on: soakd closed the connection")
        self._sort(data)
        return True

    def _hear_last_words(self) -> None:
        try:
            while self._pump(_LAST_WORDS_S):
                continue
        except ConnectionLost:
            return

    def _sort(self, data: bytes) -> None:
        try:
            messages = self._decoder.feed(data)
        except FrameError as error:
            raise Failure(
                "version",
                f"cannot understand soakd: {error}",
                advice=["is this socket really soakd's? soakctl --socket names another"],
            ) from error
        for message in messages:
            if isinstance(message, Response):
                self._answers[message.id] = message
            elif isinstance(message, Notification) and message.method == "bye":
                raise _goodbye(message.params)
            elif isinstance(message, Notification):
                self._notifications.append(message.params)


def _goodbye(error: Params) -> Failure:
    """Tells a soakd that ends from one that does not want us."""
    failure = failure_of(error)
    return ConnectionLost(failure.message) if failure.code == "no_daemon" else failure


class Stream:
    """Notifications of one request, in order; `result` is its answer once they are over."""

    def __init__(
        self,
        client: Client,
        number: int,
        *,
        tick_s: float | None,
        idle_timeout_s: float | None,
    ) -> None:
        self._client = client
        self._number = number
        self._tick_s = tick_s
        self._idle_timeout_s = idle_timeout_s
        self.result: dict[str, Any] = {}

    def __iter__(self) -> Iterator[Params | None]:
        """Yields notifications' parameters, and None per tick.

        Raises:
            Failure: soakd answered with an error, or nothing came for `idle_timeout_s`.
            ConnectionLost: the connection ended before the answer.
        """
        wait_s = self._tick_s if self._tick_s is not None else self._idle_timeout_s
        while True:
            notification = self._client.next_notification(self._number, wait_s)
            if notification is not None:
                yield notification
            elif self._client.answered(self._number):
                self.result = self._client.take(self._number)
                return
            elif self._tick_s is not None:
                yield None
            else:
                raise Failure(
                    "timeout",
                    f"cannot go on: soakd sent nothing for {self._idle_timeout_s:g} s",
                    advice=["try again"],
                )
