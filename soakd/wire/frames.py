"""MessagePack-RPC frames, without any IO: bytes in, messages out, and the other way round.

Used by the server and by the client, each with its own thin pump; there is no second codec. A
decoder that has raised must not be fed again: after one malformed frame nothing later on that
connection can be trusted. Sizes, depth and counts are checked here because a frame comes from
anyone who can connect.
"""

from __future__ import annotations

import math

import msgpack

# `typing`, and what builds classes from annotations, would cost every soakctl call 4 ms.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

MAX_FRAME_BYTES = 1 << 20
MAX_DATA_BYTES = 128 * 1024
"""Longest `data` in a run.log or run.chunk notification; a frame stays far below the limit."""

_FEED_BYTES = 64 * 1024
_MAX_STR_BYTES = 256 * 1024
_MAX_BIN_BYTES = 256 * 1024
_MAX_ARRAY_ITEMS = 4096
_MAX_MAP_ITEMS = 1024
_MAX_DEPTH = 16
_MAX_VALUES = 50_000
_MAX_ID = (1 << 32) - 1
_MAX_INT = (1 << 63) - 1
_MAX_METHOD_CHARS = 64

_REQUEST, _RESPONSE, _NOTIFICATION = 0, 1, 2
_LENGTHS = {_REQUEST: 4, _RESPONSE: 4, _NOTIFICATION: 3}

if msgpack.Unpacker.__module__ != "msgpack._cmsgpack":  # pragma: no cover
    # The pure Python unpacker is quadratic in small pieces: 309 ms of standstill for 11 kB.
    raise ImportError(
        "cannot use msgpack without its C extension: install the msgpack wheel for this Python"
    )


class _Frame:
    """Equality and text by the fields, for tests and logs."""

    __slots__: tuple[str, ...] = ()

    def _fields(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Frame) or type(other) is not type(self):
            return NotImplemented
        return self._fields() == other._fields()

    __hash__ = None  # type: ignore[assignment]  # fields may be maps

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self._fields()!r}"


class Request(_Frame):
    """A call that wants an answer with the same `id`.

    `problem` is set, and `params` empty, when the params are MessagePack-RPC but not ours: such a
    request is refused without ending the connection.
    """

    __slots__ = ("id", "method", "params", "problem")

    def __init__(
        self,
        id: int,  # noqa: A002 - the protocol's word
        method: str,
        params: dict[str, object],
        problem: str | None = None,
    ) -> None:
        self.id = id
        self.method = method
        self.params = params
        self.problem = problem


class Response(_Frame):
    """The answer to the request `id`: `error` is None or a map with code, message and details."""

    __slots__ = ("error", "id", "result")

    def __init__(
        self,
        id: int,  # noqa: A002 - the protocol's word
        error: dict[str, object] | None,
        result: object,
    ) -> None:
        self.id = id
        self.error = error
        self.result = result


class Notification(_Frame):
    """Something said without wanting an answer; `problem` as in `Request`."""

    __slots__ = ("method", "params", "problem")

    def __init__(self, method: str, params: dict[str, object], problem: str | None = None) -> None:
        self.method = method
        self.params = params
        self.problem = problem


Message: TypeAlias = Request | Response | Notification


class FrameError(Exception):
    """A frame breaks the rules of the wire; the connection must end.

    `request_id` is set when the frame was recognisably a request, so that it can be answered first.
    """

    def __init__(self, message: str, *, request_id: int | None = None) -> None:
        super().__init__(message)
        self.request_id = request_id


class Decoder:
    """Turns received bytes into messages, whatever the pieces they arrive in."""

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._fed_bytes = 0
        self._frame_began = 0
        # One piece may hold the end of a frame of full size and the begin of the next.
        self._unpacker = msgpack.Unpacker(
            raw=False,
            max_buffer_size=max_frame_bytes + _FEED_BYTES,
            max_str_len=min(_MAX_STR_BYTES, max_frame_bytes),
            max_bin_len=min(_MAX_BIN_BYTES, max_frame_bytes),
            max_array_len=_MAX_ARRAY_ITEMS,
            max_map_len=_MAX_MAP_ITEMS,
            max_ext_len=0,
        )

    def feed(self, data: bytes | bytearray) -> list[Message]:
        """Take received bytes and return the messages they complete.

        Raises:
            FrameError: a frame is malformed, too large or too deep; messages decoded from the same
                call are lost.
        """
        messages: list[Message] = []
        for start in range(0, len(data), _FEED_BYTES):
            self._feed_piece(data[start : start + _FEED_BYTES], messages)
        return messages

    @property
    def pending_bytes(self) -> int:
        """Bytes received of a frame that is not complete yet."""
        return self._fed_bytes - self._frame_began

    def _feed_piece(self, piece: bytes | bytearray, messages: list[Message]) -> None:
        try:
            self._unpacker.feed(piece)
            self._fed_bytes += len(piece)
            # tell() also counts what was taken of an incomplete frame: frame borders are kept here.
            for value in self._unpacker:
                ended = self._unpacker.tell()
                self._check_size(ended - self._frame_began)
                self._frame_began = ended
                messages.append(_to_message(value))
        except (ValueError, msgpack.UnpackException) as error:
            raise FrameError(f"cannot decode frame: {type(error).__name__}: {error}") from error
        self._check_size(self.pending_bytes)

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._max_frame_bytes:
            raise FrameError(
                f"cannot decode frame: {size_bytes} bytes exceed the limit {self._max_frame_bytes}"
            )


