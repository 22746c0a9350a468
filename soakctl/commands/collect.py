"""`soakctl collect [RUN] [-o FILE]`: the records of a run as one file, in any state of the run."""

from __future__ import annotations

import argparse
import os
import re
import sys

from soakctl.bundle_file import BundleFile, exists_already
from soakctl.client import Client
from soakctl.failures import Detached, Failure
from soakctl.session import Session

# soakd gives up after 60 s without progress; a little more, so that it is soakd who says why.
IDLE_TIMEOUT_S = 90.0
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@-]{0,200}\.tar\.gz")
_MIB = 1 << 20
_MOST_NAMES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares `[RUN]`, `-o`, `--full` and `--keep-destinations`."""
    parser.add_argument("run_id", nargs="?", metavar="RUN", help="a run, as r7")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="file or folder to write to (default ./soak-<host>-<label|id>-<UTC>.tar.gz)",
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="with programs and unfinished downloads, not only hashes",
    )
    parser.add_argument(
        "--keep-destinations",
        action="store_true",
        help="leave I2P destinations as they are, instead of pseudonyms",
    )


def run(session: Session, options: argparse.Namespace) -> int:
    """Fetches the bundle and prints its path; a failure or Ctrl-C leaves no file behind."""
    folder, name = _target(options.output)
    with session.connect() as client:
        bundle = BundleFile(folder, name or f"soak-{options.run_id or 'latest'}")
        try:
            path = _fetch(session, client, options, bundle, name)
        except KeyboardInterrupt:
            raise Detached("interrupted; nothing was written") from None
        finally:
            bundle.discard()
    if session.json:
        session.emit({"path": path, "bytes": bundle.received})
    else:
        session.say(path)
    return 0


def _target(output: str | None) -> tuple[str, str | None]:
    """Splits what the user asked for into folder and name (None = the name that soakd suggests)."""
    if output is None:
        return ".", None
    if os.path.isdir(output):
        return output, None
    if os.path.lexists(output):
        raise exists_already(output)
    folder, name = os.path.split(output)
    folder = folder or "."
    if not os.path.isdir(folder):
        raise Failure("usage", f"cannot write {output}: there is no folder {folder}")
    return folder, name


def _fetch(
    session: Session,
    client: Client,
    options: argparse.Namespace,
    bundle: BundleFile,
    name: str | None,
) -> str:
    stream = client.stream(
        "run.collect",
        {
            "run": options.run_id,
            "full": options.full,
            "keep_destinations": options.keep_destinations,
        },
        idle_timeout_s=IDLE_TIMEOUT_S,
    )
    progress = _Progress(session)
    try:
        for piece in stream:
            if piece is not None:
                bundle.write(piece["data"])
                progress.show(bundle.received)
    finally:
        progress.close()
    told = stream.result
    bundle.check(told["bytes"], told["sha256"])
    bundle.verify()
    return bundle.keep(name) if name else bundle.keep(*_names(_checked_name(told["name"])))


def _names(name: str) -> list[str]:
    # The suggested name is exact to the second: further bundles of one second get `-2`, `-3`, …
    stem = name.removesuffix(".tar.gz")
    return [name, *(f"{stem}-{number}.tar.gz" for number in range(2, _MOST_NAMES + 1))]


def _checked_name(name: str) -> str:
    # It holds the label, a user's text: what names a file here must be a plain name.
    if not _SAFE_NAME.fullmatch(name):
        raise Failure(
            "internal",
            f"cannot use the name {name!r} that soakd suggests for the bundle",
            advice=["name the file yourself with -o"],
        )
    return name


class _Progress:
    """MiB so far on stderr, if that is a terminal."""

    def __init__(self, session: Session) -> None:
        self._on = sys.stderr.isatty() and not session.json
        self._shown = 0

    def show(self, received: int) -> None:
        if self._on and received // _MIB > self._shown:
            self._shown = received // _MIB
            print(f"\r{self._shown} MiB", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
