"""Talk to a shim: requests, their answers, and the events between them."""

from __future__ import annotations

import base64
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from soakd.edge.shim_client.identity import short_path
from soakd.shim import protocol

CONNECT_TIMEOUT_S = 5.0
EVENTS_BUFFERED = 256
READ_BYTES = 64 * 1024
FILE_TIMEOUT_S = 30.0
MAX_RESTARTS = 3


class ShimRefused(Exception):
    """The shim answered no: `code` for programs, `text` for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    def __str__(self) -> str:
        """The sentence alone."""
        return self.text


class ShimLost(Exception):
    """The connection ended, broke, or the shim did not answer in time."""


async def connect_shim(
    shim_dir: Path, n: int, expect_uid: int, expect_pid: int | None
) -> ShimConnection:
    """Connect to a shim and take its hello. The caller runs `pump` and closes.

    Args:
        shim_dir: the run's `shim` folder.
        n: which shim.
        expect_uid: the uid that must have called listen().
        expect_pid: its pid; None to accept any process of that uid.

    Raises:
        ShimLost: nobody listens there, it is another process, or it sent no proper hello.
    """
    sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    try:
        with trio.fail_after(CONNECT_TIMEOUT_S), short_path(shim_dir) as path:
            await sock.connect(f"{path}/{n}.sock")
            raw = sock.getsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_PEERCRED, 12)
            pid, uid, _gid = struct.unpack("iII", raw)
            if uid != expect_uid or expect_pid not in (None, pid):
                raise ShimLost(f"cannot trust {n}.sock: process {pid} of uid {uid} listens there")
            connection = ShimConnection(trio.SocketStream(sock))
            await connection.take_hello()
            return connection
    except (OSError, trio.TooSlowError) as exc:
        sock.close()
        cause = "no answer" if isinstance(exc, trio.TooSlowError) else exc.strerror or str(exc)
        raise ShimLost(f"cannot connect to {n}.sock: {cause}") from exc
    except BaseException:
        sock.close()
        raise


class ShimConnection:
    """A connection to a shim; `hello` says what the shim holds.

    `events` must be read all the time while calls are made: `pump` hands over events and answers
    in the order of the stream, and waits when the channel is full (back-pressure on the shim).
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.hello: dict[str, Any] = {}
        self._events_in, self.events = trio.open_memory_channel[dict[str, Any]](EVENTS_BUFFERED)
        self._stream = stream
        self._decoder = protocol.Decoder()
        self._early: list[dict[str, object]] = []
        self._answers: dict[int, trio.MemorySendChannel[dict[str, object]]] = {}
        self._sending = trio.Lock()
        self._last_id = 0
        self._lost = False

    async def take_hello(self) -> None:
        """Read the first frame; called once by `connect_shim`.

        Raises:
            ShimLost: the stream ended or its first frame is no hello of our protocol.
        """
        while not self._early:
            self._early = await self._receive()
        hello = self._early.pop(0)
        problem = protocol.hello_problem(hello)
        if problem is not None:
            raise ShimLost(f"cannot talk to the shim: {problem}")
        self.hello = hello

    async def pump(self) -> None:
        """Hand over what the shim sends until the connection ends; run this as a task.

        Returns when the connection has ended; `events` is closed and every call gets `ShimLost`.
        """
        try:
            messages = self._early
            while True:
                for message in messages:
                    await self._hand_over(message)
                messages = await self._receive()
        except ShimLost:
            await trio.lowlevel.checkpoint()
        finally:
            self._lost = True
            self._events_in.close()
            for channel in self._answers.values():
                channel.close()

    async def call(self, verb: str, *, timeout_s: float, **params: object) -> dict[str, Any]:
        """Ask the shim for something.

        Raises:
            ShimRefused: it said no.
            ShimLost: the connection ended, or no answer came within `timeout_s`.
        """
        self._last_id += 1
        call_id = self._last_id
        send, receive = trio.open_memory_channel[dict[str, object]](1)
        self._answers[call_id] = send
        try:
            with trio.fail_after(timeout_s):
                await self._send({"id": call_id, "verb": verb, **params})
                answer = await receive.receive()
        except trio.TooSlowError:
            raise ShimLost(f"cannot {verb}: the shim did not answer in {timeout_s} s") from None
        except (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError):
            raise ShimLost(f"cannot {verb}: the connection to the shim is lost") from None
        finally:
            self._answers.pop(call_id).close()
        return _result(verb, answer)

    async def read_file(self, node: str, path: str) -> bytes:
        """A whole file of a node folder, as it was at one size.

        Raises:
            ShimRefused: code `missing`, `too_big`, `changed` and others.
            ShimLost: as in `call`.
        """
        for _ in range(MAX_RESTARTS):
            data, total = b"", 0
            while not data or len(data) < total:
                piece, size = await self._read_piece(node, path, len(data))
                if data and (size != total or not piece):
                    break
                data, total = data + piece, size
                if total > protocol.MAX_FILE_BYTES:
                    raise ShimRefused("too_big", f"cannot read {path}: it has {total} bytes")
                if not piece:
                    break
            if len(data) == total:
                return data
        raise ShimRefused("changed", f"cannot read {path}: it keeps changing its size")

    async def read_token(self, node: str) -> bytes:
        """The token file of a node that somebody else runs, as `begin` has named it.

        Raises:
            ShimRefused, ShimLost: as in `call`.
        """
        answer = await self.call("read_token", timeout_s=FILE_TIMEOUT_S, node=node)
        try:
            return base64.b64decode(answer["data"], validate=True)
        except (KeyError, TypeError, ValueError):
            # Its text may hold the token: not even a cause is shown.
            text = f"cannot read the token of {node}: the shim's answer makes no sense"
            raise ShimLost(text) from None

    async def replace_file(self, node: str, path: str, data: bytes, mode: int) -> None:
        """Put a whole file into a node folder, atomically.

        Raises:
            ShimRefused, ShimLost: as in `call`.
        """
        total, step = len(data), protocol.MAX_PIECE_BYTES
        for offset in range(0, max(total, 1), step):
            piece = base64.b64encode(data[offset : offset + step]).decode()
            params = {"node": node, "path": path, "data": piece, "mode": mode}
            place = {"offset": offset, "total": total}
            await self.call("replace", timeout_s=FILE_TIMEOUT_S, **params, **place)

    async def aclose(self) -> None:
        """Close the connection: the shim goes on, and counts itself alone from now on."""
        self._lost = True
        await self._stream.aclose()

    async def _read_piece(self, node: str, path: str, offset: int) -> tuple[bytes, int]:
        params = {"node": node, "path": path, "offset": offset, "length": protocol.MAX_PIECE_BYTES}
        answer = await self.call("read", timeout_s=FILE_TIMEOUT_S, **params)
        try:
            return base64.b64decode(answer["data"], validate=True), int(answer["total"])
        except (KeyError, TypeError, ValueError):
            raise ShimLost(f"cannot read {path}: the shim's answer makes no sense") from None

    async def _send(self, message: dict[str, object]) -> None:
        try:
            frame = protocol.encode(message)
        except protocol.FrameError as exc:
            raise ShimRefused("too_big", str(exc)) from None
        async with self._sending:
            if self._lost:
                raise trio.ClosedResourceError
            try:
                await self._stream.send_all(frame)
            except BaseException:
                # Half a frame may be out: nothing may follow it.
                self._lost = True
                await trio.aclose_forcefully(self._stream)
                raise

    async def _receive(self) -> list[dict[str, object]]:
        try:
            data = await self._stream.receive_some(READ_BYTES)
            if data:
                return self._decoder.feed(bytes(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError, protocol.FrameError) as exc:
            raise ShimLost(f"cannot read from the shim: {exc}") from None
        raise ShimLost("cannot read from the shim: it closed the connection")

    async def _hand_over(self, message: dict[str, object]) -> None:
        if "event" in message:
            # Whoever closed `events` wants no more of them, but still its answers.
            with suppress(trio.BrokenResourceError):
                await self._events_in.send(message)
            return
        answer_id = message.get("id")
        waiting = self._answers.get(answer_id) if isinstance(answer_id, int) else None
        if waiting is not None:
            # One answer per call: a second one to the same id would block, so it is dropped.
            with suppress(trio.WouldBlock):
                waiting.send_nowait(message)


def _result(verb: str, answer: dict[str, object]) -> dict[str, Any]:
    error, result = answer.get("error"), answer.get("ok")
    if isinstance(error, dict):
        raise ShimRefused(str(error.get("code")), str(error.get("text")))
    if not isinstance(result, dict):
        raise ShimLost(f"cannot {verb}: the shim's answer makes no sense")
    return result
