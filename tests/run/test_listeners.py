"""Who must be listening before a token is sent: a node of ours, or the stranger who was met."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from soakd.core.errors import NodeError
from soakd.edge import ports
from soakd.edge.pidfds import start_ticks
from soakd.listeners import Process, Stranger
from tests.run.kit import UID

pytestmark = pytest.mark.safety


class Host:
    """Who listens on which loopback address, as /proc/net would show it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.uids: dict[str, int] = {}
        monkeypatch.setattr(ports, "listener_of", self._listener_of)
        monkeypatch.setattr(ports, "describe_listener", lambda uid, _inode: f"uid {uid}")

    def _listener_of(self, _port: int, address: str) -> tuple[int, int] | None:
        uid = self.uids.get(address)
        return None if uid is None else (uid, 77)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    """Return a host on which nobody listens yet."""
    return Host(monkeypatch)


class Heard(list[tuple[str, str, dict[str, Any]]]):
    """Events."""

    def tell(self, kind: str, node: str, data: dict[str, Any]) -> None:
        self.append((kind, node, data))


def test_whoever_listens_first_is_met_and_that_is_told(host: Host) -> None:
    """Be it root, or anybody: it is the user who has named the address."""
    heard = Heard()
    stranger = Stranger(heard.tell)
    with pytest.raises(NodeError, match="no listener on 127.0.0.1:2000") as nobody:
        stranger.check("a", "127.0.0.1", 2000)
    assert (nobody.value.code, stranger.uid, heard) == ("foreign", None, [])
    host.uids["127.0.0.1"] = 0
    for _ in range(3):
        stranger.check("a", "127.0.0.1", 2000)
    assert stranger.uid == 0
    assert heard == [("attached", "a", {"address": "127.0.0.1:2000", "uid": 0})]
    assert stranger.sample() is None
    assert not stranger.has_ended


def test_another_users_listener_is_refused_and_told_once(host: Host) -> None:
    """Until it was the right one again; then a change is news once more."""
    heard = Heard()
    stranger = Stranger(heard.tell, 1001)
    for uids in ((1002, 1002), (1001,), (1002,), (1003,)):
        for uid in uids:
            host.uids["127.0.0.1"] = uid
            if uid == stranger.uid:
                stranger.check("a", "127.0.0.1", 2000)
                continue
            with pytest.raises(NodeError, match="was a listener of uid 1001 .* now is uid"):
                stranger.check("a", "127.0.0.1", 2000)
    told = [(kind, data["uid_before"], data["uid"]) for kind, _, data in heard]
    assert told == [("listener_changed", 1001, uid) for uid in (1002, 1002, 1003)]


def test_a_listener_on_the_other_family_must_be_the_same_users(host: Host) -> None:
    """`localhost` tries both; nobody was seen on ::1 before, which proves nothing."""
    heard = Heard()
    stranger = Stranger(heard.tell)
    host.uids["127.0.0.1"] = 1001
    stranger.check("a", "127.0.0.1", 2000)
    host.uids["::1"] = 1002
    with pytest.raises(NodeError, match="cannot talk to node a: ::1:2000"):
        stranger.check("a", "::1", 2000)
    host.uids["::1"] = 1001
    stranger.check("a", "::1", 2000)


def test_a_real_listener_is_seen_with_its_user() -> None:
    """The kernel's own table, of a socket of ours."""
    heard = Heard()
    stranger = Stranger(heard.tell)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(1)
        stranger.check("a", "127.0.0.1", sock.getsockname()[1])
    assert stranger.uid == UID


def test_the_users_listener_on_another_address_proves_nothing() -> None:
    """Somebody else may be the one who listens at 127.0.0.2: nobody is met there, no token sent."""
    heard = Heard()
    with socket.create_server(("127.0.0.1", 0)) as mine:
        port = mine.getsockname()[1]
        stranger = Stranger(heard.tell)
        with pytest.raises(NodeError, match=f"no listener on 127.0.0.2:{port}"):
            stranger.check("a", "127.0.0.2", port)
        process = Process(os.getpid(), start_ticks(os.getpid()) or 0, os.getuid())
        with pytest.raises(NodeError, match=f"no listener on 127.0.0.2:{port}"):
            process.check("a", "127.0.0.2", port)
        process.check("a", "127.0.0.1", port)
    assert (stranger.uid, heard) == (None, [])
