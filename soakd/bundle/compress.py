"""Compresses a stream: stdin to gzip on stdout, with isal where it is there, else zlib.

A process of soakd's own uid that parses nothing: what comes from the helper is bytes. It is run
as a file, `python -I .../compress.py`, so it must not import anything of soakd.
"""

from __future__ import annotations

import os
import sys
import zlib
from typing import Protocol

_CHUNK = 1 << 18
_GZIP_WINDOW = 31
_LEVEL = 1


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def make_compressor(*, use_isal: bool = True) -> _Compressor:
    """Return a gzip compressor: igzip level 1 (585 MB/s) or zlib level 1 (153 MB/s)."""
    if use_isal:
        try:
            from isal import isal_zlib  # noqa: PLC0415 - optional
        except ImportError:
            return make_compressor(use_isal=False)
        fast: _Compressor = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP_WINDOW)
        return fast
    return zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)


def compress(source: int, target: int, compressor: _Compressor) -> None:
    """Pump descriptor to descriptor until the source ends.

    Raises:
        OSError: the target cannot be written.
    """
    while data := os.read(source, _CHUNK):
        _write(target, compressor.compress(data))
    _write(target, compressor.flush())


def _write(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]


def main() -> int:
    """Compress stdin to stdout; return the exit status."""
    try:
        compress(sys.stdin.fileno(), sys.stdout.fileno(), make_compressor())
    except OSError as error:
        sys.stderr.write(f"cannot compress: {error.strerror}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
