"""A file that is there whole or not at all, and never in place of another.

Used by `collect`: pieces go to a `.part` beside the target, which gets its name once it is on disk.
"""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import suppress

from soakctl.failures import Failure

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class BundleFile:
    """Receives a bundle; `keep` or `discard` ends it.

    Args:
        folder: where it is to stand.
        stem: what the unfinished file is named after.
    """

    def __init__(self, folder: str, stem: str) -> None:
        self._folder = folder
        # A part that a killed soakctl left behind must not be in the way, nor be written into.
        self._part = os.path.join(folder, f"{stem}.{os.urandom(3).hex()}.part")
        self._digest = hashlib.sha256()
        self.received = 0
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._file = os.fdopen(os.open(self._part, flags, 0o600), "wb")
        except OSError as error:
            raise _host_failure(self._part, error) from error

    def write(self, data: bytes) -> None:
        """Appends a piece.

        Raises:
            Failure: the disk is full, or the like.
        """
        try:
            self._file.write(data)
        except OSError as error:
            raise _host_failure(self._part, error) from error
        self._digest.update(data)
        self.received += len(data)

    def check(self, size_bytes: int, sha256: str) -> None:
        """Compares with what soakd says that it sent.

        Raises:
            Failure: something was lost on the way.
        """
        if (self.received, self._digest.hexdigest()) != (size_bytes, sha256):
            raise Failure(
                "internal",
                f"cannot keep the bundle: received {self.received} bytes, soakd sent {size_bytes}"
                " or other content",
                advice=["nothing was written; try again"],
            )

    def verify(self) -> None:
        """Compares every member with the bundle's own manifest.

        Raises:
            Failure: the bundle is not complete, or not what it says.
        """
        from soakd.bundle.verify import problem_of

        try:
            self._file.flush()
        except OSError as error:
            raise _host_failure(self._part, error) from error
        problem = problem_of(self._part)
        if problem is not None:
            raise Failure(
                "internal",
                f"cannot keep the bundle: {problem}",
                advice=["nothing was written; try again, and report it if it stays so"],
            )

    def keep(self, *names: str) -> str:
        """Makes it durable and gives it the first of these names that is free.

        Returns:
            The path of the finished file.

        Raises:
            Failure: there are files of all these names, or the disk is full.
        """
        target = os.path.join(self._folder, names[0])
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            for name in names:
                path = os.path.join(self._folder, name)
                with suppress(FileExistsError):
                    _rename_new(self._part, path)
                    _sync_folder(self._folder)
                    return path
        except OSError as error:
            raise _host_failure(target, error) from error
        raise exists_already(target)

    def discard(self) -> None:
        """Removes what is unfinished; does nothing once it is kept."""
        try:
            self._file.close()
        except OSError:
            # A full disk fails the last flush again; the file goes anyway.
            self._file = open(os.devnull, "wb")  # noqa: SIM115 - only stands for a closed file
            self._file.close()
        if os.path.lexists(self._part):
            os.unlink(self._part)


def exists_already(path: str) -> Failure:
    """Gives the failure for a target that is in the way."""
    return Failure(
        "usage",
        f"cannot write {path}: it exists already",
        advice=["name another file with -o, or move this one away"],
    )


def _rename_new(part: str, target: str) -> None:
    """Renames without ever replacing: a link fails where rename would overwrite."""
    try:
        os.link(part, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(target):
            raise FileExistsError(target) from error
        os.rename(part, target)
    else:
        os.unlink(part)


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _host_failure(path: str, error: OSError) -> Failure:
    return Failure("internal", f"cannot write {path}: {error.strerror}")
