"""The unit files: systemd takes them as they are, and the document installs all of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from soakd.edge import listen, peers, scope
from soakd.edge.config import default_paths
from tests.systemd.document import ROOT, blocks

UNITS = ROOT / "systemd"
PROGRAM = "/opt/soakd/bin/soakd"


def settings(name: str) -> dict[str, list[str]]:
    """Return the settings of a unit file, each with all its values."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_systemd_has_no_complaint(tmp_path: Path) -> None:
    """`systemd-analyze verify` is clean; only the program's place is one that exists here."""
    tool = shutil.which("systemd-analyze")
    assert tool, "cannot verify the units: there is no systemd-analyze; apt-get install systemd"
    names = [
        path.name for path in UNITS.iterdir() if path.suffix in (".service", ".socket", ".slice")
    ]
    assert sorted(names) == ["soak.slice", "soakd.service", "soakd.socket"]
    for name in names:
        text = (UNITS / name).read_text()
        (tmp_path / name).write_text(text.replace(PROGRAM, sys.executable))
    done = subprocess.run(
        [tool, "verify", "--man=no", *sorted(str(tmp_path / name) for name in names)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_units_name_what_the_program_uses() -> None:
    """Socket, state, group and slice are the same on both sides."""
    paths = default_paths(0, {})
    socket = settings("soakd.socket")
    assert socket["ListenStream"] == [str(paths.socket)]
    assert socket["SocketGroup"] == [listen.GROUP]
    assert socket["SocketMode"] == ["0660"]
    folders = (UNITS / "soakd.tmpfiles").read_text()
    assert f"d {paths.socket.parent} 0755 root root" in folders
    assert f"d {paths.state} 0711 root root" in folders
    groups = (UNITS / "soakd.sysusers").read_text()
    assert f"\ng {peers.MEMBER_GROUP} " in groups
    assert f"\ng {peers.ADMIN_GROUP} " in groups
    assert (UNITS / scope.SLICE).exists()
    assert (UNITS / scope.SERVICE).exists()


def test_stopping_the_service_touches_no_run() -> None:
    """Nothing in the unit reaches beyond soakd's own process, and nothing of runs hangs on it."""
    service = settings("soakd.service")
    assert service["Type"] == ["notify"]
    assert service["Restart"] == ["on-failure"]
    assert service["ExecStart"] == [PROGRAM]
    for key in ("KillMode", "Delegate", "FileDescriptorStoreMax", "RuntimeDirectory"):
        assert key not in service


@pytest.mark.parametrize(
    "key",
    [
        "PrivateTmp", "PrivateUsers", "PrivateNetwork", "PrivateDevices", "ProtectHome",
        "ProtectProc", "ProtectControlGroups", "ProtectHostname", "MemoryDenyWriteExecute",
        "SystemCallFilter", "SystemCallArchitectures", "RestrictNamespaces",
        "RestrictAddressFamilies", "RestrictSUIDSGID", "LockPersonality", "DynamicUser", "User",
        "LimitNOFILE", "ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs",
        "ProtectClock", "RestrictRealtime",
    ],
)  # fmt: skip
def test_nodes_inherit_no_restriction_that_users_do_not_have(key: str) -> None:
    """A soak behaves as if its user had started it: docs/design/systemd.md."""
    assert key not in settings("soakd.service")


def test_document_installs_every_file() -> None:
    """And takes away again what it has installed."""
    text = blocks()
    for path in UNITS.iterdir():
        assert f"systemd/{path.name}" in text["Install"]
        kind = {".sysusers": "sysusers.d", ".tmpfiles": "tmpfiles.d"}.get(path.suffix)
        place = f"/etc/{kind}/soakd.conf" if kind else f"/etc/systemd/system/{path.name}"
        assert place in text["Uninstall"]
        if kind is None:
            assert f"systemd/{path.name}" in text["Upgrade"]


def test_document_has_the_blocks_that_the_boot_test_runs() -> None:
    """A renamed heading must not leave a block untested."""
    ran = {"Install", "Groups", "Settings", "First soak", "Upgrade", "Uninstall"}
    assert set(blocks()) == ran
