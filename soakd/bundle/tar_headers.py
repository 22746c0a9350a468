"""The headers of a tarball, of any of its dialects, made into a name and a size.

The standard library's reader believes too much and cannot go on after damage. This one knows
regular files; everything else is named so that it can be passed over. Pure but for the function
that hands out bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

BLOCK: Final = 512
MAX_EXTRA_BYTES = 1 << 16
"""Most bytes of a long name or of pax attributes; names longer than a path are nobody's."""
_FILES = frozenset(b"0\x007")
_LINKS = frozenset(b"12")
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL, _SPARSE = b"LKxgS"
_BASE_256 = 0x80
_CHECKSUM = slice(148, 156)


class Damaged(Exception):
    """The stream cannot be read further; the text says why."""


class Header(NamedTuple):
    """One member: its name without `./` and doubled slashes, and how many bytes follow."""

    name: str
    size: int
    is_file: bool
    is_link: bool


def walk(take: Callable[[int], bytes]) -> Iterator[Header]:
    """Yield each member's header; the caller takes its content before it asks for the next.

    Args:
        take: gives the next so many bytes, fewer at the end.

    Raises:
        Damaged: no header stands where one should, or the end is missing.
    """
    name: str | None = None
    size: int | None = None
    while block := take(BLOCK):
        if block == bytes(len(block)):
            return
        header, kind = _parse(block)
        if kind in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL):
            data = _extra(take, header.size)
            if kind == _LONG_NAME:
                name = _text(data)
            elif kind == _PAX:
                attributes = _pax(data)
                name = attributes.get("path", name)
                size = _count(attributes.get("size"))
            continue
        if kind == _SPARSE:
            _skip_sparse_map(take, block)
        yield header._replace(
            name=_plain(header.name if name is None else name),
            size=header.size if size is None else size,
        )
        name, size = None, None
    raise Damaged("it ends without the two empty blocks of a whole tarball")


def _parse(block: bytes) -> tuple[Header, int]:
    if len(block) < BLOCK:
        raise Damaged("it ends in the middle of a header")
    blank = block[:148] + b" " * 8 + block[156:]
    if _number(block[_CHECKSUM]) != sum(blank):
        raise Damaged("what stands there is no header of a tarball")
    kind = block[156]
    name = _text(block[:100])
    prefix = _text(block[345:500])
    if prefix and block[257:263] == b"ustar\0":
        name = f"{prefix}/{name}"
    is_file = kind in _FILES and not name.endswith("/")
    size = 0 if kind in _LINKS else _number(block[124:136])
    return Header(name, size, is_file=is_file, is_link=kind in _LINKS), kind


def _number(field: bytes) -> int:
    if field[0] & _BASE_256:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.strip(b" \0")
    if digits.strip(b"01234567"):
        raise Damaged("a number in a header is none")
    return int(digits or b"0", 8)


def _extra(take: Callable[[int], bytes], size: int) -> bytes:
    if size > MAX_EXTRA_BYTES:
        raise Damaged(f"a name or its attributes take {size} bytes")
    data = take(size + -size % BLOCK)
    if len(data) < size:
        raise Damaged("it ends in the middle of a header")
    return data[:size]


def _pax(data: bytes) -> dict[str, str]:
    """Read `LENGTH KEY=VALUE` records; what is none ends the list."""
    found = {}
    while data:
        digits = data[: data.find(b" ")]
        if not digits.isdigit() or len(digits) > 6 or int(digits) <= len(digits):
            break
        key, _, value = data[len(digits) + 1 : int(digits) - 1].partition(b"=")
        found[_text(key)] = _text(value)
        data = data[int(digits) :]
    return found


def _count(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Damaged("a number in a header is none")
    return int(text)


def _skip_sparse_map(take: Callable[[int], bytes], block: bytes) -> None:
    """Pass over the blocks that go on with the map of a sparse file."""
    goes_on = block[482]
    while goes_on:
        block = take(BLOCK)
        if len(block) < BLOCK:
            raise Damaged("it ends in the middle of a header")
        goes_on = block[504]


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _plain(name: str) -> str:
    """The name without `.` parts and doubled slashes; a leading slash stays, to be seen."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return ("/" if name.startswith("/") else "") + "/".join(parts)