def encode_request(request_id: int, method: str, params: dict[str, object]) -> bytes:
    """Return the frame of a request.

    Raises:
        FrameError: the frame would be too large, or holds a value MessagePack does not know.
    """
    return _pack([_REQUEST, request_id, method, [params]])


def encode_response(request_id: int, error: dict[str, object] | None, result: object) -> bytes:
    """Return the frame of a response: `error` or `result`, the other one is None.

    Raises:
        FrameError: as for `encode_request`.
    """
    return _pack([_RESPONSE, request_id, error, result])


def encode_notification(method: str, params: dict[str, object]) -> bytes:
    """Return the frame of a notification.

    Raises:
        FrameError: as for `encode_request`.
    """
    return _pack([_NOTIFICATION, method, [params]])


def _pack(value: list[object]) -> bytes:
    try:
        frame: bytes = msgpack.packb(value, use_bin_type=True)
    except (ValueError, TypeError, OverflowError) as error:
        raise FrameError(f"cannot encode frame: {type(error).__name__}: {error}") from error
    if len(frame) > MAX_FRAME_BYTES:
        raise FrameError(
            f"cannot encode frame: {len(frame)} bytes exceed the limit {MAX_FRAME_BYTES}"
        )
    return frame


def _to_message(value: object) -> Message:
    if not isinstance(value, list) or not value or type(value[0]) is not int:
        raise FrameError("cannot read message: not an array that begins with its type")
    kind = value[0]
    if kind not in _LENGTHS or len(value) != _LENGTHS[kind]:
        raise FrameError(
            f"cannot read message: type {kind} with {len(value)} items is not MessagePack-RPC"
        )
    if kind == _NOTIFICATION:
        _check_values(value, None)
        return Notification(_method(value[1], None), *_params(value[2], None))
    message_id = value[1]
    if type(message_id) is not int or not 0 <= message_id <= _MAX_ID:
        raise FrameError("cannot read message: id is not an integer in [0, 2^32)")
    if kind == _RESPONSE:
        _check_values(value, None)
        return Response(message_id, _error(value[2]), value[3])
    _check_values(value, message_id)
    return Request(message_id, _method(value[2], message_id), *_params(value[3], message_id))


def _method(value: object, request_id: int | None) -> str:
    # Clients written for the first MessagePack, which had one raw type, send bytes.
    if isinstance(value, bytes) and value.isascii():
        value = value.decode("ascii")
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_METHOD_CHARS:
        raise FrameError(
            f"cannot read message: method is not a text of 1 to {_MAX_METHOD_CHARS} characters",
            request_id=request_id,
        )
    return value


def _params(value: object, request_id: int | None) -> tuple[dict[str, object], str | None]:
    if not isinstance(value, list):
        raise FrameError("cannot read message: params are not an array", request_id=request_id)
    if not value:
        # Foreign clients send an empty array where a method takes nothing.
        return {}, None
    if len(value) == 1 and isinstance(value[0], dict):
        return value[0], None
    return {}, f"params must be an array with one map, got {len(value)} positional"


def _error(value: object) -> dict[str, object] | None:
    if value is None:
        return None
    if isinstance(value, dict):
        known = {str(key): item for key, item in value.items()}
        if isinstance(known.get("code"), str) and isinstance(known.get("message"), str):
            return known
    raise FrameError("cannot read message: error is not a map with code and message")


def _check_values(message: list[object], request_id: int | None) -> None:
    """Walk everything inside without recursion, since the sender chooses the depth."""
    seen = 0
    level: list[object] = list(message)
    for _depth in range(_MAX_DEPTH):
        seen += len(level)
        if seen > _MAX_VALUES:
            raise FrameError(
                f"cannot read message: more than {_MAX_VALUES} values", request_id=request_id
            )
        level = _values_inside(level, request_id)
        if not level:
            return
    raise FrameError(f"cannot read message: nested deeper than {_MAX_DEPTH}", request_id=request_id)


def _values_inside(level: list[object], request_id: int | None) -> list[object]:
    inside: list[object] = []
    for value in level:
        if isinstance(value, list):
            inside.extend(value)
        elif isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise FrameError(
                    "cannot read message: a map key is not a text", request_id=request_id
                )
            inside.extend(value.values())
        elif isinstance(value, float) and not math.isfinite(value):
            raise FrameError("cannot read message: a number is not finite", request_id=request_id)
        elif isinstance(value, int) and value > _MAX_INT:
            raise FrameError(
                "cannot read message: an integer exceeds 63 bits", request_id=request_id
            )
    return inside
