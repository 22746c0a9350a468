from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path
from typing import cast

import pytest

from soakctl import sockets
from soakctl.failures import Failure
from soakctl.sockets import Choice

UID = os.getuid()
# Nobody has it: the folder of that uid can be made by us, and is then a stranger's.
STRANGER = 61234


def test_the_flag_wins_then_the_variable_then_the_system_then_ones_own(tmp_path: Path) -> None:
    """The order of design §8."""
    system = tmp_path / "soakd.sock"
    environ = {"SOAKD_SOCKET": "/e/s.sock", "XDG_RUNTIME_DIR": "/run/user/1000"}

    def chosen(flag: str | None, environ: dict[str, str]) -> tuple[str, str]:
        choice = sockets.choose(flag, environ, uid=1000, system_socket=str(system))
        return choice.path, choice.origin

    system.touch()
    assert chosen("/f/s.sock", environ) == ("/f/s.sock", "flag")
    assert chosen(None, environ) == ("/e/s.sock", "environment")
    del environ["SOAKD_SOCKET"]
    assert chosen(None, environ) == (str(system), "system")
    system.unlink()
    assert chosen(None, environ) == ("/run/user/1000/soakd/soakd.sock", "own")
    assert chosen(None, {}) == ("/tmp/soakd-1000/soakd.sock", "own")
    assert chosen(None, {"XDG_RUNTIME_DIR": "relative"}) == ("/tmp/soakd-1000/soakd.sock", "own")


def test_roots_own_socket_is_the_systems() -> None:
    """A soakd started by root is the system's one."""
    assert sockets.choose(None, {"XDG_RUNTIME_DIR": "/x"}, uid=0).path == sockets.SYSTEM_SOCKET


def test_a_folder_in_tmp_that_is_a_strangers_is_not_trusted() -> None:
    """Anyone can make /tmp/soakd-<uid> before its owner does."""
    folder = Path(f"/tmp/soakd-{STRANGER}")
    folder.mkdir(mode=0o700)
    try:
        with pytest.raises(Failure, match="not a private folder of yours") as caught:
            sockets.own_path({}, STRANGER)
    finally:
        folder.rmdir()
    assert caught.value.code == "not_allowed"


def test_no_socket_says_how_to_start_soakd(short_dir: Path) -> None:
    """69, and the command to type, with the socket that was named."""
    path = str(short_dir / "none.sock")
    with pytest.raises(Failure) as caught:
        sockets.connect(Choice(path, "flag"), uid=UID)
    assert caught.value.code == "no_daemon"
    assert caught.value.message == f"cannot reach soakd at {path}: there is no such socket"
    assert caught.value.advice == (f"start it there: soakd --background --socket {path}",)


def test_a_socket_left_behind_says_that_nobody_listens(short_dir: Path) -> None:
    """A killed soakd leaves its socket."""
    path = short_dir / "s.sock"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    with pytest.raises(Failure, match="nobody listens there") as caught:
        sockets.connect(Choice(str(path), "own"), uid=UID)
    assert caught.value.advice == ("start it: soakd --background",)


def test_a_path_too_long_for_a_socket_is_a_usage_error() -> None:
    """The kernel would only say that the address is wrong."""
    with pytest.raises(Failure, match="107 bytes") as caught:
        sockets.connect(Choice("/" + 107 * "x", "flag"), uid=UID)
    assert caught.value.code == "usage"


@pytest.mark.parametrize(
    ("number", "code", "hint"),
    [
        (errno.EACCES, "not_allowed", "usermod -aG soak"),
        (errno.EAGAIN, "refused", "try again"),
        (errno.ENOTDIR, "no_daemon", "sudo systemctl start soakd"),
    ],
)
def test_each_refusal_names_the_next_step(number: int, code: str, hint: str) -> None:
    """Not in the group, too many callers, not a socket at all."""
    error = OSError(number, os.strerror(number))
    failure = sockets.explain(error, Choice("/run/soakd/soakd.sock", "system"), 1000, {})
    assert failure.code == code
    assert any(hint in advice for advice in failure.advice)


def test_who_may_not_use_the_system_soakd_is_told_of_an_own_one() -> None:
    """With the very variable to set."""
    error = PermissionError(errno.EACCES, "denied")
    environ = {"XDG_RUNTIME_DIR": "/run/user/1000"}
    failure = sockets.explain(error, Choice("/run/soakd/soakd.sock", "system"), 1000, environ)
    assert "SOAKD_SOCKET=/run/user/1000/soakd/soakd.sock" in failure.advice[1]


class _FromUid:
    """A connected socket whose listener has this uid."""

    def __init__(self, uid: int) -> None:
        self._uid = uid

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option, size) == (socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return struct.pack("iII", 1, self._uid, 0)


def test_only_root_and_oneself_may_be_the_server() -> None:
    """Anyone can listen on a path in a world-writable folder."""
    for trusted in (0, 1000):
        sockets.check_server(cast("socket.socket", _FromUid(trusted)), "/s", 1000)
    with pytest.raises(Failure, match=r"uid 1001 listens there") as caught:
        sockets.check_server(cast("socket.socket", _FromUid(1001)), "/s", 1000)
    assert caught.value.code == "not_allowed"
