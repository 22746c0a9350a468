"""Runs the two processes that make a bundle: the helper that packs and the one that compresses.

The helper has the submitter's uid, since it opens paths that users can write; soakd itself opens
none of them. Its tar goes by a kernel pipe straight to the compressor (soakd's uid, parses
nothing), and only gzip bytes pass through soakd. Decides nothing about what goes into a bundle:
that is the spec's and the helper's business.
"""

from __future__ import annotations

import fcntl
import functools
import io
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import trio

from soakd.bundle.spec import BundleSpec, encode_spec
from soakd.core.errors import HostError

CHUNK_BYTES = 256 << 10
# Longest silence: hashing the largest file that is left out takes seconds, not minutes.
STALL_S = 120.0
_BUNDLE_FOLDER = Path(__file__).resolve().parents[1] / "bundle"
_STDERR_BYTES = 4096
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
_FIXED_SIZE = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
_ENTRY = "from soakd.bundle.helper import main\nraise SystemExit(main())\n"


class Credentials(Protocol):
    """Whom the helper runs as (the shim's `Credentials` fit)."""

    @property
    def uid(self) -> int:
        """The user."""

    @property
    def gid(self) -> int:
        """The user's first group."""

    @property
    def groups(self) -> Sequence[int]:
        """All supplementary groups."""


