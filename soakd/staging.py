"""The node folders of a run, worked on through its shim: staged, edited, launched, read.

soakd itself never opens a path below them: every byte comes from or goes through a file verb of
the shim, which has the submitter's uid.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import trio

from soakd.bundle.secret_files import values_in
from soakd.bundle.spec import Secret
from soakd.core.errors import HostError, NodeError, UserError
from soakd.core.plan import NodePlan, Plan
from soakd.crew import CALL_S, Crew, words_of
from soakd.drivers import registry
from soakd.drivers.driver import NodeConfig, node_environment
from soakd.edge.shim_client import ShimLost, ShimRefused
from soakd.listeners import Process

NODE_FILE_MODE = 0o600
MAX_CONFIG_BYTES = 64 * 1024
_HAS_ENDED = ("not_running", "missing")


@dataclass(frozen=True, slots=True)
class Staged:
    """A staged node: its configuration, and the SHA-256 of the program that was copied."""

    config: NodeConfig
    program_sha256: str
    secrets: tuple[Secret, ...]
    """Token and private keys of the source: no bundle may hold them, also when it is gone."""
    keys: bytes | None
    """The key file that the node keeps, which is its identity; None if it makes a new one."""


def node_folder(node: str) -> str:
    """Name of a node's folder, in `nodes/` and in bundles, as the scripts had it."""
    return f"mule-{node}"


