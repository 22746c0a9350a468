"""The sweep's bounds: in time, in memory, against nonsense and against a living shim."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from soakd.core.errors import HostError
from soakd.edge import shim_client
from soakd.edge.shim_client import ShimRefused
from soakd.shim import evidence, protocol, system
from soakd.shim.errors import VerbError
from soakd.shim.evidence import Judge, Order
from soakd.shim.sweep import Sweep, order_from
from tests.shim import harness, scene
from tests.shim.harness import RunningShim
from tests.shim.scene import BARE, Scene

pytestmark = [pytest.mark.slow, pytest.mark.safety]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has other uids")


def outcome(sweeping: Sweep) -> dict[str, object]:
    """Drive a sweep to its end."""
    harness.drain(sweeping.run())
    return sweeping.result()


def test_what_does_not_die_is_left_in_time(dead: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals that do nothing stand for a process in the kernel's grip."""
    pid = dead.orphan("sleep", "100", cwd=dead.home, env=dead.env())
    monkeypatch.setattr(protocol, "SWEEP_S", 0.2)
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *_: None)
    sweeping = scene.in_process(dead, monkeypatch)
    began_s = system.boot_now()
    assert outcome(sweeping) == {"killed": [], "spared": [], "left": [pid]}
    assert system.boot_now() - began_s < 3


def test_kernel_that_forbids_is_believed(dead: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """EPERM is no reason to try for ever."""
    pid = dead.orphan("sleep", "100", cwd=dead.home, env=dead.env())

    def forbid(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(signal, "pidfd_send_signal", forbid)
    found = outcome(scene.in_process(dead, monkeypatch))
    assert found["spared"] == [{"pid": pid, "why": "cannot be killed: Operation not permitted"}]


def test_hidden_environment_spares_in_the_folder(
    dead: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that lets nobody look may come from anywhere."""
    pid = dead.orphan("sleep", "100", cwd=dead.home)
    monkeypatch.setattr(evidence, "_environ", lambda _pid: None)
    row = evidence.look(pid)
    assert row is not None
    order = Order(str(dead.home.parent), dead.nonce, dead.started_ticks, frozenset())
    verdict = Judge(order, frozenset({row.parent})).judge(pid, row, {})
    assert verdict is not None
    assert verdict.spared == "does not show its environment"


async def test_sweep_is_refused_while_a_shim_lives(shim: RunningShim) -> None:
    """By its lock; and a shim that holds a run does not sweep, nor one with a bad order."""
    order: dict[str, object] = {"nodes_root": "/x", "nonce": "n", "started_ticks": 1}
    with pytest.raises(ShimRefused, match="absolute"):
        await shim.call("sweep", **(order | {"nodes_root": "x"}))
    await shim.begin()
    with pytest.raises(ShimRefused, match="holds a run"):
        await shim.call("sweep", **order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[shim_client.sweep_run.__module__], "LOCK_TIMEOUT_S", 0.1)
        with pytest.raises(HostError, match="still lives"):
            await Scene(shim.folder).sweep()


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": ""}, {"nonce": 1}, {"programs": 1}, {"programs": [1]}, {"nodes_root": "x"},
        {"programs": [{"dev": 1}]}, {"started_ticks": -1},
    ],
)  # fmt: skip
def test_bad_orders_are_refused(change: dict[str, object]) -> None:
    """An empty nonce would fit every process."""
    good: dict[str, object] = {"nodes_root": "/x/", "nonce": "n", "started_ticks": 1}
    assert order_from(good) == Order("/x", "n", 1, frozenset())
    with pytest.raises(VerbError):
        order_from(good | change)


@needs_root
async def test_sweeper_is_small_and_ends_with_soakd(dead_of_nobody: Scene) -> None:
    """As shipped it stays below 15 MB; EOF on its stdin in the middle of a sweep ends it."""
    made = dead_of_nobody
    fds = harness.open_fds(made.folder)
    try:
        spawned = await shim_client.spawn_shim(
            python="/usr/bin/python3", run="r7", nonce="s", shim_dir=made.folder / "shim", n=1,
            credentials=made.credentials, fds=fds, env=BARE,
        )  # fmt: skip
    finally:
        fds.close()
    try:
        link = await shim_client.connect_shim(made.folder / "shim", 1, 65534, spawned.pid)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.pump)
            order = made.order()
            answer = await link.call(
                "sweep", timeout_s=20, nodes_root=order.nodes_root, nonce=order.nonce,
                started_ticks=0, programs=[],
            )  # fmt: skip
            assert answer == {"killed": [], "spared": [], "left": []}
            text = Path(f"/proc/{spawned.pid}/status").read_text()
            peak_kb = next(int(x.split()[1]) for x in text.splitlines() if "VmHWM" in x)
            assert peak_kb <= 15 * 1024
            nursery.cancel_scope.cancel()
        await link.aclose()
        await spawned.stdin.aclose()
        with trio.fail_after(harness.GUARD_S):
            assert await spawned.process.wait() == 0
    finally:
        await spawned.abandon()


def test_heir_is_who_adopts_here() -> None:
    """Asked below a subreaper of ours, it names that one; and it stays a subreaper itself."""
    code = (
        "import os\nfrom soakd.shim import sweep, system\n"
        "system.prctl(system.PR_SET_CHILD_SUBREAPER, 1)\n"
        "read, write = os.pipe()\nparent = os.getpid()\n"
        "if os.fork() == 0:\n"
        "    os.write(write, str(sweep.heir() == parent).encode())\n    os._exit(0)\n"
        "print(os.read(read, 9).decode())\nos.wait()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=harness.ROOT, capture_output=True, check=True, text=True
    )
    assert done.stdout == "True\n"
