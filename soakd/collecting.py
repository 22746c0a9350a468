"""`collect` of a run in any state: what goes into its bundle, and who packs it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

from soakd.bundle.spec import BundleSpec, NodeFolder, Secret
from soakd.core.errors import HostError
from soakd.core.plan import Plan, parse_plan
from soakd.drivers import registry
from soakd.edge.clock import wall_now
from soakd.edge.journal import PRIVATE, RunFolder
from soakd.edge.packer import BundleStream, bundle_file_name, open_bundle
from soakd.edge.shim_client import RUN_ROOT_MARKER
from soakd.edge.store import RunRow
from soakd.host import Host
from soakd.staging import node_folder
from soakd.view import run_name

RUNNER_OUT = "logs/runner.out"


class RunBundle:
    """The bytes of a run's bundle as they are made, and the file name they should get."""

    def __init__(self, name: str, stream: BundleStream) -> None:
        """Wraps a stream that is already being made."""
        self.name = name
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterates over pieces."""
        return self._stream.__aiter__()


@asynccontextmanager
async def open_run_bundle(
    host: Host, row: RunRow, status: dict[str, Any], *, full: bool, keep_destinations: bool
) -> AsyncIterator[RunBundle]:
    """Starts packing; leaving the block ends the helpers.

    Records go to the helper as read-only descriptors: soakd opens nothing that a user can write,
    the helper nothing that its user cannot read.

    Args:
        host: what all runs share.
        row: the run.
        status: copied into the manifest.
        full: with programs and unfinished downloads.
        keep_destinations: without pseudonyms.

    Raises:
        HostError: a helper could not be started or failed.
        UserError: the owner's account is gone, or the driver, who alone knows the secret files.
    """
    plan = parse_plan(json.loads(row.plan_json))
    files = registry.of_stored(plan).files
    account = await host.account(row.owner_uid)
    with ExitStack() as opened:
        records = _open_records(host, row, opened)
        secrets = await host.db(host.store.secrets, row.id)
        spec = BundleSpec(
            nodes=_nodes(host, row, plan),
            sources=tuple(node.source for node in plan.nodes if not node.is_attached),
            secrets=tuple(Secret(item.kind, item.value) for item in secrets),
            full=full,
            keep_destinations=keep_destinations,
            binaries=(files.program,),
            secret_names=tuple(name.lower() for name in files.secrets),
            about={"status": status, "host": socket.gethostname()},
        )
        async with open_bundle(
            python=host.shim_python,
            credentials=host.credentials(account),
            spec=spec,
            record_fds=records,
        ) as stream:
            name = row.label or run_name(row.id)
            file_name = bundle_file_name(host=socket.gethostname(), name=name, epoch=wall_now())
            yield RunBundle(file_name, stream)


def _open_records(host: Host, row: RunRow, files: ExitStack) -> dict[str, int]:
    """Descriptors of every record there is; none before the run had a slot."""
    try:
        folder = RunFolder.open_for_reading(host.state_dir, row.id)
    except HostError:
        if row.started_at is None:
            return {}
        raise
    files.callback(folder.close)
    records = {}
    for name in sorted(record_names(folder)):
        try:
            fd = folder.open_file(name)
        except FileNotFoundError:
            # A pid file of a node that has just ended.
            continue
        files.callback(os.close, fd)
        records[name] = fd
        if name == RUNNER_OUT:
            records["runner.out"] = fd
    return records


def _nodes(host: Host, row: RunRow, plan: Plan) -> tuple[NodeFolder, ...]:
    if row.started_at is None or plan.is_attached:
        return ()
    root = plan.run_root or str(host.state_dir / "runs" / run_name(row.id) / "nodes")
    marker = "" if plan.run_root is None else f"{plan.run_root}/{RUN_ROOT_MARKER}"
    return tuple(
        NodeFolder(
            f"{root}/{node_folder(node.name)}", node_folder(node.name), marker, run_name(row.id)
        )
        for node in plan.nodes
    )


def record_names(folder: RunFolder) -> Iterator[str]:
    """Every file of the run folder but the shim's lock and socket and the nodes' own folders."""
    for path in (*folder.path.iterdir(), *(folder.path / "logs").iterdir()):
        name = str(path.relative_to(folder.path))
        if (
            name not in PRIVATE
            and path.suffix != ".tmp"
            and path.is_file()
            and not path.is_symlink()
        ):
            yield name
