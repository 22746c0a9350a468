"""The processes of one run as soakd holds them: the shim, its containment, and the nodes.

Two-phase start: the intent is in the store before the shim is spawned, the shim touches nothing
before `begin`, and `begin` is sent only after its identity and containment are in the store too.
soakd reads and writes node folders only through the shim's file verbs.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import trio

from soakd.core.errors import HostError, SoakError, UserError
from soakd.core.plan import Plan, ladder_s, latest_end_s
from soakd.edge.cgroup import Cgroup
from soakd.edge.clock import boot_id, boot_now
from soakd.edge.journal import RunFolder
from soakd.edge.peers import Account
from soakd.edge.pidfds import wait_for_end
from soakd.edge.shim_client import (
    ShimConnection,
    ShimFds,
    ShimLost,
    ShimRefused,
    SpawnedShim,
    connect_shim,
    process_ticks,
    spawn_shim,
)
from soakd.edge.store import RunRow
from soakd.host import Host

CALL_S = 10.0
SHIM_EXIT_S = 5.0
CGROUP_EMPTY_S = 5.0
MAX_CONFIG_BYTES = 256 * 1024
NODE_FILE_MODE = 0o600

Event = dict[str, Any]


class Crew:
    """The shim of a run: hired for a new run, rejoined for one that outlived a soakd."""

    def __init__(self, host: Host, run_id: int, plan: Plan) -> None:
        """Nothing is started yet; `plan` says what is staged and launched."""
        self._host = host
        self._run_id = run_id
        self._plan = plan
        self._account: Account | None = None
        self._shim: SpawnedShim | None = None
        self._connection: ShimConnection | None = None
        self._cgroup: Cgroup | None = None
        self._pid: int | None = None
        self._ticks: int | None = None
        self._nonce = ""

    @property
    def uid(self) -> int:
        """Whose the processes are."""
        return self.account.uid if self._host.system else self._host.uid

    @property
    def account(self) -> Account:
        """The submitter, whose uid all processes get."""
        assert self._account is not None, "the crew has no account yet"
        return self._account

    @property
    def hired(self) -> bool:
        """Whether there is a shim to stop."""
        return self._connection is not None

    @property
    def connection(self) -> ShimConnection:
        """The connection to the shim."""
        assert self._connection is not None, "the shim is used before it was hired"
        return self._connection

    # -- coming and going ----------------------------------------------------------------------

    async def hire(self, folder: RunFolder, shim_n: int, account: Account) -> None:
        """Spawns the run's shim, contains it, writes down who it is and begins.

        Raises:
            HostError: any of these failed; nothing of the attempt is left.
        """
        nonce = secrets.token_hex(16)
        self._account = account
        await self._host.db(self._host.store.set_shim, self._run_id, n=shim_n, nonce=nonce)
        shim = await self._spawn(folder, shim_n, nonce)
        try:
            self._contain(shim)
            await self._host.db(
                self._host.store.set_shim,
                self._run_id,
                n=shim_n,
                nonce=nonce,
                pid=shim.pid,
                ticks=shim.ticks,
                boot_id=boot_id(),
                cgroup=str(self._cgroup.path) if self._cgroup else None,
            )
            self._connection = await connect_shim(folder.shim_dir(), shim_n, self.uid, shim.pid)
        except BaseException as error:
            await shim.abandon()
            self._drop_cgroup()
            if isinstance(error, ShimLost):
                raise HostError("internal", f"cannot use the shim: {error}") from error
            raise
        self._shim, self._pid, self._ticks, self._nonce = shim, shim.pid, shim.ticks, nonce

    async def rejoin(self, folder: RunFolder, row: RunRow, account: Account) -> Event:
        """Takes over a shim that an earlier soakd started, after checking that it is that shim.

        Returns:
            The shim's hello: what it holds.

        Raises:
            ShimLost: it is gone, or somebody else is in its place.
        """
        self._account = account
        if row.boot_id != boot_id() or row.shim_pid is None or row.shim_ticks is None:
            raise ShimLost("no shim of this boot is on record")
        self._cgroup = Cgroup(Path(row.cgroup)) if row.cgroup else None
        if process_ticks(row.shim_pid) != row.shim_ticks:
            raise ShimLost(f"the shim (pid {row.shim_pid}) is gone")
        connection = await connect_shim(folder.shim_dir(), row.shim_n, self.uid, row.shim_pid)
        if row.nonce is None or connection.hello.get("nonce") != row.nonce:
            await connection.aclose()
            raise ShimLost(f"the shim (pid {row.shim_pid}) is of another run")
        self._connection = connection
        self._pid, self._ticks, self._nonce = row.shim_pid, row.shim_ticks, row.nonce
        return connection.hello

    async def begin(self, folder: RunFolder, orphan_grace_s: float) -> None:
        """Sends `begin`: from here on the shim holds the run whatever becomes of soakd.

        Raises:
            SoakError: the run root or the nodes folder cannot be used.
        """
        plan = self._plan
        where = (
            {"nodes_root": str(folder.make_nodes(self.uid, self.account.gid))}
            if plan.run_root is None
            else {"run_root": plan.run_root, "run_folder": str(folder.path)}
        )
        await self.call(
            "begin",
            timeout_s=CALL_S,
            latest_end_boot_s=boot_now() + latest_end_s(plan),
            orphan_grace_s=orphan_grace_s,
            stop_grace_s=plan.stop_grace_s,
            **where,
        )

    async def call(
        self, verb: str, *, timeout_s: float = CALL_S, **params: object
    ) -> dict[str, Any]:
        """One verb of the shim.

        Raises:
            UserError: the shim refused what the user asked for.
            HostError: the shim is lost.
        """
        try:
            return await self.connection.call(verb, timeout_s=timeout_s, **params)
        except ShimRefused as refusal:
            raise UserError("refused", refusal.text) from refusal
        except ShimLost as lost:
            raise HostError("internal", f"cannot {verb}: the shim is lost ({lost})") from lost

    async def dismiss(self) -> bool:
        """Ends the shim after the ladder and what is left in its cgroup; True: nothing is left.

        Bounded in time. The caller has seen `stopped`, or has lost the shim.
        """
        try:
            await self.call("end")
        except SoakError:
            # Lost or refusing: its own end is then forced below, by the cgroup or by PDEATHSIG of
            # the nodes.
            await self._kill_cgroup()
        gone = await self.wait_gone(SHIM_EXIT_S)
        await self.close()
        if self._shim is not None and not gone:
            await self._shim.abandon()
            gone = True
        if self._cgroup is not None:
            await self._kill_cgroup()
            return self._drop_cgroup()
        return gone

    async def stop_unheard(self, reason: str) -> None:
        """Walks the ladder and ends the shim when nobody reads the shim's news any more."""
        with trio.move_on_after(ladder_s(self._plan)):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.connection.pump)
                try:
                    await self.call("stop", reason=reason)
                    async for event in self.connection.events:
                        if event.get("event") == "stopped":
                            break
                except (SoakError, trio.ClosedResourceError):
                    # The shim is lost, and its nodes with it; what is left is ended below.
                    nursery.cancel_scope.cancel()
                nursery.cancel_scope.cancel()
        await self.dismiss()

    async def wait_gone(self, timeout_s: float) -> bool:
        """Waits for the shim's end, as its parent or, rejoined, by its identity."""
        with trio.move_on_after(timeout_s):
            if self._shim is not None:
                await self._shim.process.wait()
                await self._shim.stdin.aclose()
                return True
            if self._pid is not None and process_ticks(self._pid) == self._ticks:
                await wait_for_end(self._pid)
            return True
        return False

    @property
    def nonce(self) -> str:
        """What labels the run's processes in their environment."""
        return self._nonce

    async def close(self) -> None:
        """Lets go of the connection; the shim lives on."""
        if self._connection is not None:
            await self._connection.aclose()

    # -- inner ---------------------------------------------------------------------------------

    async def _spawn(self, folder: RunFolder, shim_n: int, nonce: str) -> SpawnedShim:
        out = {
            node.name: folder.open_for_child(f"logs/{node.name}.out") for node in self._plan.nodes
        }
        fds = ShimFds(
            journal=folder.open_for_child("shim.ndjson"),
            lock=folder.open_for_child("shim.lock"),
            out=out,
            runner_out=folder.open_for_child("logs/runner.out"),
        )
        try:
            return await spawn_shim(
                python=self._host.shim_python,
                run=f"r{self._run_id}",
                nonce=nonce,
                shim_dir=folder.shim_dir(),
                n=shim_n,
                credentials=self._host.credentials(self.account),
                fds=fds,
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "SOAK_RUN_NONCE": nonce},
            )
        finally:
            fds.close()

    def _contain(self, shim: SpawnedShim) -> None:
        wanted = self._host.config.containment
        if wanted == "evidence":
            return
        # The state folder is part of the name: two soakds on one host may both have a run r1.
        name = f"soak-{self._host.state_tag}-r{self._run_id}"
        self._cgroup = Cgroup.create(name)
        if self._cgroup is not None:
            self._cgroup.attach(shim.pid)
        elif wanted == "cgroup":
            raise HostError(
                "refused",
                "cannot contain the run: no cgroup v2 is writable here; set containment to"
                ' "auto" in soakd.toml to do without',
            )

    async def _kill_cgroup(self) -> None:
        if self._cgroup is not None:
            self._cgroup.kill()
            await self._cgroup.wait_empty(CGROUP_EMPTY_S)

    def _drop_cgroup(self) -> bool:
        return self._cgroup is None or self._cgroup.remove()
