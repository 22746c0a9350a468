"""What goes into a run's bundle: its records by descriptor, its nodes, and none of its secrets."""

from __future__ import annotations

import io
import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from soakd.collecting import open_run_bundle, record_names
from soakd.core.errors import HostError, UserError
from soakd.core.plan import NodePlan, Plan, plan_to_dict
from soakd.edge.journal import RunFolder
from soakd.edge.store import RunRow, Store
from soakd.host import Host
from soakd.records import Records
from soakd.shim.protocol import RUN_ROOT_MARKER
from tests.run.kit import UID, FakeAccounts, add_run, make_host, make_plan

TOKEN = "0123456789abcdef" * 4
OLD_TOKEN = "fedcba9876543210" * 4


class Box:
    """A host with one run."""

    def __init__(self, tmp_path: Path, store: Store, **plan: Any) -> None:
        self.host: Host = make_host(tmp_path / "state", store)
        self.host.state_dir.mkdir()
        nodes = tuple(
            NodePlan(name, str(tmp_path / "src" / name), "127.0.0.1", 20_000 + place, (role,))
            for place, (name, role) in enumerate((("a", "publisher"), ("b", "searcher")))
        )
        for node in nodes:
            Path(node.source).mkdir(parents=True)
        self.plan: Plan = make_plan(nodes=nodes, **plan)
        add_run(self.host, self.plan)

    def started(self) -> RunFolder:
        self.host.store.set_columns(1, started_at=1000.0)
        return RunFolder.create(self.host.state_dir, 1, UID, system=False)

    def row(self) -> RunRow:
        row = self.host.store.get_run(1)
        assert row is not None
        return row

    async def collect(
        self, *, full: bool = False, keep_destinations: bool = False
    ) -> tuple[str, dict[str, bytes]]:
        """File name and members of the bundle, the top folder left away."""
        data = b""
        options = {"full": full, "keep_destinations": keep_destinations}
        async with open_run_bundle(self.host, self.row(), {"state": "x"}, **options) as bundle:
            name = bundle.name
            async for piece in bundle:
                data += piece
        members: dict[str, bytes] = {}
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is not None:
                    members[member.name] = file.read()
        return name, members


def member(members: dict[str, bytes], name: str) -> bytes:
    """The member that ends with this path."""
    found = [data for path, data in members.items() if f"/{path}".endswith(f"/{name}")]
    assert found, f"no {name} in {sorted(members)}"
    return found[0]


async def test_bundle_of_an_unknown_driver_is_not_made(tmp_path: Path, store: Store) -> None:
    """Which files hold secrets, only the driver knows."""
    box = Box(tmp_path, store, driver="gone")
    with pytest.raises(UserError, match="cannot go on: driver: cannot use 'gone'"):
        await box.collect()


@pytest.mark.slow
async def test_bundle_of_a_run_has_records_and_nodes_and_no_secret(
    tmp_path: Path, store: Store
) -> None:
    """Also tokens that were rotated away since, wherever they stand."""
    box = Box(tmp_path, store, label="My run")
    folder = box.started()
    records = Records(folder)
    records.marker(f"ERROR: HTTP 500 '{OLD_TOKEN}'")
    os.close(folder.open_for_child("logs/runner.out"))
    (folder.path / "logs/runner.out").write_text("shim says")
    (folder.path / "logs/a.out").write_text(f"Bearer {TOKEN}\n")
    await records.write_json("run.json", {"x": 1})
    data = folder.path / "nodes" / "mule-a" / "data"
    data.mkdir(parents=True)
    (data / "api.token").write_text(TOKEN)
    (data / "node.log").write_text(f"made {TOKEN}")
    store.add_secret(1, "token", OLD_TOKEN)
    name, members = await box.collect()
    everything = b"".join(members.values())
    assert TOKEN.encode() not in everything
    assert OLD_TOKEN.encode() not in everything
    assert member(members, "runner.out") == member(members, "logs/runner.out") == b"shim says"
    assert member(members, "mule-a/data/node.log").startswith(b"made ")
    assert not any(path.endswith("api.token") for path in members)
    assert name.startswith("soak-")
    assert "My_run" in name
    assert b'"x"' in member(members, "run.json")
    folder.close()


@pytest.mark.slow
async def test_bundle_of_a_queued_run_is_a_bundle(tmp_path: Path, store: Store) -> None:
    """`collect` works in any state; without a label the run's id names it."""
    box = Box(tmp_path, store)
    name, members = await box.collect()
    assert "-r1-" in name
    assert any(path.endswith("MANIFEST.json") for path in members)
    assert not any("logs/" in path for path in members)


