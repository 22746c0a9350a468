"""`soakd` on the command line: reads it, sets logging up and lives."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import trio

from soakd import __version__
from soakd.core.errors import first_known
from soakd.daemon import Daemon, Options, prepare_state
from soakd.edge.config import Paths, default_paths, load_config
from soakd.edge.heap import return_large_blocks
from soakd.edge.systemd import Manager
from soakd.log import configure
from soakd.wire.errors import exit_status

READY = "ready"


def main() -> int:
    """Entry point; returns the exit status."""
    arguments = _parser().parse_args()
    try:
        options = _options(arguments)
        if arguments.background:
            return _background(options)
        return _live(options, lambda: None)
    except Exception as error:
        known = first_known(error)
        if known is None:
            raise
        print(f"soakd: {known.message}", file=sys.stderr)
        return exit_status(known.code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="soakd", description="Owns soak tests of peer-to-peer nodes; talk to it with soakctl."
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings (soakd.toml)")
    parser.add_argument("--socket", type=Path, metavar="PATH", help="control socket")
    parser.add_argument("--state", type=Path, metavar="DIR", help="folder of the database and runs")
    parser.add_argument("--background", action="store_true", help="detach from the terminal")
    parser.add_argument("--version", action="version", version=f"soakd {__version__}")
    return parser


def _options(arguments: argparse.Namespace) -> Options:
    defaults = default_paths(os.geteuid(), os.environ)
    paths = Paths(
        mode=defaults.mode,
        socket=(arguments.socket or defaults.socket).absolute(),
        state=(arguments.state or defaults.state).absolute(),
        config=defaults.config,
    )
    manager = Manager.take(os.environ)
    foreground = (
        sys.stdin is not None and sys.stdin.isatty() and not manager.is_there
    ) and not arguments.background
    return Options(paths, load_config(arguments.config, defaults.config), foreground, manager)


def _live(options: Options, on_ready: Callable[[], None]) -> int:
    configure()
    return_large_blocks()
    trio.run(Daemon(options, on_ready).run)
    return 0


def _background(options: Options) -> int:
    """Lives in a session of its own; this process returns once the daemon serves or failed."""
    prepare_state(options.paths.state)
    log = options.paths.state / "soakd.log"
    ready_read, ready_write = os.pipe()
    if os.fork() > 0:
        os.close(ready_write)
        with os.fdopen(ready_read) as ready:
            word = ready.read()
        if word == READY:
            print(f"soakd serves {options.paths.socket}; its log is {log}", file=sys.stderr)
            return 0
        code, _, reason = word.partition(" ")
        print(f"soakd: {reason or f'cannot start in the background: see {log}'}", file=sys.stderr)
        return int(code) if code.isdigit() else 1
    os.close(ready_read)
    os.setsid()
    if os.fork() > 0:
        os._exit(0)
    _detach(log)

    def on_ready() -> None:
        os.write(ready_write, READY.encode())
        os.close(ready_write)

    status = 1
    try:
        status = _live(options, on_ready)
    except BaseException as error:  # noqa: BLE001 - os._exit would take the traceback along
        known = first_known(error)
        if known is None:
            traceback.print_exc()
        else:
            status = exit_status(known.code)
            print(f"soakd: {known.message}", file=sys.stderr)
            # Whoever started us still waits at the other end of the pipe.
            os.write(ready_write, f"{status} {known.message}".encode())
    finally:
        sys.stderr.flush()
        os._exit(status)


def _detach(log: Path) -> None:
    """Lets go of the terminal: everything that is printed goes to the log."""
    os.chdir("/")
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    for fd in (out, null):
        os.close(fd)
