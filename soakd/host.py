"""What every run of this daemon shares: store, configuration, places, and its rights."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

import trio

from soakd.core.errors import UserError
from soakd.edge.config import Config
from soakd.edge.peers import Account, Accounts
from soakd.edge.shim_client import Credentials
from soakd.edge.store import Store

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Host:
    """The daemon's ground.

    Attributes:
        state_dir: absolute; holds `soakd.db` and `runs`.
        system: soakd is root and runs nodes with their submitters' uids.
        shim_python: the interpreter of shims and helpers, which any submitter can execute.
        uid: soakd's own.
    """

    store: Store
    config: Config
    state_dir: Path
    system: bool
    shim_python: str
    uid: int
    accounts: Accounts
    _one_writer: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))

    async def db(self, query: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Runs a blocking call of the store in the one thread that it may use.

        A call that has begun is always finished. In a cancelled scope it does not begin: what must
        be written then stands in a shield.
        """
        return await trio.to_thread.run_sync(
            functools.partial(query, *args, **kwargs), limiter=self._one_writer
        )

    async def account(self, uid: int) -> Account:
        """The submitter's account as it is now.

        Raises:
            UserError: the account is gone.
            HostError: the account database does not answer.
        """
        account = await self.accounts.account(uid)
        if account is None:
            raise UserError(
                "not_allowed",
                f"cannot run as uid {uid}: the account is gone; ask an admin, then submit again",
            )
        return account

    @property
    def state_tag(self) -> str:
        """Eight hex digits that tell this state folder from any other on the host."""
        return hashlib.sha256(str(self.state_dir).encode()).hexdigest()[:8]

    def credentials(self, account: Account) -> Credentials | None:
        """Whom a run's processes become; None where soakd is that user already (user mode)."""
        return Credentials(account.uid, account.gid, account.groups) if self.system else None