class Staging:
    """What is done to the nodes of one run on disk, and their launch."""

    def __init__(self, crew: Crew, plan: Plan, run: str) -> None:
        """Works through `crew`, which must be hired before anything is done; `run` is `r7`."""
        self._crew = crew
        self._plan = plan
        self._run = run
        self._driver = registry.of_stored(plan)

    async def stage(self, node: NodePlan, sha256: str | None) -> Staged:
        """Copies a node's folder, edits its configuration and removes what must not be kept.

        Args:
            node: which node.
            sha256: of the program as the client saw it; None takes any.

        Raises:
            SoakError: the copy or the edit failed, or the program is not the one that was
                submitted.
        """
        plan, files = self._plan, self._driver.files
        copied = await self._crew.call(
            "stage",
            timeout_s=plan.staging_timeout_s,
            node=node.name,
            source=node.source,
            dir=node_folder(node.name),
            exclude=list(files.exclude),
            by_content=list(files.by_content),
            max_bytes=files.max_folder_bytes,
        )
        hashes = copied.get("sha256")
        if not isinstance(hashes, dict):
            raise HostError("internal", f"cannot stage node {node.name}: the shim makes no sense")
        program = self._checked_program(node, hashes.get(files.program), sha256)
        name = files.config
        text = await self._read_text(node.name, name) if name in hashes else None
        config = await self._edited(text, node)
        await self._replace(node.name, name, config.text)
        if await self._read_text(node.name, name) != config.text:
            raise HostError(
                "internal", f"cannot edit {name} of node {node.name}: it reads back different"
            )
        secrets, keys = await self._secrets(node.name, config)
        doomed = [
            *map(config.file, files.locks),
            *(config.identity if plan.fresh_identity else ()),
        ]
        for path in doomed:
            await self._crew.call("remove", node=node.name, path=path)
        return Staged(config, program, secrets, None if plan.fresh_identity else keys)

    async def _secrets(
        self, node: str, config: NodeConfig
    ) -> tuple[tuple[Secret, ...], bytes | None]:
        """The secrets in a staged folder, and its key file."""
        found: list[Secret] = []
        keys: bytes | None = None
        for name in self._driver.files.secrets:
            try:
                data = await self._crew.connection.read_file(node, config.file(name))
            except ShimRefused:
                # The source has none, or nothing that can be read as one.
                continue
            except ShimLost as lost:
                text = f"cannot read {name} of node {node}: the shim is lost ({lost})"
                raise HostError("internal", text) from lost
            found += values_in(data.decode("utf-8", "replace"))
            if name == self._driver.files.keys:
                keys = data
        return tuple(found), keys

    async def _edited(self, text: str | None, node: NodePlan) -> NodeConfig:
        """The edited configuration, in a thread: a user's TOML may take its time to parse."""
        if text is not None and len(text) > MAX_CONFIG_BYTES:
            raise NodeError(
                "bad_config",
                f"cannot edit {self._driver.files.config} of node {node.name}: it has {len(text)}"
                f" characters, at most {MAX_CONFIG_BYTES} are read",
            )
        edit = functools.partial(self._driver.edit_config, text, self._plan, node, self._run)
        return await trio.to_thread.run_sync(edit)

    async def _replace(self, node: str, path: str, text: str) -> None:
        try:
            await self._crew.connection.replace_file(node, path, text.encode(), NODE_FILE_MODE)
        except ShimRefused as refusal:
            raise UserError("refused", words_of(refusal)) from refusal
        except ShimLost as lost:
            raise HostError("internal", f"cannot write {path} of node {node}: {lost}") from lost

    async def launch(self, node: NodePlan, env: dict[str, str]) -> Process:
        """Executes a staged node and checks that what runs is the staged file, in its own folder.

        Raises:
            NodeError: it could not be executed, or something else runs.
            HostError: the shim is lost.
        """
        try:
            facts = await self._crew.connection.call(
                "launch",
                timeout_s=CALL_S,
                node=node.name,
                argv=[f"./{self._program}"],
                env=env,
                rlimits={},
            )
        except ShimRefused as refusal:
            raise NodeError(
                "node_not_executed", f"cannot start node {node.name}: {words_of(refusal)}"
            ) from refusal
        except ShimLost as lost:
            raise HostError(
                "internal", f"cannot start node {node.name}: the shim is lost ({lost})"
            ) from lost
        try:
            pid, ticks = int(facts["pid"]), int(facts["ticks"])
            known = facts["exe_ino"] is not None
            itself = _is_staged_file(facts)
            verified = facts["cwd_ok"] is True and (itself or facts["script"] is True)
        except (KeyError, TypeError, ValueError) as error:
            text = f"cannot start node {node.name}: the shim's answer makes no sense"
            raise HostError("internal", text) from error
        # Unknown means that it is gone already: the news of its end is on its way.
        if known and not verified:
            raise NodeError(
                "node_not_executed",
                f"cannot verify node {node.name}: pid {pid} does not run the staged"
                f" {self._program}",
            )
        return Process(pid, ticks, self._crew.uid)

    async def verify_running(self, node: NodePlan) -> None:
        """Checks once more, when a node is ready, that it is the staged program and no wrapper.

        A `#!` program shows as its interpreter with the staged file as argument; a script that has
        replaced itself by another program, or has gone to another folder, does not.

        Raises:
            NodeError: another program runs in the node's place, or it has left its folder.
        """
        facts = await self._inspect(node.name)
        if facts is None:
            return
        argv, exe = facts.get("argv"), str(facts.get("exe", ""))
        as_argument = isinstance(argv, list) and f"./{self._program}" in argv[1:]
        if "cwd_ok" not in facts:
            # A shim of release 0.1.0 tells no inodes.
            at_home, verified = True, exe.endswith(f"/{node_folder(node.name)}/{self._program}")
            verified = verified or as_argument
        else:
            at_home = facts["cwd_ok"] is True
            verified = _is_staged_file(facts) or (facts.get("script") is True and as_argument)
        if at_home and verified:
            return
        what = f"{exe!r} {argv!r} runs in place of the staged {self._program}"
        if verified:
            what = f"it has left its own folder for {facts.get('cwd')!r}"
        raise NodeError(
            "node_not_executed",
            f"cannot trust node {node.name}: {what}; the program must not be a wrapper",
            {"node": node.name},
        )

    async def _inspect(self, node: str) -> dict[str, Any] | None:
        """What the kernel shows of a node; None when it has ended: that news is on its way."""
        try:
            facts = await self._crew.connection.call("inspect", timeout_s=CALL_S, node=node)
        except ShimRefused as refusal:
            if refusal.code in _HAS_ENDED:
                return None
            raise UserError("refused", words_of(refusal)) from refusal
        except ShimLost as lost:
            raise HostError("internal", f"cannot look at node {node}: {lost}") from lost
        return None if facts.get("exe_ino", 0) is None else facts

    def node_env(self, node: NodePlan) -> dict[str, str]:
        """The environment of a node of the run."""
        user = {
            "HOME": self._crew.account.home,
            "USER": self._crew.account.name,
            "LOGNAME": self._crew.account.name,
        }
        plan = replace(self._plan, node_env=self._plan.node_env + node.env)
        added = self._driver.environment
        return node_environment(added, plan, nonce=self._crew.nonce, user=user)

    def file_reader(self, node: str) -> Callable[[str], Any]:
        """A function that reads a file of a node's folder through the shim, as the node's user."""

        async def read(path: str) -> bytes:
            try:
                return await self._crew.connection.read_file(node, path)
            except ShimRefused as refusal:
                raise NodeError("no_file", words_of(refusal)) from refusal
            except ShimLost as lost:
                raise HostError(
                    "internal", f"cannot read {path} of node {node}: the shim is lost ({lost})"
                ) from lost

        return read

    @property
    def _program(self) -> str:
        return self._driver.files.program

    def _checked_program(self, node: NodePlan, found: object, submitted: str | None) -> str:
        if not isinstance(found, str):
            raise UserError(
                "refused",
                f"cannot stage node {node.name}: there is no {self._program} in {node.source}",
            )
        if submitted is not None and found != submitted and not self._plan.latest:
            raise UserError(
                "refused",
                f"cannot stage node {node.name}: {self._program} changed since you queued it"
                f" ({node.source}); submit again, or use --latest",
            )
        return found

    async def _read_text(self, node: str, path: str) -> str:
        try:
            return (await self._crew.connection.read_file(node, path)).decode()
        except UnicodeDecodeError as error:
            raise NodeError(
                "bad_config", f"cannot read {path} of node {node}: it is not UTF-8"
            ) from error
        except (ShimRefused, ShimLost) as error:
            raise HostError("internal", f"cannot read {path} of node {node}: {error}") from error


def _is_staged_file(facts: Mapping[str, Any]) -> bool:
    """Whether what a process executes is the file that was staged, by device and inode."""
    executed = facts.get("exe_dev"), facts.get("exe_ino")
    staged = facts.get("file_dev"), facts.get("file_ino")
    return type(executed[1]) is int and executed == staged
