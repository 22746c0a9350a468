"""The daemon's ground: one writer for the store, accounts, and whose uid processes get."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from soakd.core.errors import UserError
from soakd.edge.peers import Account
from soakd.edge.store import Store
from tests.run.kit import UID, FakeAccounts, make_host


async def test_store_is_used_by_one_thread_at_a_time_off_the_loop(
    tmp_path: Path, store: Store
) -> None:
    """A commit waits for the disk: the loop must not."""
    host = make_host(tmp_path, store)
    inside, most, loops = 0, 0, set()

    def query(number: int, *, plus: int) -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        loops.add(threading.current_thread() is threading.main_thread())
        inside -= 1
        return number + plus

    results: list[int] = []

    async def ask(number: int) -> None:
        results.append(await host.db(query, number, plus=100))

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(ask, number)
    assert sorted(results) == [*range(100, 120)]
    assert (most, loops) == (1, {False})


async def test_write_that_has_begun_is_finished(tmp_path: Path, store: Store) -> None:
    """Cancellation waits for it; in a cancelled scope it does not begin."""
    host = make_host(tmp_path, store)
    begun, go_on, done = threading.Event(), threading.Event(), []

    def query() -> None:
        begun.set()
        go_on.wait(5)
        done.append(1)

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(host.db, query)
            while not begun.is_set():
                await trio.sleep(0.001)
            scope.cancel()
            go_on.set()
    assert done == [1]
    with trio.CancelScope() as scope:
        scope.cancel()
        await host.db(done.append, 2)
    assert done == [1]


async def test_account_that_is_gone_cannot_run(tmp_path: Path, store: Store) -> None:
    """The message says whom to ask."""
    host = make_host(tmp_path, store)
    assert (await host.account(UID)).uid == UID
    assert isinstance(host.accounts, FakeAccounts)
    host.accounts.gone = True
    with pytest.raises(UserError, match=f"cannot run as uid {UID}: the account is gone"):
        await host.account(UID)


def test_only_root_changes_uids(tmp_path: Path, store: Store) -> None:
    """In user mode soakd is its user already; as root all three ids change together."""
    host = make_host(tmp_path, store)
    account = Account(1001, 1002, (7, 8), "ann", "/home/ann", "/bin/sh")
    assert host.credentials(account) is None
    credentials = replace(host, system=True).credentials(account)
    assert credentials is not None
    assert (credentials.uid, credentials.gid, credentials.groups) == (1001, 1002, (7, 8))


def test_state_folders_are_told_apart(tmp_path: Path, store: Store) -> None:
    """Two soakds of one host have runs of the same number."""
    tags = {make_host(tmp_path / name, store).state_tag for name in ("x", "y", "z")}
    assert len(tags) == 3
    assert all(len(tag) == 8 and int(tag, 16) >= 0 for tag in tags)
