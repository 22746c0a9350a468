"""The one exception by which a verb of the shim says no."""

from __future__ import annotations

import errno
import os

_CODES = {
    errno.ENOENT: "missing",
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EFBIG: "disk_full",
    errno.EACCES: "denied",
    errno.EPERM: "denied",
    errno.ELOOP: "link",
    errno.ENOTDIR: "link",
}

_HINTS = {
    errno.ELOOP: "a symbolic link stands there, which soakd does not follow",
    errno.ENOTDIR: "a part of the path is a link or a file, not a folder",
}


class VerbError(Exception):
    """A request that could not be done: `code` for soakd, `text` for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def from_os(exc: OSError, act: str) -> VerbError:
    """The refusal that stands for a failed system call; `act` completes "cannot …"."""
    number = exc.errno or 0
    cause = _HINTS.get(number) or os.strerror(number)
    return VerbError(_CODES.get(number, "io"), f"cannot {act}: {cause}")