class BundleStream:
    """The compressed bundle; iterate over it once, inside `open_bundle`."""

    def __init__(self, helper: _Child, compressor: _Child, stall_s: float) -> None:
        self._helper = helper
        self._compressor = compressor
        self._stall_s = stall_s
        self.bytes_sent = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield pieces of at most 256 KiB.

        Raises:
            HostError: the helper or the compressor failed or fell silent. Bytes that were
                yielded before are then no bundle.
        """
        while data := await self._next():
            self.bytes_sent += len(data)
            yield data
        for child in (self._helper, self._compressor):
            await child.expect_success(self._stall_s)

    async def _next(self) -> bytes:
        with trio.move_on_after(self._stall_s):
            return await self._compressor.read(CHUNK_BYTES)
        raise HostError(
            "internal",
            f"cannot make the bundle: no progress for {self._stall_s:g} s, collect again",
        )


@asynccontextmanager
async def open_bundle(
    *,
    python: str,
    credentials: Credentials | None,
    spec: BundleSpec,
    record_fds: Mapping[str, int],
    stall_s: float = STALL_S,
) -> AsyncIterator[BundleStream]:
    """Start packing; both processes are ended and reaped when the block is left.

    Args:
        python: the interpreter that others can execute (the shim's).
        credentials: whom the helper runs as; None = as soakd itself (user mode).
        spec: what to pack.
        record_fds: member name -> descriptor of a regular file, open for reading. The same
            descriptor may stand under two names. They stay the caller's, who must keep them open
            inside the block; their offsets are not moved.
        stall_s: longest silence in seconds.

    Raises:
        HostError: a process could not be started.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    try:
        compressor = await _start_compressor(read_end)
        try:
            helper = await _start_helper(python, credentials, spec, record_fds, write_end)
        except BaseException:
            await compressor.end()
            raise
    finally:
        # The children have their own copies: ours would keep the pipe from ending.
        os.close(read_end)
        os.close(write_end)
    try:
        yield BundleStream(helper, compressor, stall_s)
    finally:
        await helper.end()
        await compressor.end()


@functools.cache
def helper_zip() -> bytes:
    """Return the helper's code, so that it needs no right to read our installation."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("__main__.py", _ENTRY)
        archive.writestr("soakd/__init__.py", "")
        for source in sorted(_BUNDLE_FOLDER.glob("*.py")):
            archive.writestr(f"soakd/bundle/{source.name}", source.read_bytes())
    return target.getvalue()


def bundle_file_name(*, host: str, name: str, epoch: float) -> str:
    """Return `soak-<host>-<label|id>-<UTC>.tar.gz` with nothing in it that a shell would mind."""
    utc = datetime.fromtimestamp(epoch, UTC).strftime("%Y%m%dT%H%M%SZ")
    clean = [re.sub(r"[^A-Za-z0-9._-]+", "_", part).strip("._-") or "x" for part in (host, name)]
    return f"soak-{clean[0]}-{clean[1]}-{utc}.tar.gz"


class _Child:
    """One of the two processes, with what it said on stderr."""

    def __init__(self, title: str, process: trio.Process, errors: int) -> None:
        self._title = title
        self._process = process
        self._errors = errors

    async def read(self, count: int) -> bytes:
        """Return the next bytes of the child's stdout, b'' at its end."""
        if self._process.stdout is None:
            raise AssertionError(f"{self._title} has no stdout")
        return bytes(await self._process.stdout.receive_some(count))

    async def expect_success(self, timeout_s: float) -> None:
        """Wait for the child's end.

        Raises:
            HostError: it failed, or does not end.
        """
        with trio.move_on_after(timeout_s):
            await self._process.wait()
        status = self._process.returncode
        if status != 0:
            # What a process of a user's uid says is user input: bounded, and shown escaped.
            said = os.pread(self._errors, _STDERR_BYTES, 0).rstrip(b"\0").decode("utf-8", "replace")
            ended = "does not end" if status is None else f"ended with status {status}"
            raise HostError(
                "internal",
                f"cannot make the bundle: {self._title} {ended}: {ascii(said.strip())[1:-1]}",
                {"status": status},
            )

    async def end(self) -> None:
        """Kill the child if it lives, and reap it, also when being cancelled."""
        with trio.CancelScope(shield=True):
            self._process.kill()
            await self._process.wait()
            if self._process.stdout is not None:
                await self._process.stdout.aclose()
        os.close(self._errors)


async def _start_compressor(source: int) -> _Child:
    # Run as a file, not by -m: `-I` keeps the current folder and PYTHONPATH out of sys.path.
    command = [sys.executable, "-I", str(_BUNDLE_FOLDER / "compress.py")]
    return await _start("the compressor", command, stdin=source, stdout=subprocess.PIPE)


async def _start_helper(
    python: str,
    credentials: Credentials | None,
    spec: BundleSpec,
    record_fds: Mapping[str, int],
    target: int,
) -> _Child:
    with ExitStack() as files:
        # Files in memory instead of pipes: nothing has to be pumped while the tar flows.
        code = _memory_file(helper_zip(), files)
        document = _memory_file(encode_spec(spec, record_fds), files)
        return await _start(
            "the bundle helper",
            [python, "-I", "-S", "-X", "utf8", f"/proc/self/fd/{code}"],
            stdin=document,
            stdout=target,
            pass_fds=sorted({code, *record_fds.values()}),
            credentials=credentials,
        )


async def _start(
    title: str,
    command: list[str],
    *,
    stdin: int,
    stdout: int,
    pass_fds: Sequence[int] = (),
    credentials: Credentials | None = None,
) -> _Child:
    """Start a child; not cancelled half-way, so that no process is left without an owner.

    Raises:
        HostError: it could not be started.
    """
    errors = os.memfd_create("soakd-stderr", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        # Of a fixed size: a child cannot fill the host's memory by complaining.
        os.ftruncate(errors, _STDERR_BYTES)
        fcntl.fcntl(errors, fcntl.F_ADD_SEALS, _FIXED_SIZE)
        with trio.CancelScope(shield=True):
            process = await trio.lowlevel.open_process(
                command,
                stdin=stdin,
                stdout=stdout,
                stderr=errors,
                cwd="/",
                env=_ENVIRONMENT,
                umask=0o077,
                start_new_session=True,
                pass_fds=pass_fds,
                # All three or none: the user alone would keep root's groups.
                user=None if credentials is None else credentials.uid,
                group=None if credentials is None else credentials.gid,
                extra_groups=None if credentials is None else list(credentials.groups),
            )
    except OSError as error:
        os.close(errors)
        raise HostError(
            "internal", f"cannot start {title} {command[0]}: {error.strerror}"
        ) from error
    return _Child(title, process, errors)


def _memory_file(data: bytes, files: ExitStack) -> int:
    """Return the descriptor of a read-only file in memory that holds `data`."""
    descriptor = os.memfd_create("soakd-bundle", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    files.callback(os.close, descriptor)
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], done)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _FIXED_SIZE | fcntl.F_SEAL_WRITE)
    return descriptor
