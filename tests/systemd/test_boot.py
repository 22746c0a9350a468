"""soakd as a service of a machine that was really booted, installed as docs/install.md says.

The tests of this file share the machine and leave an idle soakd behind; the last one uninstalls it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from soakctl.session import Session
from tests.e2e.box import FAST_NODES, FAST_WAITS
from tests.e2e.host import alive
from tests.e2e.waiting import wait_for
from tests.systemd.document import ROOT, blocks
from tests.systemd.machine import Machine, cgroups_of, missing_tools
from tests.systemd.packages import write_wheels

pytestmark = [
    pytest.mark.boot,
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root boots a machine"),
]

CLONE, WHEELS = "/srv/soakd", "/srv/wheels"
# What differs from a real installation: packages come from a folder, not from a network.
OFFLINE = {
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": WHEELS,
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
}
Status = dict[str, Any]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Yield a booted machine with soakd installed, three users, and nodes of alice's and bob's."""
    assert missing_tools() == [], "cannot boot a machine: .ci/run installs what is missing"
    folder = tmp_path_factory.mktemp("machine")
    with Machine(folder) as machine:
        _bring_packages(machine)
        machine.boot()
        # This host may be a box where soakd is installed; the overlay forgets it.
        machine.run("rm -rf /opt/soakd /etc/soakd /var/lib/soakd /run/soakd")
        for user in ("alice", "bob", "mallory"):
            machine.run(f"useradd --create-home --shell /bin/sh {user}")
        version = machine.run("python3 -c 'import sys; print(*sys.version_info[:2])'").split()
        assert tuple(map(int, version)) == sys.version_info[:2], "run the tests with its python3"
        machine.run(blocks()["Install"], cwd=CLONE, env=OFFLINE)
        machine.run(blocks()["Groups"])
        for user in ("alice", "bob"):
            _install_nodes(machine, user)
        try:
            yield machine
        finally:
            # Shown by pytest when a test has failed.
            print(machine.run("journalctl --no-pager -u 'soak*' -n 60 -o cat || true")[-8000:])  # noqa: T201
    assert machine.cgroups() == []
    assert str(folder) not in Path("/proc/mounts").read_text()


def _bring_packages(machine: Machine) -> None:
    clone = machine.root / CLONE[1:]
    for name in ("soakd", "soakctl", "systemd"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, clone / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, clone / name)
    wheels = machine.root / WHEELS[1:]
    wheels.mkdir()
    write_wheels(wheels, ROOT / "pyproject.toml")


def _install_nodes(machine: Machine, user: str) -> None:
    sim = " ".join(f"--set {key}={value}" for key, value in FAST_NODES.items())
    for name, port in (("mule-a", 17835), ("mule-b", 17836)):
        command = "/opt/soakd/bin/python -m soakd.simnode install"
        machine.run(
            f"{command} ~/{name} --port {port} --session-name {name} --python /usr/bin/python3"
            f" --set 'outcomes=[\"hit\"]' {sim}",
            user,
        )


# -- small helpers -----------------------------------------------------------------------------


def start(machine: Machine, user: str, arguments: str) -> str:
    """Start a soak of the user's two nodes; its id."""
    command = f"A_SRC=~/mule-a B_SRC=~/mule-b soakctl --json start {arguments}"
    run = machine.json(command, user, env=FAST_WAITS)["id"]
    assert isinstance(run, str)
    return run


def status(machine: Machine, run: str) -> Status:
    """The run as root sees it; asked without a process, for it is asked again and again."""
    session = Session(socket=str(machine.path("/run/soakd/soakd.sock")), json=True, environ={})
    with session.connect() as client:
        found: Status = client.call("run.status", {"run": run})
        return found


def until_rounds(machine: Machine, run: str, count: int) -> Status:
    """The first status with so many rounds."""

    def look() -> Status | None:
        found = status(machine, run)
        assert found["state"] != "finished", found
        return found if found["rounds"]["total"] >= count else None

    found = wait_for(look, f"{count} rounds of {run}")
    assert found is not None
    return found


def show(machine: Machine, unit: str, name: str) -> str:
    """A property of a unit."""
    return machine.run(f"systemctl show --value -p {name} {unit}").strip()


def scopes(machine: Machine) -> list[str]:
    """The scopes that systemd knows."""
    listed = machine.run("systemctl list-units --all --plain --no-legend 'soak-*.scope'")
    return [line.split()[0] for line in listed.splitlines()]


def cgroup(machine: Machine, pid: int) -> str:
    """The cgroup of a process, by its number inside the machine."""
    return machine.run(f"grep ^0:: /proc/{pid}/cgroup").strip()[3:]


def filters(machine: Machine, pid: int) -> str:
    """How many system call filters a process has inherited."""
    return machine.run(f"grep ^Seccomp_filters: /proc/{pid}/status")


