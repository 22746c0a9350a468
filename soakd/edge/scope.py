"""A run's scope: a cgroup that the service manager makes around a process we have started.

Decided here: how systemd is asked (D-Bus, one call and its outcome) and what a run's scope is like.
It outlives soakd's own service, is ended with `soak.slice`, and goes away by itself when its last
process has ended. Processes in it are found and killed through its cgroup, see `edge.cgroup`.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import trio
from jeepney import (
    DBusAddress,
    HeaderFields,
    MatchRule,
    Message,
    MessageType,
    Parser,
    message_bus,
    new_method_call,
)
from jeepney.auth import BEGIN, AuthenticationError, Authenticator

from soakd.core.errors import HostError

SYSTEM_BUS = "/run/dbus/system_bus_socket"
SLICE = "soak.slice"
SERVICE = "soakd.service"
START_S = 10.0
"""An idle systemd needs some milliseconds."""
NAME_FREE_S = 5.0
_LOOK_S = 0.05
_UNIT_EXISTS = "org.freedesktop.systemd1.UnitExists"
_MANAGER = DBusAddress(
    "/org/freedesktop/systemd1",
    bus_name="org.freedesktop.systemd1",
    interface="org.freedesktop.systemd1.Manager",
)
_JOB_REMOVED = MatchRule(
    type="signal",
    sender=_MANAGER.bus_name,
    interface=_MANAGER.interface,
    member="JobRemoved",
    path=_MANAGER.object_path,
)


@dataclass(frozen=True, slots=True)
class ScopeOrder:
    """A scope that is wanted.

    Attributes:
        name: such as `soak-r7.scope`.
        pid: its first process, a child of ours that was not waited for: nobody else can have its
            pid.
        description: for `systemctl status`.
        stop_timeout_s: how long its processes get between SIGINT and SIGKILL.
    """

    name: str
    pid: int
    description: str
    stop_timeout_s: float


def scope_name(run: str, state_tag: str | None) -> str:
    """Name of a run's scope; the tag keeps soakds with different state folders apart."""
    return f"soak-{run}.scope" if state_tag is None else f"soak-{run}-{state_tag}.scope"


async def start_scope(order: ScopeOrder, bus: str) -> None:
    """Have systemd move the process into a scope of its own; returns when that is done.

    Args:
        order: the scope.
        bus: path of the socket of the manager's bus.

    Raises:
        HostError: there is no bus or no systemd, or it refused; the process is where it was, or
            in a scope that ends with it.
    """
    with _explained(order, bus):
        with trio.fail_after(START_S):
            async with await trio.open_unix_socket(bus) as stream:
                connection = _Bus(stream)
                await connection.enter()
                await connection.start(order)


class _Refused(Exception):
    """systemd, or the bus, said no; `name` is the error's."""

    def __init__(self, text: str, name: str = "") -> None:
        super().__init__(text)
        self.name = name


class _Bus:
    """One connection to the bus: our calls, and what systemd says meanwhile.

    jeepney knows the protocol; its own trio connection is not used, since it leaves its socket
    open when the bus refuses or the opening is cancelled.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._parser = Parser()
        self._serials = itertools.count(1)
        self._ended_jobs: dict[str, str] = {}

    async def enter(self) -> None:
        """Prove who we are and say hello."""
        authentication = Authenticator()
        for line in authentication:
            if line:
                await self._stream.send_all(line)
            authentication.feed(await self._receive())
        await self._stream.send_all(BEGIN)
        await self._call(message_bus.Hello())

    async def start(self, order: ScopeOrder) -> None:
        """Start the scope and wait for the end of its job."""
        await self._call(message_bus.AddMatch(_JOB_REMOVED))
        auxiliary: list[Any] = []
        body = (order.name, "fail", _properties(order), auxiliary)
        call = new_method_call(_MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", body)
        job = await self._call_once_free(call)
        while job not in self._ended_jobs:
            self._note(await self._next())
        if self._ended_jobs[job] != "done":
            raise _Refused(f"its job ended as {self._ended_jobs[job]!r}")

    async def _call_once_free(self, call: Message) -> str:
        """Call again while systemd still knows an ended scope of that name."""
        give_up_s = trio.current_time() + NAME_FREE_S
        while True:
            try:
                return str((await self._call(call))[0])
            except _Refused as refusal:
                if refusal.name != _UNIT_EXISTS or trio.current_time() > give_up_s:
                    raise
            await trio.sleep(_LOOK_S)

    async def _call(self, message: Message) -> Any:
        serial = next(self._serials)
        await self._stream.send_all(message.serialise(serial))
        while True:
            reply = await self._next()
            fields = reply.header.fields
            if fields.get(HeaderFields.reply_serial) != serial:
                self._note(reply)
            elif reply.header.message_type == MessageType.error:
                name = str(fields.get(HeaderFields.error_name))
                raise _Refused(str(reply.body[0]) if reply.body else name, name)
            else:
                return reply.body

    async def _next(self) -> Message:
        while (message := self._parser.get_next_message()) is None:
            self._parser.add_data(await self._receive())
        return message

    async def _receive(self) -> bytes:
        data = bytes(await self._stream.receive_some())
        if not data:
            raise _Refused("the bus closed the connection")
        return data

    def _note(self, message: Message) -> None:
        if message.header.fields.get(HeaderFields.member) == "JobRemoved":
            _number, job, _unit, result = message.body
            self._ended_jobs[str(job)] = str(result)


def _properties(order: ScopeOrder) -> list[tuple[str, tuple[str, Any]]]:
    return [
        ("Description", ("s", order.description)),
        ("PIDs", ("au", [order.pid])),
        ("Slice", ("s", SLICE)),
        # At power-off soakd goes first and lets go of its runs; then shim and nodes get the
        # signal on which a node saves its contacts.
        ("Before", ("as", [SERVICE])),
        ("KillSignal", ("i", int(signal.SIGINT))),
        ("TimeoutStopUSec", ("t", int(order.stop_timeout_s * 1e6))),
        # A scope that failed (its processes needed SIGKILL) must not keep its name.
        ("CollectMode", ("s", "inactive-or-failed")),
    ]


@contextmanager
def _explained(order: ScopeOrder, bus: str) -> Iterator[None]:
    try:
        yield
    except (
        _Refused, AuthenticationError, OSError, trio.TooSlowError, trio.BrokenResourceError,
    ) as error:  # fmt: skip
        text = str(error)
        if isinstance(error, trio.TooSlowError):
            text = f"no answer in {START_S:g} s"
        elif isinstance(error, OSError):
            text = error.strerror or text
        raise HostError(
            "internal",
            f"cannot make {order.name} for the run: systemd on the bus {bus}: {text}; see"
            ' `systemctl status dbus`, or set containment to "cgroup" or "evidence" in soakd.toml',
        ) from error
