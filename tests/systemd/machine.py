"""A machine with a real systemd: this host's files under an overlay, booted in a container.

Whatever becomes of the test, nothing stays: all processes are in one cgroup, all mounts in a mount
namespace. A holder keeps the namespace; its stdin is our pipe, and when that ends, because of
`close` or because we were killed, it ends the cgroup and itself.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import pytest

from soakd.edge.cgroup import Cgroup
from tests.e2e.waiting import wait_for

BOOT_GUARD_S = 60.0
COMMAND_GUARD_S = 120.0
PATHS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NEEDED = ("systemd-nspawn", "nsenter", "unshare", "dbus-daemon")
# An upper folder must be on a tmpfs; below it all changes to this host's files stay in memory.
_MOUNT = (
    "set -e; mount --make-rprivate /; mount -t tmpfs tmpfs $0; mkdir $0/upper $0/work $0/root;"
    " mount -t overlay overlay -o lowerdir=/,upperdir=$0/upper,workdir=$0/work $0/root;"
    " echo mounted; cat >/dev/null; echo 1 >$1/cgroup.kill;"
    # In a hybrid layout nspawn mirrors its cgroups in systemd's own v1 hierarchy.
    " for pause in 0 0.1 0.2 0.5 1 2; do sleep $pause; find /sys/fs/cgroup -depth -type d"
    ' "(" -path "*/$2" -o -path "*/$2/*" ")" -exec rmdir {} + && break; done 2>/dev/null'
)
_ENTER = 'echo $$ >"$0"; exec "$@"'
# basic.target: sockets, the system bus, and none of the services that this host happens to have.
_INIT = ("--boot", "systemd.unit=basic.target")


def missing_tools() -> list[str]:
    """What must be installed first."""
    return [tool for tool in NEEDED if shutil.which(tool) is None]


def cgroups_of(tester: int) -> list[Path]:
    """This host's cgroups that are there for the machine of a process."""
    folders = [Path(folder) for folder, _, _ in os.walk("/sys/fs/cgroup")]
    return [folder for folder in folders if _name_for(tester) in folder.parts]


def _name_for(tester: int) -> str:
    return f"soakd-boot-{tester}"


class Machine:
    """The machine; `boot` and `power_off` as often as wanted, `close` in the end."""

    def __init__(self, folder: Path) -> None:
        """Mounts the file system; nothing is booted yet."""
        self.folder = folder
        self._log = folder / "console.log"
        self._mount_point = folder / "mnt"
        self._mount_point.mkdir()
        name = _name_for(os.getpid())
        cgroup = Cgroup.create(name)
        assert cgroup is not None, "cannot boot a machine: no cgroup v2 is writable here"
        self._cgroup = cgroup
        self._leader = 0
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._holder = subprocess.Popen(
            [
                *("unshare", "--mount", "sh", "-c", _MOUNT, str(self._mount_point)),
                *(str(cgroup.path), name),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C is for us.
            start_new_session=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"mounted\n":
            self._holder.communicate()
            cgroup.remove()
            pytest.fail("cannot boot a machine: cannot mount an overlay of /, see stderr")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def root(self) -> Path:
        """The machine's files as seen from this host, booted or not."""
        return Path(f"/proc/{self._holder.pid}/root{self._mount_point}/root")

    # -- power ---------------------------------------------------------------------------------

    def boot(self) -> None:
        """Boot and wait until systemd has come up."""
        command = [
            *("nsenter", "--target", str(self._holder.pid), "--mount"),
            *("systemd-nspawn", "--quiet", "--directory", str(self._mount_point / "root")),
            *("--register=no", "--keep-unit", "--private-network", "--link-journal=no"),
            *("--resolv-conf=off", "--timezone=off", "--console=passive", *_INIT),
        ]
        with self._log.open("ab") as log:
            self._nspawn = subprocess.Popen(
                ["sh", "-c", _ENTER, str(self._cgroup.path / "cgroup.procs"), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={"PATH": PATHS, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        wait_for(self._is_up, "systemd is up", BOOT_GUARD_S)

    def power_off(self) -> None:
        """Switch off in good order and wait until the container has ended."""
        assert self._nspawn is not None
        self.run("systemctl poweroff")
        assert self._nspawn.wait(BOOT_GUARD_S) == 0, self._log.read_text()
        self._nspawn = None

    def pids(self) -> tuple[int, ...]:
        """Every process of the machine, with this host's numbers."""
        return self._cgroup.pids()

    def close(self) -> None:
        """End whatever is left of it; a second call does nothing."""
        self._holder.communicate(timeout=COMMAND_GUARD_S)
        if self._nspawn is not None:
            self._nspawn.wait(BOOT_GUARD_S)

    def cgroups(self) -> list[Path]:
        """This host's cgroups that are there for the machine."""
        return cgroups_of(os.getpid())

    # -- commands ------------------------------------------------------------------------------

    def run(
        self,
        script: str,
        user: str = "root",
        env: Mapping[str, str] | None = None,
        status: int = 0,
        cwd: str = "/",
    ) -> str:
        """Run a shell script in the machine; returns what it printed."""
        variables = [f"{name}={value}" for name, value in (env or {}).items()]
        home = "/root" if user == "root" else f"/home/{user}"
        done = subprocess.run(
            [
                *("nsenter", "--target", str(self._leader), "--all", "runuser", "-u", user, "--"),
                *("env", "-i", f"PATH={PATHS}", f"HOME={home}", "LANG=C.UTF-8", *variables),
                *("sh", "-e", "-c", f"cd {shlex.quote(cwd)}\n{script}"),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_GUARD_S,
            check=False,
        )
        said = f"{script!r} as {user}: {done}"
        assert done.returncode == status, said
        return done.stdout

    def json(self, script: str, user: str = "root", **options: Any) -> Any:
        """Run a shell script that prints JSON."""
        return json.loads(self.run(script, user, **options))

    def path(self, path: str) -> Path:
        """Where this host finds a file of the booted machine."""
        return Path(f"/proc/{self._leader}/root") / path.lstrip("/")

    def open(self, path: str) -> IO[str]:
        """Open a file of the machine; it stays readable when the machine is off."""
        return self.path(path).open()

    def console(self) -> str:
        """What was printed while it booted."""
        return self._log.read_text(errors="replace")

    # -- inner ---------------------------------------------------------------------------------

    def _is_up(self) -> bool:
        assert self._nspawn is not None
        assert self._nspawn.poll() is None, f"nspawn ended: {self.console()}"
        pid = self._nspawn.pid
        # The first child only sets things up; the last one is the machine's init.
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if not children:
            return False
        self._leader = int(children[-1])
        done = subprocess.run(
            [*("nsenter", "--target", str(self._leader), "--all"),
             *("systemctl", "is-system-running")],
            capture_output=True, text=True, timeout=COMMAND_GUARD_S, check=False,
        )  # fmt: skip
        return done.stdout.strip() in ("running", "degraded")
