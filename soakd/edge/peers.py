"""Who is at the other end of a connection, and what the account database says about a uid.

Only what the kernel recorded at connect() decides (SO_PEERCRED, SO_PEERGROUPS); the pid is
decoration and not even read. Name lookups may hang (LDAP), so they run in a thread with a time-out.
What a peer may do with a run is decided elsewhere; here it only becomes member or admin.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import trio

from soakd.core.errors import HostError

Mode = Literal["system", "user"]

MEMBER_GROUP = "soak"
ADMIN_GROUP = "soak-admin"
OVERFLOW_UID = 65534
"""What the kernel shows for any account of another user namespace: it is nobody in particular."""

LOOKUP_TIMEOUT_S = 3.0
CACHE_S = 60.0
_MAX_LOOKUP_THREADS = 4
_SO_PEERGROUPS = 59
_UCRED = struct.Struct("iII")
_MAX_GROUP_BYTES = 1024

_T = TypeVar("_T")


class _HasOptions(Protocol):
    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes:
        """As socket.socket and trio's sockets have it."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A connected account: `member` may use this soakd, `admin` may act on anyone's runs."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    member: bool
    admin: bool


@dataclass(frozen=True, slots=True)
class Account:
    """A uid as the account database has it now: what a process running as that user needs."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str
    shell: str


class Accounts:
    """Cached, time-limited look-ups in the account database."""

    def __init__(self) -> None:
        self._threads = trio.CapacityLimiter(_MAX_LOOKUP_THREADS)
        self._names: dict[int, tuple[float, str]] = {}
        self._gids: dict[str, tuple[float, int | None]] = {}

    async def name(self, uid: int) -> str:
        """Return the login name of a uid, or the number as text when there is none or no answer."""
        known = self._names.get(uid)
        if known is None or trio.current_time() - known[0] > CACHE_S:
            found = await self._ask(_login_name, uid)
            if found is None:
                return str(uid) if known is None else known[1]
            if len(self._names) >= 4096:
                self._names.clear()
            self._names[uid] = known = (trio.current_time(), found)
        return known[1]

    async def group_id(self, group: str) -> int | None:
        """Return the gid of a group, None when there is none; the last answer when none comes."""
        known = self._gids.get(group)
        if known is None or trio.current_time() - known[0] > CACHE_S:
            found = await self._ask(_group_id, group)
            if found is None:
                return None if known is None else known[1]
            self._gids[group] = known = (trio.current_time(), found[0])
        return known[1]

    async def account(self, uid: int) -> Account | None:
        """Return the account of a uid as it is now (never cached), or None when it is gone.

        Raises:
            HostError: the account database does not answer in time.
        """
        found = await self._ask(_account, uid)
        if found is None:
            raise HostError(
                "internal",
                f"cannot look up uid {uid}: the account database gave no answer within"
                f" {LOOKUP_TIMEOUT_S:g} s; see `getent passwd {uid}`",
            )
        return found[0]

    async def _ask(self, question: Callable[..., _T], *args: object) -> _T | None:
        with trio.move_on_after(LOOKUP_TIMEOUT_S):
            return await trio.to_thread.run_sync(
                question, *args, abandon_on_cancel=True, limiter=self._threads
            )
        return None


class Admission:
    """Makes a `Peer` of each connection by the rules of the mode soakd runs in."""

    def __init__(self, mode: Mode, accounts: Accounts, *, own_uid: int | None = None) -> None:
        self.mode: Mode = mode
        self._accounts = accounts
        self._own_uid = os.geteuid() if own_uid is None else own_uid

    async def admit(self, sock: _HasOptions) -> Peer:
        """Return who is connected.

        Raises:
            OSError: not a connected Unix socket.
        """
        uid, gid = peer_ids(sock)
        name = await self._accounts.name(uid)
        groups = peer_groups(sock)
        if groups is None:
            groups = await self._database_groups(uid)
        member, admin = await self._rights(uid, {gid, *groups})
        return Peer(uid, gid, groups, name, member, admin)

    async def _database_groups(self, uid: int) -> tuple[int, ...]:
        try:
            account = await self._accounts.account(uid)
        except HostError:
            # Fewer rights than deserved until the database answers again.
            return ()
        return () if account is None else account.groups

    async def _rights(self, uid: int, gids: set[int]) -> tuple[bool, bool]:
        if uid == 0:
            return True, True
        if uid == OVERFLOW_UID:
            return False, False
        if self.mode == "user":
            return uid == self._own_uid, uid == self._own_uid
        member = await self._accounts.group_id(MEMBER_GROUP) in gids
        return member, member and await self._accounts.group_id(ADMIN_GROUP) in gids


def peer_ids(sock: _HasOptions) -> tuple[int, int]:
    """Return uid and gid that the other end had when it connected (or listened).

    Raises:
        OSError: not a connected Unix socket.
    """
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _pid, uid, gid = _UCRED.unpack(raw)
    return uid, gid


def peer_groups(sock: _HasOptions) -> tuple[int, ...] | None:
    """Return the peer's supplementary groups; None when they are more than Python reads (256)."""
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_GROUP_BYTES)
    except OSError:
        return None
    return struct.unpack(f"{len(raw) // 4}I", raw)


def _login_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_id(group: str) -> tuple[int | None]:
    try:
        return (grp.getgrnam(group).gr_gid,)
    except KeyError:
        return (None,)


def _account(uid: int) -> tuple[Account | None]:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return (None,)
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return (
        Account(
            uid, entry.pw_gid, groups, entry.pw_name, entry.pw_dir, entry.pw_shell or "/bin/sh"
        ),
    )
