"""Processes that a faulty node starts: children, daemons, and a foreign holder of its port."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterable

from soakd.simnode.exchange import Exchange, Response, failure, success
from soakd.simnode.httpd import Listener, listen
from soakd.simnode.loop import Loop

LIFE_S = 300
"""After so long every child ends by itself: a test that forgets it leaves nothing for ever."""
_LOOK_S = 0.2


def fork(options: frozenset[str], listeners: Iterable[int], *, daemon: bool) -> int:
    """Start a process that only waits, and return its pid."""
    keep = set(listeners) if "listen" in options else set[int]()

    def child(tell: Callable[[bytes], object]) -> None:
        if daemon:
            os.setsid()
            if os.fork():
                os._exit(0)
        _reset(options)
        tell(str(os.getpid()).encode())
        _close_all_but({0, 1, 2} | keep)
        if "noenv" in options:
            for fd in keep:
                os.set_inheritable(fd, True)
            os.execve("/bin/sleep", ["sleep", str(LIFE_S)], {})  # noqa: S606 - no shell wanted
        while True:
            signal.pause()

    pid, told = _forked(child)
    if daemon:
        os.waitpid(pid, 0)
    return int(told)


def _forked(child: Callable[[Callable[[bytes], object]], None]) -> tuple[int, bytes]:
    """Fork, and wait for what the child has to tell."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(reader)
            child(lambda word: os.write(writer, word))
        finally:
            os._exit(70)
    os.close(writer)
    told = os.read(reader, 64)
    os.close(reader)
    return pid, told


def _reset(options: frozenset[str]) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if "deaf" in options:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    if "chdir" in options:
        os.chdir("/")
    signal.alarm(LIFE_S)  # outlives an exec


def _close_all_but(keep: set[int]) -> None:
    """Close the lock, above all: it would stay taken after the node's end."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            with contextlib.suppress(OSError):
                os.close(int(name))


def take_port(port: int, mode: str, log: str) -> int:
    """Let another process listen on both loopback addresses, and return its pid.

    Args:
        port: where.
        mode: "node", "web" or "silent".
        log: file that gets a line for each request.
    """
    parent = os.getpid()

    def child(tell: Callable[[bytes], object]) -> None:
        os.setsid()
        _reset(frozenset())
        loop = Loop()
        foreign = _Foreign(mode, log)
        for family, host in ((socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1")):
            with contextlib.suppress(OSError):
                Listener(loop, listen((host, port), family), foreign.handle)
        tell(b"listening")
        loop.every(_LOOK_S, lambda: None if os.getppid() == parent else loop.stop(0))
        loop.run()

    return _forked(child)[0]


class _Foreign:
    """Answers like another node, like any web server, or not at all."""

    def __init__(self, mode: str, log: str) -> None:
        self._mode = mode
        self._log = log
        self._token = os.urandom(32).hex()

    def handle(self, exchange: Exchange) -> None:
        """Note a request and answer it."""
        request = exchange.request
        bearer = "bearer" if "authorization" in request.headers else "-"
        with open(self._log, "a", encoding="utf-8") as file:
            file.write(f"{request.method} {request.path} {bearer}\n")
        if self._mode == "silent":
            return
        if self._mode == "web":
            exchange.answer(Response(404, b"<h1>404 Not Found</h1>", (), "text/html"))
        elif request.path == "/api/v1/health":
            exchange.answer(success({"ok": True}))
        elif request.path == "/api/v1/auth/bootstrap":
            exchange.answer(success({"token": self._token}))
        else:
            exchange.answer(failure(403 if bearer == "bearer" else 401))
