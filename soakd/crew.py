"""The processes of one run as soakd holds them: the shim, its containment, and the nodes.

Two-phase start: the intent is in the store before the shim is spawned, the shim touches nothing
before `begin`, and `begin` is sent only after its identity and containment are in the store too.
soakd reads and writes node folders only through the shim's file verbs.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from soakd import shims
from soakd.containment import contain
from soakd.core.errors import HostError, SoakError, UserError
from soakd.core.plan import Plan, ladder_s, latest_end_s
from soakd.edge.cgroup import Cgroup
from soakd.edge.clock import boot_id, boot_now
from soakd.edge.journal import RunFolder
from soakd.edge.peers import Account
from soakd.edge.pidfds import kill, start_ticks, wait_for_end
from soakd.edge.shim_client import (
    ShimConnection,
    ShimLost,
    ShimRefused,
    SpawnedShim,
    Swept,
    connect_shim,
)
from soakd.edge.store import RunRow
from soakd.host import Host

CALL_S = 10.0
SHIM_EXIT_S = 5.0
CGROUP_EMPTY_S = 5.0
MAX_CONFIG_BYTES = 256 * 1024
NODE_FILE_MODE = 0o600

Event = dict[str, Any]
Left = list[tuple[int, int]]


def words_of(refusal: ShimRefused) -> str:
    """What a shim said, fit for every file and wire: names on disk need not be UTF-8."""
    return refusal.text.encode("utf-8", "backslashreplace").decode()


def _identified(pids: Iterable[int]) -> Left:
    """Those of the pids that are living processes, with their start ticks."""
    identities = ((pid, start_ticks(pid)) for pid in pids)
    return [(pid, ticks) for pid, ticks in identities if ticks is not None]


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
        self._where: tuple[Path, int] | None = None
        self._folder: RunFolder | None = None
        self._owner_uid = host.uid
        self._latest_end_s: float | None = None
        self.swept: Swept | None = None
        """What a sweep after a dead shim came to, if there was one."""
        self.sweep_error = ""

    @property
    def uid(self) -> int:
        """Whose the processes are."""
        if not self._host.system:
            return self._host.uid
        return self._owner_uid if self._account is None else self._account.uid

    @property
    def account(self) -> Account:
        """The submitter, whose uid all processes get."""
        assert self._account is not None, "the crew has no account yet"
        return self._account

    @property
    def is_connected(self) -> bool:
        """Whether the shim can be asked to stop."""
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
        self._account, self._owner_uid = account, account.uid
        await self._host.db(self._host.store.set_shim, self._run_id, n=shim_n, nonce=nonce)
        # Of nodes that somebody else runs no output comes here.
        nodes = [node.name for node in self._plan.nodes if not node.is_attached]
        shim = await shims.spawn(self._host, self._post(folder, nonce), shim_n, nodes)
        self._shim, self._pid, self._ticks, self._nonce = shim, shim.pid, shim.ticks, nonce
        self._where, self._folder = (folder.shim_dir(), shim_n), folder
        try:
            self._cgroup = await contain(self._host, f"r{self._run_id}", self._plan, shim.pid)
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
            await self._empty_cgroup()
            if isinstance(error, ShimLost):
                raise HostError("internal", f"cannot use the shim: {error}") from error
            raise

    def recognise(self, shim_dir: Path, row: RunRow) -> None:
        """Knows an earlier soakd's shim from the store, so that it can be ended at least.

        After a reboot there is nothing to know: every process is gone.
        """
        if row.boot_id != boot_id() or row.shim_pid is None or row.shim_ticks is None:
            return
        self._cgroup = Cgroup(Path(row.cgroup)) if row.cgroup else None
        self._pid, self._ticks, self._nonce = row.shim_pid, row.shim_ticks, row.nonce or ""
        self._where, self._owner_uid = (shim_dir, row.shim_n), row.owner_uid

    async def rejoin(self, folder: RunFolder, row: RunRow, account: Account | None) -> Event:
        """Takes over a recognised shim, after checking that it is that shim.

        Args:
            folder: the run's.
            row: the run as stored.
            account: the submitter; None while the account database does not answer, then nothing
                can be launched or swept.

        Returns:
            The shim's hello: what it holds.

        Raises:
            ShimLost: it is gone, or somebody else is in its place.
        """
        self._account, self._folder = account, folder
        if self._pid is None or row.shim_pid is None:
            raise ShimLost("no shim of this boot is on record")
        if start_ticks(row.shim_pid) != row.shim_ticks:
            raise ShimLost(f"the shim (pid {row.shim_pid}) is gone")
        connection = await connect_shim(folder.shim_dir(), row.shim_n, self.uid, row.shim_pid)
        if row.nonce is None or connection.hello.get("nonce") != row.nonce:
            await connection.aclose()
            raise ShimLost(f"the shim (pid {row.shim_pid}) is of another run")
        self._connection = connection
        known = connection.hello.get("latest_end_boot_s")
        self._latest_end_s = known if type(known) is float and known > 0 else None
        return connection.hello

    async def begin(self, folder: RunFolder, orphan_grace_s: float) -> None:
        """Sends `begin`: from here on the shim holds the run whatever becomes of soakd.

        Raises:
            SoakError: the run root or the nodes folder cannot be used.
        """
        plan = self._plan
        self._latest_end_s = boot_now() + latest_end_s(plan)
        where = (
            {"nodes_root": str(folder.make_nodes(self.uid, self.account.gid))}
            if plan.run_root is None
            else {"run_root": plan.run_root, "run_folder": str(folder.path)}
        )
        named = {node.name: node.token_file for node in plan.nodes if node.is_attached}
        tokens = {"token_files": named} if named else {}
        await self.call(
            "begin",
            timeout_s=CALL_S,
            latest_end_boot_s=self._latest_end_s,
            orphan_grace_s=orphan_grace_s,
            stop_grace_s=plan.stop_grace_s,
            **where,
            **tokens,
        )

    async def extend(self, plan: Plan, by_s: float) -> None:
        """Lets the shim go on for longer; before `begin` the plan alone says how long.

        Raises:
            SoakError: the shim is lost.
        """
        if self._latest_end_s is not None:
            later_s = self._latest_end_s + by_s
            await self.call("latest_end", boot_s=later_s)
            self._latest_end_s = later_s
        self._plan = plan

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
            raise UserError("refused", words_of(refusal)) from refusal
        except ShimLost as lost:
            raise HostError("internal", f"cannot {verb}: the shim is lost ({lost})") from lost

    async def dismiss(self) -> Left:
        """Ends a shim whose ladder has ended with nothing left; returns what is left all the same.

        Bounded in time.
        """
        try:
            await self.call("end")
        except SoakError:
            # Lost or refusing: it is ended by force below.
            return await self.put_down()
        with trio.move_on_after(SHIM_EXIT_S):
            await self._wait_for_shim()
        return await self.put_down(is_clean=True)

    async def put_down(self, *, is_clean: bool = False) -> Left:
        """Ends by force whatever of the run is still there, the shim first.

        The shim's nodes die with it (PDEATHSIG); the cgroup takes the rest, or, where there is
        none, a fresh shim that finds it by evidence.

        Args:
            is_clean: the shim has proven that it has no children left.

        Returns:
            What could not be ended, as pids with start ticks.
        """
        await self.close()
        if self._pid is not None and self._ticks is not None:
            kill(self._pid, self._ticks)
            with trio.move_on_after(SHIM_EXIT_S):
                await self._wait_for_shim()
        left: Left = []
        if self._pid is not None and start_ticks(self._pid) == self._ticks:
            left.append((self._pid, self._ticks or 0))
        elif self._cgroup is None and not is_clean:
            left += await self._sweep()
        left += await self._empty_cgroup()
        return list(dict.fromkeys(left))

    async def stop_unheard(self, reason: str) -> Left:
        """Walks the ladder and ends the shim when nobody reads the shim's news any more."""
        with suppress(ShimLost, SoakError, trio.TooSlowError):
            connection = await self._reach()
            if connection is not None:
                await self._walk_ladder(connection, reason)
        return await self.put_down()

    async def end_shim(self) -> Left:
        """Ends the shim after what had survived its ladder; returns what is left all the same.

        Bounded in time. Asked politely, it still books the exits of its nodes.
        """
        with suppress(ShimLost, trio.TooSlowError):
            connection = await self._reach()
            if connection is not None:
                await self._ask_to_end(connection)
        return await self.put_down(is_clean=True)

    async def _reach(self) -> ShimConnection | None:
        """A new connection to the shim, whose old one nobody reads; None if there was no shim."""
        if self._pid is None or self._where is None:
            return None
        folder, shim_n = self._where
        with trio.fail_after(CALL_S):
            self._connection = await connect_shim(folder, shim_n, self.uid, self._pid)
        return self._connection

    async def _ask_to_end(self, connection: ShimConnection) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.pump)
            # Lost or refusing: force comes next.
            with suppress(SoakError), trio.move_on_after(SHIM_EXIT_S):
                await self.call("end")
                await self._wait_for_shim()
            nursery.cancel_scope.cancel()

    async def _walk_ladder(self, connection: ShimConnection, reason: str) -> None:
        if connection.hello.get("stopped") is not None:
            # It has ended while nobody listened.
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.pump)
            with trio.move_on_after(ladder_s(self._plan)):
                try:
                    await self.call("stop", reason=reason)
                except SoakError as error:
                    # It does not even answer: force comes next.
                    self.sweep_error = error.message
                    nursery.cancel_scope.cancel()
                async for event in connection.events:
                    if event.get("event") == "stopped":
                        break
            nursery.cancel_scope.cancel()

    async def _wait_for_shim(self) -> None:
        """Waits for the shim's end, as its parent or, rejoined, by its identity."""
        if self._shim is not None:
            await self._shim.process.wait()
            await self._shim.stdin.aclose()
        elif self._pid is not None and self._ticks is not None:
            await wait_for_end(self._pid, self._ticks)

    async def _sweep(self) -> Left:
        """Without a cgroup: ends by evidence what a dead shim has left behind."""
        folder, ticks = self._folder, self._ticks
        if folder is None or ticks is None or not self._nonce:
            return []
        if self._account is None:
            self.sweep_error = "cannot sweep: the submitter's account is gone"
            return []
        root = self._plan.run_root or str(folder.path / "nodes")
        try:
            self.swept = await shims.sweep(self._host, self._post(folder, self._nonce), ticks, root)
        except HostError as error:
            self.sweep_error = error.message
            return []
        return _identified(self.swept.left)

    async def _empty_cgroup(self) -> Left:
        if self._cgroup is None:
            return []
        self._cgroup.kill()
        await self._cgroup.wait_empty(CGROUP_EMPTY_S)
        if self._cgroup.remove():
            return []
        return _identified(self._cgroup.pids())

    @property
    def nonce(self) -> str:
        """What labels the run's processes in their environment."""
        return self._nonce

    async def close(self) -> None:
        """Lets go of the connection; the shim lives on."""
        if self._connection is not None:
            await self._connection.aclose()

    # -- inner ---------------------------------------------------------------------------------

    def _post(self, folder: RunFolder, nonce: str) -> shims.Post:
        return shims.Post(f"r{self._run_id}", folder, self.account, nonce)
