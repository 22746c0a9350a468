"""A soakd of one's own in a temporary folder, of which nothing is left afterwards.

Used by `demo`. The caller keeps signals away (`Interrupts`) while this starts and stops.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from types import TracebackType
from typing import Self

from soakctl.failures import Failure

START_TIMEOUT_S = 20.0
# The ladder is over after at most 28 s, then soakd ends.
STOP_TIMEOUT_S = 45.0
_SWEEP_TERM_S = 20.0
_SWEEP_KILL_S = 5.0
_POLL_S = 0.05
_LOG_TAIL_LINES = 12
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# A private soakd is nobody's service: what a manager told us is not meant for it.
_NOT_INHERITED = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID")


class PrivateDaemon:
    """Makes the folder on entering; on leaving, ends soakd and what came of it, removes the folder.

    Attributes:
        folder: the temporary folder.
        socket: where soakd will listen.
    """

    def __init__(self) -> None:
        self.folder = ""
        self.socket = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False

    def __enter__(self) -> Self:
        self.folder = tempfile.mkdtemp(prefix="soakd-demo-")
        self.socket = os.path.join(self.folder, "s.sock")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._stop()
        finally:
            shutil.rmtree(self.folder)

    def launch(self) -> None:
        """Starts soakd without waiting for it."""
        # What soakd might leave behind becomes our child, so that it can be found and ended.
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        parent = os.getpid()

        def die_with_us() -> None:
            # Where we are killed outright, soakd gets what Ctrl-C would have sent it.
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

        config = os.path.join(self.folder, "soakd.toml")
        with open(config, "x", encoding="ascii") as file:
            file.write("# a private soakd: defaults, whatever the machine's soakd.toml says\n")
        command = [sys.executable, "-m", "soakd", "--config", config]
        command += ["--socket", self.socket, "--state", os.path.join(self.folder, "state")]
        environ = {key: value for key, value in os.environ.items() if key not in _NOT_INHERITED}
        with open(self._log_path(), "xb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environ,
                # Ctrl-C at the terminal is for us: soakd is told once, in its turn.
                process_group=0,
                preexec_fn=die_with_us,  # noqa: PLW1509 - single-threaded here
            )

    def wait_until_ready(self) -> None:
        """Returns when somebody answers at the socket.

        Raises:
            Failure: soakd ended instead, or took too long; `last_words` may say why.
        """
        if self._process is None:
            raise AssertionError("wait_until_ready before launch")
        give_up = time.monotonic() + START_TIMEOUT_S
        while not _is_served(self.socket):
            ended = self._process.poll()
            if ended is not None or time.monotonic() > give_up:
                why = "it did not listen in time" if ended is None else f"it ended with {ended}"
                raise Failure("no_daemon", f"cannot start soakd: {why}")
            time.sleep(_POLL_S)  # noqa: TID251 - a blocking client
        self._ready = True

    def last_words(self) -> list[str]:
        """Gives the last lines of soakd's log."""
        with open(self._log_path(), encoding="utf-8", errors="replace") as log:
            return log.read().splitlines()[-_LOG_TAIL_LINES:]

    def _log_path(self) -> str:
        return os.path.join(self.folder, "soakd.log")

    def _stop(self) -> None:
        """Stops soakd as Ctrl-C would; what does not go is killed."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            if not self._ready:
                # It has no run to stop yet, and a SIGINT during its imports may be swallowed.
                process.kill()
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        _end_orphans()


def _is_served(path: str) -> bool:
    """Tells whether a connection is taken: the file is there a moment before soakd listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


def _end_orphans() -> None:
    """Ends what a dead soakd left to us: SIGTERM (a shim then stops its nodes), SIGKILL later."""
    kill_at = time.monotonic() + _SWEEP_TERM_S
    told: set[int] = set()
    while time.monotonic() < kill_at + _SWEEP_KILL_S:
        for pid in _children():
            if time.monotonic() > kill_at:
                _signal_child(pid, signal.SIGKILL)
            elif pid not in told:
                _signal_child(pid, signal.SIGTERM)
                told.add(pid)
        try:
            pid, _status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            time.sleep(_POLL_S)  # noqa: TID251 - a blocking client


def _children() -> list[int]:
    me = os.getpid()
    with open(f"/proc/{me}/task/{me}/children", encoding="ascii") as file:
        return [int(pid) for pid in file.read().split()]


def _signal_child(pid: int, number: int) -> None:
    # Our own unreaped child: its pid cannot have been given to another.
    os.kill(pid, number)  # noqa: TID251
