"""Peer identity over real sockets, and the look-ups in the account database."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from soakd.core.errors import HostError
from soakd.edge import peers
from soakd.edge.peers import Accounts, Admission, Peer, peer_groups, peer_ids

CONNECT = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
sock.recv(1)
"""


class FakeSocket:
    """A connected socket whose peer is whoever the test says."""

    def __init__(self, uid: int, gid: int, groups: tuple[int, ...] | None = ()) -> None:
        self.uid, self.gid, self.groups = uid, gid, groups

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes:
        assert level == socket.SOL_SOCKET
        if optname == socket.SO_PEERCRED:
            words: tuple[int, ...] = (4711, self.uid, self.gid)
        elif self.groups is None:
            raise OSError(34, "Numerical result out of range")
        else:
            words = self.groups
        return b"".join(word.to_bytes(4, sys.byteorder) for word in words)


class FakeAccounts(Accounts):
    """An account database with the groups soak = 900 and soak-admin = 901."""

    async def name(self, uid: int) -> str:
        return f"user{uid}"

    async def group_id(self, group: str) -> int | None:
        return {"soak": 900, "soak-admin": 901}[group]

    async def account(self, uid: int) -> peers.Account | None:
        if uid == 1009:
            return None
        if uid == 1010:
            raise HostError("internal", "cannot look up uid 1010: no answer")
        return peers.Account(uid, uid, (uid, 900), f"user{uid}", "/", "/bin/sh")


def test_own_socketpair_shows_own_identity() -> None:
    """What the kernel says of ourselves is what we are."""
    left, right = socket.socketpair()
    with left, right:
        assert peer_ids(left) == (os.getuid(), os.getgid())
        assert peer_groups(left) == tuple(os.getgroups())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to connect as somebody else")
@pytest.mark.slow
def test_uid_and_groups_of_another_process_arrive(short_dir: Path) -> None:
    """A child with other ids is seen with exactly those."""
    short_dir.chmod(0o755)
    path = short_dir / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        path.chmod(0o666)
        listener.listen()
        command = ["/usr/bin/python3", "-I", "-S", "-c", CONNECT, os.fspath(path)]
        child = subprocess.Popen(
            command, user=54321, group=54322, extra_groups=[900, 54323], cwd="/"
        )
        try:
            accepted = listener.accept()[0]
            with accepted:
                assert peer_ids(accepted) == (54321, 54322)
                assert peer_groups(accepted) == (900, 54323)
        finally:
            child.wait()


@pytest.mark.parametrize(
    ("uid", "gid", "groups", "member", "admin"),
    [
        (0, 0, (), True, True),
        (1000, 1000, (), False, False),
        (1000, 1000, (900,), True, False),
        (1000, 900, (), True, False),
        (1000, 1000, (900, 901), True, True),
        (1000, 1000, (901,), False, False),
        (65534, 65534, (900, 901), False, False),
        (1001, 1001, None, True, False),
        (1009, 1009, None, False, False),
        (1010, 1010, None, False, False),
        (1010, 900, None, True, False),
    ],
)
async def test_system_mode_rights_come_from_groups(
    uid: int, gid: int, groups: tuple[int, ...] | None, *, member: bool, admin: bool
) -> None:
    """Members are root and group soak; admins are in soak-admin as well; nobody never is."""
    peer = await Admission("system", FakeAccounts()).admit(FakeSocket(uid, gid, groups))
    assert (peer.uid, peer.gid, peer.name) == (uid, gid, f"user{uid}")
    assert (peer.member, peer.admin) == (member, admin)


@pytest.mark.parametrize(("uid", "right"), [(1000, True), (0, True), (1001, False)])
async def test_user_mode_serves_one_uid_and_root(uid: int, *, right: bool) -> None:
    """The one user is admin; groups say nothing here."""
    admission = Admission("user", FakeAccounts(), own_uid=1000)
    peer = await admission.admit(FakeSocket(uid, 900, (900, 901)))
    assert peer == Peer(uid, 900, (900, 901), f"user{uid}", right, right)


async def test_real_accounts_are_found_and_missing_ones_are_not() -> None:
    """The real database answers for root; an unused uid is shown as number."""
    accounts = Accounts()
    root = await accounts.account(0)
    assert root is not None
    assert (root.uid, root.name) == (0, "root")
    assert await accounts.account(3_999_999) is None
    assert await accounts.name(0) == "root"
    assert await accounts.name(0) == "root"
    assert await accounts.name(3_999_999) == "3999999"
    assert await accounts.group_id("no-such-group-of-soakd") is None
    assert await accounts.group_id("root") == 0
    assert await accounts.group_id("root") == 0


async def test_a_database_that_hangs_does_not_hang_soakd(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without an answer names are numbers, groups the last known, accounts an error."""
    released = threading.Event()

    def hang(_what: object) -> None:
        released.wait(10)

    monkeypatch.setattr(peers, "LOOKUP_TIMEOUT_S", 0.02)
    for name in ("_login_name", "_group_id", "_account"):
        monkeypatch.setattr(peers, name, hang)
    accounts = Accounts()
    try:
        assert await accounts.name(77) == "77"
        assert await accounts.group_id("soak") is None
        with pytest.raises(HostError, match="cannot look up uid 77"):
            await accounts.account(77)
    finally:
        released.set()


async def test_a_stale_answer_is_better_than_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the cache has run out and the database hangs, the last answer stands."""
    accounts = Accounts()
    assert await accounts.name(0) == "root"
    assert await accounts.group_id("root") == 0

    async def no_answer(_self: Accounts, _question: Callable[..., object], *_args: object) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(peers, "CACHE_S", -1.0)
    monkeypatch.setattr(Accounts, "_ask", no_answer)
    assert await accounts.name(0) == "root"
    assert await accounts.group_id("root") == 0


async def test_the_cache_of_names_is_bounded() -> None:
    """Many uids do not make the daemon grow."""
    accounts = Accounts()
    accounts._names = dict.fromkeys(range(10_000_000, 10_004_096), (0.0, "x"))
    await accounts.name(0)
    assert len(accounts._names) == 1