@pytest.mark.slow
async def test_bundle_that_is_left_half_read_leaves_nothing(tmp_path: Path, store: Store) -> None:
    """The client went away: helpers and descriptors go too."""
    box = Box(tmp_path, store)
    folder = box.started()
    Records(folder).marker("x" * 100_000)
    before = set(os.listdir("/proc/self/fd"))
    async with open_run_bundle(box.host, box.row(), {}, full=True, keep_destinations=True):
        pass
    assert set(os.listdir("/proc/self/fd")) == before
    folder.close()


async def test_file_that_goes_away_meanwhile_is_left_out(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node ends between the listing and the opening: its pid file is gone."""
    box = Box(tmp_path, store)
    folder = box.started()
    Records(folder).marker("x")
    (folder.path / "logs/a.pid").write_text("1\n")
    opened = RunFolder.open_file

    def open_file(each: RunFolder, name: str) -> int:
        if name == "logs/a.pid":
            (each.path / name).unlink()
        return opened(each, name)

    monkeypatch.setattr(RunFolder, "open_file", open_file)
    _, members = await box.collect()
    assert not any(path.endswith("a.pid") for path in members)
    assert member(members, "logs/runner.log")
    folder.close()


def test_only_records_are_named(tmp_path: Path, store: Store) -> None:
    """No lock, no socket, no link, no half-written file, no node folder."""
    folder = Box(tmp_path, store).started()
    Records(folder).marker("x")
    for name in ("shim.lock", "run.json.tmp", "plan.json", "logs/b.out", "logs/a.pid.tmp"):
        (folder.path / name).write_text("x")
    (folder.path / "logs" / "link").symlink_to("/etc/passwd")
    (folder.path / "nodes").mkdir()
    assert sorted(record_names(folder)) == ["logs/b.out", "logs/runner.log", "plan.json"]
    folder.close()


async def test_lost_records_are_an_error_not_an_empty_bundle(tmp_path: Path, store: Store) -> None:
    """A run that had a slot had records."""
    box = Box(tmp_path, store)
    store.set_columns(1, started_at=1000.0)
    with pytest.raises(HostError, match="cannot open the run folder"):
        await box.collect()


async def test_owner_without_an_account_cannot_be_served(tmp_path: Path, store: Store) -> None:
    """Nobody's rights could be used to read the node folders."""
    box = Box(tmp_path, store)
    assert isinstance(box.host.accounts, FakeAccounts)
    box.host.accounts.gone = True
    with pytest.raises(UserError, match="the account is gone"):
        await box.collect()


@pytest.mark.slow
@pytest.mark.parametrize("owner", ["r1", "r2"])
async def test_nodes_below_a_run_root_are_packed_while_it_is_this_runs(
    tmp_path: Path, store: Store, owner: str
) -> None:
    """Its marker names the run; another's nodes are left out and the manifest says so."""
    root = tmp_path / "root"
    box = Box(tmp_path, store, run_root=str(root))
    folder = box.started()
    Records(folder).marker("x")
    (root / "mule-b").mkdir(parents=True)
    (root / "mule-b" / "seen.txt").write_text("here")
    (root / RUN_ROOT_MARKER).write_text(json.dumps({"soakd": 1, "run": owner}))
    _, members = await box.collect()
    if owner == "r1":
        assert member(members, "mule-b/seen.txt") == b"here"
    else:
        assert not any(path.endswith("seen.txt") for path in members)
        assert b"mule-b" in member(members, "MANIFEST.json")
    folder.close()


async def test_nodes_of_somebody_else_are_not_packed(tmp_path: Path, store: Store) -> None:
    """Neither their folders nor what they hold is the run's; their tokens are masked as ever."""
    box = Box(tmp_path, store)
    nodes = (replace(n, source="", token_file=f"/x/{n.name}.token") for n in box.plan.nodes)
    plan = replace(box.plan, nodes=tuple(nodes))
    box.host.store.set_columns(1, plan_json=json.dumps(plan_to_dict(plan)))
    folder = box.started()
    records = Records(folder)
    await records.write("logs/answers.ndjson", f"it said {TOKEN}\n")
    box.host.store.add_secret(1, "token", TOKEN)
    folder.close()
    _, members = await box.collect()
    assert not [name for name in members if "mule-" in name]
    assert TOKEN.encode() not in member(members, "logs/answers.ndjson")
