"""Several users on one box: accounts that only this soakd sees, in a mount namespace of its own."""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgpack

from tests.e2e.box import ROOT, Box, Done
from tests.e2e.host import node_python
from tests.e2e.waiting import STOP_GUARD_S

_ACCOUNTS = ("/etc/passwd", "/etc/group")
_SEE_ACCOUNTS = 'for f in passwd group; do mount --bind "$0/$f" "/etc/$f"; done; exec "$@"'
SOAK, SOAK_ADMIN, TESTERS = 61_900, 61_901, 61_902


@dataclass(frozen=True)
class User:
    """An account; `groups` are those beside its own."""

    name: str
    uid: int
    groups: tuple[int, ...]

    def popen(self) -> dict[str, Any]:
        """What makes subprocess become the user."""
        return {"user": self.uid, "group": self.uid, "extra_groups": list(self.groups)}


ALICE = User("alice-e2e", 61_001, (SOAK, TESTERS))
BOB = User("bob-e2e", 61_002, (SOAK,))
CAROL = User("carol-e2e", 61_003, (SOAK, SOAK_ADMIN))
MALLORY = User("mallory-e2e", 61_004, ())
_USERS = (ALICE, BOB, CAROL, MALLORY)


@cache
def why_not() -> str | None:
    """Why soakd cannot be run with other accounts here; None if it can."""
    if os.geteuid() != 0:
        return "only root runs soakd in system mode"
    tried = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return None if tried.returncode == 0 else f"no mount namespace: {tried.stderr.decode().strip()}"


class SharedBox(Box):
    """A box whose soakd has users; `as_user` runs soakctl as one of them."""

    def __init__(self, folder: Path) -> None:
        """Makes the accounts, and copies soakctl to where every user can read it."""
        folder.chmod(0o755)
        super().__init__(folder)
        accounts = folder / "accounts"
        accounts.mkdir()
        self.wrapper = ("unshare", "-m", "sh", "-c", _SEE_ACCOUNTS, str(accounts))
        homes = [folder / "home" / user.name for user in _USERS]
        for user, home in zip(_USERS, homes, strict=True):
            home.mkdir()
            os.chown(home, user.uid, user.uid)
        self._write_accounts(accounts, homes)
        self.library = folder / "lib"
        for package in (ROOT / "soakctl", ROOT / "soakd", Path(msgpack.__file__).parent):
            shutil.copytree(package, self.library / package.name)
        # Users may not write there: each soakctl of theirs would compile it anew.
        compileall.compile_dir(self.library, quiet=1)

    def home(self, user: User) -> Path:
        """A folder that belongs to the user."""
        return self.folder / "home" / user.name

    def spawn_as(
        self, user: User, *args: str, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start soakctl as a user, in the user's home."""
        return self.spawn(
            [node_python(), "-m", "soakctl", "--socket", str(self.socket), *args],
            env={**(env or {}), "PYTHONPATH": str(self.library), "HOME": str(self.home(user))},
            cwd=self.home(user),
            **user.popen(),
        )

    def as_user(
        self, user: User, *args: str, status: int = 0, env: Mapping[str, str] | None = None
    ) -> Done:
        """Run soakctl as a user to its end, which must come with this exit status."""
        with self.spawn_as(user, *args, env=env) as process:
            out, err = process.communicate(timeout=STOP_GUARD_S)
        done = Done(out, err, process.returncode)
        assert done.status == status, done
        assert "Traceback" not in done.err
        return done

    def start_as(self, user: User, *args: str, **variables: str) -> str:
        """Start a soak as a user."""
        plan = self.plan_env(**variables)
        run: str = self.as_user(user, "--json", "start", *args, env=plan).json()["id"]
        return run

    def shell(self, user: User, script: str) -> bool:
        """Whether a shell script succeeds as a user."""
        done = subprocess.run(
            ["sh", "-c", script], cwd="/", capture_output=True, check=False, **user.popen()
        )
        return done.returncode == 0

    def _write_accounts(self, folder: Path, homes: list[Path]) -> None:
        users = [
            f"{user.name}:x:{user.uid}:{user.uid}::{home}:/bin/sh\n"
            for user, home in zip(_USERS, homes, strict=True)
        ]
        own = [f"{user.name}:x:{user.uid}:\n" for user in _USERS]
        named = {"soak": SOAK, "soak-admin": SOAK_ADMIN, "testers-e2e": TESTERS}
        common = [
            f"{name}:x:{gid}:{','.join(user.name for user in _USERS if gid in user.groups)}\n"
            for name, gid in named.items()
        ]
        lines = {"passwd": users, "group": [*own, *common]}
        for path in map(Path, _ACCOUNTS):
            (folder / path.name).write_text(path.read_text() + "".join(lines[path.name]))