@pytest.fixture(autouse=True)
def idle(request: pytest.FixtureRequest) -> Iterator[None]:
    """Stop what a failed test has left: others wait for the slot else."""
    yield
    if "machine" in request.fixturenames:
        machine: Machine = request.getfixturevalue("machine")
        # Uninstalled, it lists nothing. The newest first: what waits must not get the slot.
        for run in machine.json("soakctl --json list --all 2>/dev/null || echo []"):
            if run["state"] != "finished":
                machine.run(f"soakctl stop {run['id']}")


# -- the tests ---------------------------------------------------------------------------------


def test_units_are_fine_where_they_are_installed(machine: Machine) -> None:
    """systemd-analyze looks at them in place, the program included."""
    units = "soakd.service soakd.socket soak.slice"
    assert machine.run(f"cd /etc/systemd/system && systemd-analyze verify {units} 2>&1") == ""


def test_soakd_starts_with_the_first_client(machine: Machine) -> None:
    """By its socket, which lets in who is in the group, and root."""
    machine.run("systemctl stop soakd.service")
    assert show(machine, "soakd.socket", "ActiveState") == "active"
    assert machine.run("stat -c '%U:%G %a' /run/soakd/soakd.sock") == "root:soak 660\n"
    assert "permission denied" in machine.run("soakctl list 2>&1", "mallory", status=77)
    assert show(machine, "soakd.service", "ActiveState") == "inactive"
    info = machine.json("soakctl --json daemon info", "alice")
    assert (info["mode"], info["socket"]) == ("system", "/run/soakd/soakd.sock")
    assert show(machine, "soakd.service", "ActiveState") == "active"
    assert show(machine, "soakd.service", "MainPID") == str(info["pid"])
    assert show(machine, "soakd.service", "StatusText") == "serving: 0 running, 0 queued"
    assert int(show(machine, "soakd.service", "WatchdogTimestampMonotonic")) > 0


def test_two_users_soak_one_after_the_other_over_restarts_of_soakd(machine: Machine) -> None:
    """An upgrade and a crash in mid-soak cost a gap each; the nodes do not notice."""
    machine.run(blocks()["First soak"], "alice", env=FAST_WAITS)
    run = machine.json("soakctl --json list", "alice")[0]["id"]
    queued = start(machine, "bob", "--rounds 2")
    before = until_rounds(machine, run, 2)
    pids = [node["pid"] for node in before["nodes"]]
    scope = f"soak-{run}.scope"
    assert {cgroup(machine, pid) for pid in pids} == {f"/soak.slice/{scope}"}
    assert machine.run(f"stat -c %U /proc/{pids[0]}").strip() == "alice"
    # Nothing of the service's hardening filters what a node calls; nspawn's own filters all.
    assert filters(machine, pids[0]) == filters(machine, 1)
    wait_for(
        lambda: show(machine, "soakd.service", "StatusText") == "serving: 1 running, 1 queued",
        "what systemctl shows of both",
    )

    machine.run(blocks()["Upgrade"], cwd=CLONE, env=OFFLINE)
    after = until_rounds(machine, run, before["rounds"]["total"] + 2)
    assert [node["pid"] for node in after["nodes"]] == pids
    assert [gap["why"] for gap in after["gaps"]] == ["soakd was away"]

    main = show(machine, "soakd.service", "MainPID")
    machine.run(f"kill -KILL {main}")
    wait_for(lambda: show(machine, "soakd.service", "MainPID") not in ("0", main), "a new soakd")
    again = until_rounds(machine, run, after["rounds"]["total"] + 2)
    assert [node["pid"] for node in again["nodes"]] == pids
    assert len(again["gaps"]) == 2
    assert show(machine, "soakd.service", "NRestarts") == "1"

    assert status(machine, queued)["state"] == "queued"
    machine.run(f"soakctl stop {run}", "alice")
    assert [node["exit"]["code"] for node in status(machine, run)["nodes"]] == [0, 0]
    final = machine.json(f"soakctl --json wait {queued}", "bob")
    assert (final["owner"], final["verdict"]) == ("bob", "passed")
    wait_for(lambda: scopes(machine) == [], "no scope is left")


def test_stopping_soakd_lets_soaks_go_on(machine: Machine) -> None:
    """Within two seconds; its socket stays, and the next client brings it back."""
    run = start(machine, "alice", "2h")
    before = until_rounds(machine, run, 1)
    machine.run("timeout 2 systemctl stop soakd.service")
    pids = [node["pid"] for node in before["nodes"]]
    assert {cgroup(machine, pid) for pid in pids} == {f"/soak.slice/soak-{run}.scope"}
    after = until_rounds(machine, run, before["rounds"]["total"] + 1)
    assert [node["pid"] for node in after["nodes"]] == pids
    machine.run(f"soakctl stop {run}", "bob")
    assert status(machine, run)["cause"]["text"] == "stopped by bob"


