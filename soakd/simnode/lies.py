"""Spoilt answers of the API: what each fault of it sends in place of the true answer."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from soakd.simnode.exchange import Exchange, Response, Stream, failure, reason
from soakd.simnode.httpd import Handle

DRIP_S = 0.3
BIG_BYTES = 100_000_000
BOMB_MIB = 1024
_BELOW = "/api/v1"
_MIB = b" " * (1 << 20)
_PIECE = 1 << 16
_ELSEWHERE = "http://127.0.0.1:9/elsewhere"


class Lie(NamedTuple):
    """A fault of the API in force, and for which paths."""

    kind: str
    prefix: str
    tell: Callable[[Exchange, Handle], None]

    def fits(self, path: str) -> bool:
        """Say whether a request for this path is to be lied to."""
        return not self.prefix or path.startswith(_BELOW + self.prefix)


def lie(kind: str, argument: str) -> Lie:
    """Return the lie of a checked order."""
    if kind == "http":
        code, _, prefix = argument.partition(":")
        answer = failure(int(code))
        return Lie(kind, prefix, lambda exchange, _inner: exchange.answer(answer))
    if kind == "redirect":
        location = (("location", argument or _ELSEWHERE),)
        return Lie(kind, "", lambda exchange, _inner: exchange.answer(Response(302, b"", location)))
    if kind in _INSTEAD:
        return Lie(kind, argument, _INSTEAD[kind])
    spoil = _SPOILT[kind]

    def tell(exchange: Exchange, inner: Handle) -> None:
        if exchange.request.path == f"{_BELOW}/events":
            inner(exchange)  # has no end that could be spoilt
            return
        true = Exchange(exchange.request, _Tap(exchange, spoil))
        exchange.on_end(true.abandon)
        inner(true)

    return Lie(kind, argument, tell)


def hang_up(exchange: Exchange, _inner: Handle) -> None:
    """Close the connection without an answer."""
    exchange.pour(iter(()))


def _hang(_exchange: Exchange, _inner: Handle) -> None:
    pass


def _always(body: bytes) -> Callable[[Exchange, Handle], None]:
    return lambda exchange, _inner: exchange.answer(Response(200, body))


def _endless_headers(exchange: Exchange, _inner: Handle) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        for number in itertools.count():
            yield b"x-endless-%d: %s\r\n" % (number, b"e" * 1000)

    exchange.pour(pieces())


def _endless_body(exchange: Exchange, _inner: Handle) -> None:
    chunk = b"%x\r\n%s\r\n" % (_PIECE, _MIB[:_PIECE])
    head = _head(Response(200, b""), "transfer-encoding: chunked")
    exchange.pour(itertools.chain([head], itertools.repeat(chunk)))


_INSTEAD: dict[str, Callable[[Exchange, Handle], None]] = {
    "hang": _hang,
    "hang-up": hang_up,
    "garbage": _always(b"<html>\xff\xfe\x00 this is not what you asked for {]"),
    "empty": _always(b""),
    "wrong-json": _always(b'["surprise",null]'),
    "deep-json": _always(b"[" * 100_000 + b"]" * 100_000),
    "endless-headers": _endless_headers,
    "endless-body": _endless_body,
}


class _Tap:
    """Catches the true answer of a request, to send a spoilt one."""

    def __init__(self, exchange: Exchange, spoil: Callable[[Exchange, Response], None]) -> None:
        self._exchange = exchange
        self._spoil = spoil

    def respond(self, response: Response) -> None:
        """Spoil an answer."""
        self._spoil(self._exchange, response)

    def proceed(self) -> None:
        """The true connection goes on by itself."""

    def pour(self, pieces: Iterator[bytes], pause_s: float = 0.0) -> None:
        """Send as it is; nothing behind the tap does so."""
        self._exchange.pour(pieces, pause_s)

    def start_stream(self, content_type: str) -> Stream:
        """Send the head of an endless answer; only `/events` has one."""
        return self._exchange.stream(content_type, lambda: None)


def _head(response: Response, *lines: str) -> bytes:
    headers = [f"{name}: {value}" for name, value in response.headers]
    first = f"HTTP/1.1 {response.status} {reason(response.status)}"
    kind = f"content-type: {response.content_type}"
    return "\r\n".join([first, kind, *headers, *lines, "", ""]).encode()


def _whole_head(response: Response, before: int = 0) -> bytes:
    return _head(response, f"content-length: {before + len(response.body)}")


def _truncated(exchange: Exchange, response: Response) -> None:
    exchange.answer(response._replace(body=response.body[: len(response.body) // 2]))


def _cut(exchange: Exchange, response: Response) -> None:
    half = response.body[: len(response.body) // 2]
    exchange.pour(iter([_whole_head(response) + half]))


def _big(exchange: Exchange, response: Response) -> None:
    whole, rest = divmod(BIG_BYTES, len(_MIB))
    blanks = [*itertools.repeat(_MIB, whole), _MIB[:rest]]
    exchange.pour(iter([_whole_head(response, BIG_BYTES), *blanks, response.body]))


def _drip(exchange: Exchange, response: Response) -> None:
    drops = (bytes([byte]) for byte in response.body)
    exchange.pour(itertools.chain([_whole_head(response)], drops), DRIP_S)


def _drip_head(exchange: Exchange, response: Response) -> None:
    everything = _whole_head(response) + response.body
    exchange.pour((bytes([byte]) for byte in everything), DRIP_S)


def _bomb(exchange: Exchange, response: Response) -> None:
    def pieces() -> Iterator[bytes]:
        yield _head(response, "content-encoding: gzip", "connection: close")
        yield b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
        deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        # A full flush forgets what was before: the same block can follow itself.
        block = deflate.compress(_MIB) + deflate.flush(zlib.Z_FULL_FLUSH)
        crc = 0
        for _ in range(BOMB_MIB):
            crc = zlib.crc32(_MIB, crc)
            yield block
        yield deflate.compress(response.body) + deflate.flush()
        crc = zlib.crc32(response.body, crc)
        size = BOMB_MIB * len(_MIB) + len(response.body)
        yield crc.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")

    exchange.pour(pieces())


_SPOILT: dict[str, Callable[[Exchange, Response], None]] = {
    "truncated-json": _truncated,
    "cut": _cut,
    "big-body": _big,
    "drip": _drip,
    "drip-head": _drip_head,
    "gzip-bomb": _bomb,
}
LIES = frozenset({"http", "redirect", *_INSTEAD, *_SPOILT})
