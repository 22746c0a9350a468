"""Which containment a run gets. That a real systemd makes its scope is for the boot test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from soakd import containment
from soakd.containment import SYSTEM_STATE, contain
from soakd.core.errors import HostError
from soakd.core.plan import ladder_s
from soakd.edge import scope
from soakd.edge.cgroup import Cgroup
from soakd.edge.config import Config
from soakd.edge.scope import ScopeOrder
from soakd.edge.store import Store
from soakd.host import Host
from tests.run.kit import make_host, make_plan

PLAN = make_plan()


@pytest.fixture
def child() -> Iterator[int]:
    """A process to contain."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def host_with(
    tmp_path: Path, store: Store, wanted: Literal["auto", "cgroup", "evidence", "scope"]
) -> Host:
    """A host whose settings want that."""
    return replace(make_host(tmp_path, store), config=Config(containment=wanted))


async def test_evidence_needs_no_cgroup(tmp_path: Path, store: Store, child: int) -> None:
    """And makes none."""
    assert await contain(host_with(tmp_path, store, "evidence"), "r1", PLAN, child) is None


async def test_host_without_cgroups_does_without_unless_they_are_wanted(
    tmp_path: Path, store: Store, child: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `auto` evidence does; with `cgroup` the admin wanted it otherwise."""
    monkeypatch.setattr(Cgroup, "create", classmethod(lambda _cls, _name: None))
    assert await contain(host_with(tmp_path, store, "auto"), "r1", PLAN, child) is None
    with pytest.raises(HostError, match="no cgroup v2 is writable here"):
        await contain(host_with(tmp_path, store, "cgroup"), "r1", PLAN, child)


async def test_scope_that_cannot_be_made_fails_the_run(
    tmp_path: Path, store: Store, child: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing weaker takes its place: the run would end with soakd's service."""

    async def refuse(order: ScopeOrder, bus: str) -> None:
        raise HostError("internal", f"cannot make {order.name}")

    monkeypatch.setattr(scope, "start_scope", refuse)
    with pytest.raises(HostError, match=r"cannot make soak-r1-[0-9a-f]{8}\.scope"):
        await contain(host_with(tmp_path, store, "scope"), "r1", PLAN, child)


@pytest.mark.parametrize("is_default", [True, False])
async def test_scope_is_the_runs_and_its_cgroup_is_read_from_the_kernel(
    tmp_path: Path,
    store: Store,
    child: int,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_default: bool,
) -> None:
    """The default state folder needs no tag; the ladder is over before systemd kills."""
    orders: list[ScopeOrder] = []
    buses: list[str] = []

    async def note(order: ScopeOrder, bus: str) -> None:
        orders.append(order)
        buses.append(bus)

    monkeypatch.setattr(scope, "start_scope", note)
    monkeypatch.setattr(
        containment, "folder_of", lambda _pid: Path("/sys/fs/cgroup/soak.slice") / orders[0].name
    )
    host = host_with(SYSTEM_STATE if is_default else tmp_path, store, "scope")
    host = replace(host, system=is_default)
    group = await contain(host, "r7", PLAN, child)
    [order] = orders
    name = "soak-r7.scope" if is_default else f"soak-r7-{host.state_tag}.scope"
    assert (order.name, order.pid) == (name, child)
    # A user's own soakd asks the user's own manager.
    assert buses == [scope.SYSTEM_BUS if is_default else f"/run/user/{host.uid}/bus"]
    assert order.stop_timeout_s > ladder_s(PLAN)
    assert group is not None
    assert group.path == Path("/sys/fs/cgroup/soak.slice") / name


async def test_shim_that_is_elsewhere_is_not_contained(
    tmp_path: Path, store: Store, child: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd with cgroup v1 says yes, and the kernel knows of no such cgroup."""

    async def lie(order: ScopeOrder, bus: str) -> None:
        pass

    monkeypatch.setattr(scope, "start_scope", lie)
    with pytest.raises(HostError, match="soakd needs systemd with cgroup v2"):
        await contain(host_with(tmp_path, store, "scope"), "r7", PLAN, child)