def test_stopping_the_slice_ends_all_soaks(machine: Machine) -> None:
    """Politely: the nodes end as they do at SIGINT, and soaks can be started again."""
    machine.run(blocks()["Settings"])
    run = start(machine, "alice", "2h")
    until_rounds(machine, run, 1)
    machine.run("systemctl stop soak.slice")
    final = machine.json(f"soakctl --json wait {run} || true")
    assert (final["result"], final["verdict"]) == ("aborted", "aborted"), final
    assert [node["exit"]["code"] for node in final["nodes"]] == [0, 0]
    assert "the shim was told to stop (SIGINT)" in final["cause"]["text"]
    assert scopes(machine) == []
    again = start(machine, "bob", "--rounds 1")
    assert machine.json(f"soakctl --json wait {again}", "bob")["verdict"] == "passed"


def test_soakd_of_a_users_own_may_be_a_service_of_the_users_manager(machine: Machine) -> None:
    """Its runs get scopes of that manager, and outlive a restart of it."""
    machine.run("loginctl enable-linger bob")
    uid = machine.run("id -u", "bob").strip()
    place = {"XDG_RUNTIME_DIR": f"/run/user/{uid}"}
    socket = {"SOAKD_SOCKET": f"/run/user/{uid}/soakd/soakd.sock"}
    bus = Path(f"/run/user/{uid}/bus")
    wait_for(lambda: machine.run(f"test -S {bus} && echo there || true"), "the manager of bob")
    unit = "systemd-run --user --quiet --unit=soakd --property=Type=notify"
    machine.run(f"{unit} /opt/soakd/bin/soakd", "bob", env=place)
    command = "A_SRC=~/mule-a B_SRC=~/mule-b soakctl --json start 2h"
    run = machine.json(command, "bob", env={**FAST_WAITS, **socket})["id"]

    def pids() -> list[int]:
        found = machine.json("soakctl --json status", "bob", env=socket)
        assert found["state"] != "finished", found
        return [node["pid"] for node in found["nodes"] if found["state"] == "running"]

    before = wait_for(pids, "rounds")
    manager = f"/user.slice/user-{uid}.slice/user@{uid}.service/soak.slice/soak-{run}-"
    assert all(cgroup(machine, pid).startswith(manager) for pid in before)
    machine.run("systemctl --user restart soakd", "bob", env=place)
    assert wait_for(pids, "rounds again") == before
    machine.run("soakctl stop", "bob", env=socket)
    machine.run("systemctl --user stop soakd", "bob", env=place)
    machine.run("loginctl disable-linger bob")


def test_power_off_ends_nodes_politely_and_leaves_nothing(machine: Machine) -> None:
    """soakd lets go first, then the scopes get SIGINT; the next boot knows what became of it."""
    run = start(machine, "alice", "2h")
    until_rounds(machine, run, 1)
    with machine.open(f"/var/lib/soakd/runs/{run}/shim.ndjson") as journal:
        machine.power_off()
        events = [json.loads(line) for line in journal]
    assert machine.pids() == ()
    assert [path for path in machine.cgroups() if path.name.startswith("soak.")] == []
    ended = {event["node"]: event["code"] for event in events if event["event"] == "node_exited"}
    assert ended == {"a": 0, "b": 0}
    assert events[-1]["event"] == "ended"
    machine.boot()
    found = machine.json(f"soakctl --json wait {run} || true")
    assert found["result"] == "aborted", found
    assert "restarted" in found["cause"]["text"]
    again = start(machine, "bob", "--rounds 1")
    assert machine.json(f"soakctl --json wait {again}", "bob")["verdict"] == "passed"


def test_uninstalling_leaves_nothing(machine: Machine) -> None:
    """The document takes away whatever it has brought."""
    run = start(machine, "alice", "2h")
    until_rounds(machine, run, 1)
    machine.run(blocks()["Uninstall"])
    left = machine.run("find /etc /opt /run /usr/local /var -xdev -iname '*soak*' || true")
    kept = [path for path in left.splitlines() if "/journal/" not in path]
    assert kept == []
    assert machine.run("getent group soak soak-admin || true") == ""
    assert machine.run("pgrep -f '[s]oak-shim|[r]ust-mule|[s]oakd' || true") == ""
    assert scopes(machine) == []


def test_machine_of_a_killed_test_is_gone(tmp_path: Path) -> None:
    """No process, no mount and no cgroup of it survives, though the test could not clean up."""
    code = (
        "import sys; from pathlib import Path; from tests.systemd.machine import Machine\n"
        "machine = Machine(Path(sys.argv[1])); machine.boot()\n"
        "print(*machine.pids(), flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as tester:  # fmt: skip
        assert tester.stdout is not None
        pids = tester.stdout.readline().split()
        assert len(pids) > 2
        tester.send_signal(signal.SIGKILL)
    wait_for(lambda: not any(map(alive, map(int, pids))), "the end of its processes")
    wait_for(lambda: cgroups_of(tester.pid) == [], "the end of its cgroups")
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
