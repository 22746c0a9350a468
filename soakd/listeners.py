"""Who must be listening on a node's port before its token is sent there.

Of a node that soakd has launched the process is known: its listener must be that very process's.
Of a node that somebody else runs nothing is known but the user who listened when it was met.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from soakd.core.errors import NodeError
from soakd.edge import ports, telemetry
from soakd.edge.pidfds import start_ticks

Tell = Callable[[str, str, dict[str, Any]], None]
"""Takes kind, node and data of an event."""


class Listener(Protocol):
    """The process behind a node's port, as far as it is known."""

    @property
    def has_ended(self) -> bool:
        """Whether it is known to be gone."""

    def check(self, node: str, host: str, port: int) -> None:
        """Proves that it is the one that listens there.

        Raises:
            NodeError: `foreign`; nobody's or somebody else's process does.
        """

    def sample(self) -> dict[str, Any] | None:
        """RSS, CPU time, descriptors and threads; None: there is nothing to sample (any more)."""


@dataclass(frozen=True, slots=True)
class Process:
    """The node's process as the shim reported it; `uid` is whose it must be."""

    pid: int
    ticks: int
    uid: int

    @property
    def has_ended(self) -> bool:
        """See `Listener`."""
        return start_ticks(self.pid) != self.ticks

    def check(self, node: str, host: str, port: int) -> None:
        """See `Listener`."""
        uid, inode = _listener(node, host, port)
        if uid != self.uid or not ports.owns_inode(self.pid, inode):
            raise _foreign(node, host, port, f"is held by {ports.describe_listener(uid, inode)}")

    def sample(self) -> dict[str, Any] | None:
        """See `Listener`."""
        sample = telemetry.sample(self.pid, self.ticks)
        return None if sample is None else sample.to_dict()


class Stranger:
    """Somebody else's node: whoever listens first is believed, and from then on only that user.

    One user for all addresses: another one's listener on the other loopback family would be met
    later, and must not be believed because nobody was seen there before.
    """

    has_ended = False
    """Never known: that it does not answer is trouble of its API."""

    def __init__(self, tell: Tell, uid: int | None = None) -> None:
        """Has met nobody, unless an earlier soakd has.

        Args:
            tell: takes events.
            uid: whose listener was met before.
        """
        self.uid = uid
        self._tell = tell
        self._told: int | None = None

    def check(self, node: str, host: str, port: int) -> None:
        """See `Listener`."""
        uid, inode = _listener(node, host, port)
        if self.uid is None:
            self.uid = uid
            self._tell("attached", node, {"address": f"{host}:{port}", "uid": uid})
        if uid == self.uid:
            self._told = None
            return
        what = f"was a listener of uid {self.uid} when the run attached to it, and now"
        error = _foreign(node, host, port, f"{what} is {ports.describe_listener(uid, inode)}")
        if uid != self._told:
            # A change is told once, not with every connection.
            self._told = uid
            facts = {"address": f"{host}:{port}", "uid_before": self.uid, "uid": uid}
            self._tell("listener_changed", node, facts | {"text": error.message})
        raise error

    def sample(self) -> dict[str, Any] | None:
        """See `Listener`: which process it is, is nobody's business."""
        return None


def _listener(node: str, host: str, port: int) -> tuple[int, int]:
    listener = ports.listener_of(port, host)
    if listener is None:
        text = f"cannot talk to node {node}: /proc/net shows no listener on {host}:{port}"
        raise NodeError("foreign", text)
    return listener


def _foreign(node: str, host: str, port: int, what: str) -> NodeError:
    return NodeError("foreign", f"cannot talk to node {node}: {host}:{port} {what}")
