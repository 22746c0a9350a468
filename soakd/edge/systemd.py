"""What a service manager hands to soakd and hears from it: its socket, and sd_notify.

Decided here: what is believed of the manager's environment, and the words of the protocol. Without
a manager everything here does nothing. The scopes of runs are another thing, see `edge.scope`.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

import trio

from soakd.core.errors import HostError

FIRST_FD = 3
SEND_S = 1.0
"""The manager reads at once or not at all: no reason to wait for it."""
ALIVE_EVERY_S = 2.0
"""At least so often: as old may be what `systemctl status` shows."""
_VARIABLES = (
    "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Manager:
    """The service manager that started this process; the default is none.

    Attributes:
        notify_socket: where it listens; None: nobody does.
        watchdog_s: it restarts us after so long without a word; None: it does not watch.
        listen_fds: how many sockets it passed to us, from `first_fd` on.
    """

    notify_socket: str | None = None
    watchdog_s: float | None = None
    listen_fds: int = 0
    first_fd: int = FIRST_FD

    @classmethod
    def take(cls, env: MutableMapping[str, str]) -> Manager:
        """Read what the manager has put into `env`, and remove it: no child may speak for us."""
        said = {name: env.pop(name, "") for name in _VARIABLES}
        own = str(os.getpid())
        address = said["NOTIFY_SOCKET"]
        usec = _number(said["WATCHDOG_USEC"])
        # Without a WATCHDOG_PID it is meant for whoever hears it.
        watched = usec > 0 and said["WATCHDOG_PID"] in ("", own)
        return cls(
            notify_socket=address if address.startswith(("/", "@")) else None,
            watchdog_s=usec / 1e6 if watched else None,
            # Inherited from a parent that was meant, the descriptors are something else here.
            listen_fds=_number(said["LISTEN_FDS"]) if said["LISTEN_PID"] == own else 0,
        )

    @property
    def is_there(self) -> bool:
        """Whether a manager runs us as its service."""
        return self.notify_socket is not None

    async def notify(self, *lines: str) -> None:
        """Tell the manager something, such as `READY=1`. Bounded; a deaf manager is no failure."""
        if self.notify_socket is None:
            return
        address = self.notify_socket
        if address.startswith("@"):
            address = "\0" + address[1:]
        # What depends on the word (the start, the watchdog) is the manager's to judge.
        with (
            trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
            trio.move_on_after(SEND_S),
            suppress(OSError),
        ):
            await sock.connect(address)
            await sock.send("\n".join(lines).encode())

    async def keep_alive(
        self, store_answers: Callable[[], Awaitable[object]], status: Callable[[], str]
    ) -> NoReturn:
        """Say that we live for as long as the loop turns and the store answers; and how we are.

        Args:
            store_answers: returns when the store's thread was free to answer. While it does not,
                nothing is said, and the manager's watchdog runs out.
            status: one line for people.
        """
        every_s = min(ALIVE_EVERY_S, (self.watchdog_s or math.inf) / 3)
        alive = () if self.watchdog_s is None else ("WATCHDOG=1",)
        while True:
            await store_answers()
            await self.notify(*alive, f"STATUS={status()}")
            await trio.sleep(every_s)

    def listener(self) -> socket.socket | None:
        """Return the listening socket that the manager holds for us; None if it passed none.

        Raises:
            HostError: it passed anything but one listening Unix stream socket.
        """
        if self.listen_fds == 0:
            return None
        for fd in range(self.first_fd, self.first_fd + self.listen_fds):
            # They arrive inheritable, and no child has any business with them.
            with suppress(OSError):
                os.set_inheritable(fd, False)
        if self.listen_fds > 1:
            raise _unusable(f"{self.listen_fds} sockets were passed, soakd serves one")
        try:
            sock = socket.socket(fileno=self.first_fd)
        except OSError as error:
            raise _unusable(f"descriptor {self.first_fd}: {error.strerror}") from error
        problem = _problem(sock)
        if problem is not None:
            sock.close()
            raise _unusable(problem)
        return sock


def _problem(sock: socket.socket) -> str | None:
    if sock.family != socket.AF_UNIX:
        return f"it is of the family {sock.family.name}, not AF_UNIX"
    if sock.type != socket.SOCK_STREAM:
        return f"it is of the type {sock.type.name}, not SOCK_STREAM"
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "nobody listens on it (Accept=yes is not for soakd)"
    name = sock.getsockname()
    return None if isinstance(name, str) and name.startswith("/") else "it has no path"


def _unusable(problem: str) -> HostError:
    return HostError(
        "refused",
        f"cannot serve the socket of the service manager: {problem}; see soakd.socket, which has"
        " one ListenStream= with a path",
    )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
