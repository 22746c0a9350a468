"""Orders to misbehave: when those of the configuration are due, and those of the control file.

A node without orders pays for one `stat` each 0.1 s. What carries orders out is loaded with the
first one.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
from typing import TYPE_CHECKING

from soakd.simnode.config import Config
from soakd.simnode.exchange import Exchange
from soakd.simnode.httpd import Handle, Listener, listen
from soakd.simnode.loop import Loop
from soakd.simnode.node import Node
from soakd.simnode.tracing import Tracing

if TYPE_CHECKING:
    from soakd.simnode.faults import Fault
    from soakd.simnode.lies import Lie

FILE = "sim.faults"
_LOOK_S = 0.1


class Control:
    """What a node was told to do wrong, and what of it is in force."""

    def __init__(self, config: Config, loop: Loop, tracing: Tracing) -> None:
        self.config = config
        self.loop = loop
        self.tracing = tracing
        self.node: Node | None = None
        self.listeners: list[Listener] = []
        self.lies: list[Lie] = []
        self.ignored: set[int] = set()
        self.only_family = 0
        self.api_gone = False
        self._path = config.data_path(FILE)
        self._read = self._size()
        self._due: list[Fault] = []

    def begin(self) -> None:
        """Carry out what is due at the start of the process, and look at the file from now on.

        Raises:
            FatalError: the node was told to fail.
            SystemExit: it was told to exit.
        """
        if self.config.sim.faults:
            from soakd.simnode.faults import parse  # noqa: PLC0415

            self._due = [parse(text) for text in self.config.sim.faults]
        self.loop.every(_LOOK_S, self._look)
        for fault in [fault for fault in self._due if fault.from_start]:
            if fault.seconds:
                self._later(fault)
            else:
                self._carry_out(fault)

    def attach(self, node: Node) -> None:
        """Know the node, and when it gets ready."""
        self.node = node
        if self._due or self.ignored:
            node.kad.on_snapshot.append(self._ready)

    def _ready(self, _snapshot: bytes) -> None:
        """Count from the first snapshot on."""
        if self.node is not None:
            self.node.kad.on_snapshot.remove(self._ready)
        self.apply_ignored()  # the service loop has just begun to listen to SIGINT
        for fault in self._due:
            if not fault.from_start:
                self._later(fault)

    def apply_ignored(self) -> None:
        """Ignore the signals that are to be ignored."""
        for number in self.ignored:
            signal.signal(number, signal.SIG_IGN)

    def listen(self, address: tuple[str, int], family: socket.AddressFamily) -> socket.socket:
        """Bind and listen unless told not to.

        Raises:
            OSError: the address is taken or unavailable.
        """
        wanted = {4: socket.AF_INET, 6: socket.AF_INET6}.get(self.only_family, family)
        if self.api_gone or family is not wanted:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        return listen(address, family)

    def guard(self, handle: Handle) -> Handle:
        """Return `handle` behind the lies in force."""
        lies = self.lies

        def lying(exchange: Exchange) -> None:
            path = exchange.request.path if lies else ""
            for lie in reversed(lies):
                if lie.fits(path):
                    lie.tell(exchange, handle)
                    return
            handle(exchange)

        return lying

    def _later(self, fault: Fault) -> None:
        if fault.seconds < float("inf"):
            self.loop.later(fault.seconds, lambda: self._carry_out(fault))

    def _carry_out(self, fault: Fault) -> None:
        from soakd.simnode.mischief import carry_out  # noqa: PLC0415

        carry_out(self, fault)

    def _size(self) -> int:
        try:
            return os.stat(self._path).st_size
        except OSError:
            return 0

    def _look(self) -> None:
        """Take the complete lines that were added to the control file."""
        size = self._size()
        if size == self._read:
            return
        if size < self._read:
            self._read = 0  # a new file
        try:
            with open(self._path, "rb") as file:
                file.seek(self._read)
                lines = file.read()
        except OSError:
            return
        lines = lines[: lines.rfind(b"\n") + 1]
        self._read += len(lines)
        for line in lines.decode("utf-8", "replace").splitlines():
            self._order(line.strip())

    def _order(self, text: str) -> None:
        from soakd.simnode.faults import FaultError, parse  # noqa: PLC0415

        if not text or text.startswith("#"):
            return
        try:
            fault = parse(text, running=True)
        except FaultError as error:
            self.tracing.warn("sim", "simulated fault refused", error=str(error))
            return
        if fault.seconds:
            self._later(fault)
        else:
            self._carry_out(fault)
