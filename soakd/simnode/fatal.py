"""Errors that end the process, in the debug notation the real program prints.

The real `main` returns its error, so stderr shows `Error: ` plus Rust's debug form and nothing
else; harnesses match prefixes of it.
"""

from __future__ import annotations

import errno
import json
import os

_KINDS = {
    errno.ENOENT: "NotFound",
    errno.EACCES: "PermissionDenied",
    errno.EEXIST: "AlreadyExists",
    errno.EADDRINUSE: "AddrInUse",
    errno.EADDRNOTAVAIL: "AddrNotAvailable",
    errno.EISDIR: "IsADirectory",
    errno.ENOTDIR: "NotADirectory",
    errno.ENOSPC: "StorageFull",
    errno.EROFS: "ReadOnlyFilesystem",
}


class FatalError(Exception):
    """Ends the process with code 1; its text follows `Error: ` on stderr."""


def quoted(text: str) -> str:
    """Write a string as Rust's debug form does."""
    return json.dumps(text, ensure_ascii=False)


def os_error(error: OSError) -> str:
    """Write an OSError as Rust's debug form of `std::io::Error` does."""
    code = error.errno or 0
    kind = _KINDS.get(code, "Uncategorized")
    return f"Os {{ code: {code}, kind: {kind}, message: {quoted(os.strerror(code))} }}"
