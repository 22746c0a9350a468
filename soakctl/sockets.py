"""Which socket is soakd's, and whether the process behind it may be believed.

A client hands its plan to whoever listens, and believes the answers: so the listener must be root
or the user.
"""

from __future__ import annotations

import os
import socket
import stat
import sys

from soakctl.failures import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM_SOCKET = "/run/soakd/soakd.sock"
# sockaddr_un holds 108 bytes with the closing NUL.
MAX_PATH_BYTES = 107
CONNECT_TIMEOUT_S = 5.0


class Choice:
    """A socket path and where it came from: `flag`, `environment`, `system` or `own`."""

    # Not a NamedTuple: making one costs half a millisecond at every start.
    __slots__ = ("origin", "path")

    def __init__(self, path: str, origin: str) -> None:
        self.path = path
        self.origin = origin


def choose(
    flag: str | None,
    environ: Mapping[str, str],
    *,
    uid: int,
    system_socket: str = SYSTEM_SOCKET,
) -> Choice:
    """Picks the socket: `--socket`, `SOAKD_SOCKET`, the system's if it is there, one's own.

    Raises:
        Failure: the folder of one's own socket belongs to someone else.
    """
    if flag:
        return Choice(flag, "flag")
    if environ.get("SOAKD_SOCKET"):
        return Choice(environ["SOAKD_SOCKET"], "environment")
    # root's own soakd is the system's one
    if uid == 0 or os.path.lexists(system_socket):
        return Choice(system_socket, "system")
    return Choice(own_path(environ, uid), "own")


def own_path(environ: Mapping[str, str], uid: int) -> str:
    """Gives the path of the socket of a soakd that runs as this user.

    Raises:
        Failure: `/tmp/soakd-<uid>` was made by someone else.
    """
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        return f"{runtime}/soakd/soakd.sock"
    folder = f"/tmp/soakd-{uid}"  # noqa: S108 - its owner is checked, as soakd does
    try:
        found = os.lstat(folder)
    except FileNotFoundError:
        return f"{folder}/soakd.sock"
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or found.st_mode & 0o022:
        raise Failure(
            "not_allowed",
            f"cannot trust {folder}: not a private folder of yours (owner uid {found.st_uid})",
            advice=["set XDG_RUNTIME_DIR to a private folder, or name the socket with --socket"],
        )
    return f"{folder}/soakd.sock"


def connect(choice: Choice, *, uid: int, environ: Mapping[str, str] = os.environ) -> socket.socket:
    """Connects and checks who listens.

    Returns:
        A connected socket; the caller closes it.

    Raises:
        Failure: nobody listens, one may not connect, or the listener is neither root nor the user.
    """
    if len(os.fsencode(choice.path)) > MAX_PATH_BYTES:
        raise Failure(
            "usage",
            f"cannot use socket {choice.path}: socket paths end at {MAX_PATH_BYTES} bytes",
        )
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(CONNECT_TIMEOUT_S)
        connection.connect(choice.path)
        check_server(connection, choice.path, uid)
    except OSError as error:
        connection.close()
        raise explain(error, choice, uid, environ) from error
    except Failure:
        connection.close()
        raise
    return connection


def check_server(connection: socket.socket, path: str, uid: int) -> None:
    """Compares the uid of whoever called listen() with root's and with one's own.

    Raises:
        Failure: a stranger listens.
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    server = int.from_bytes(raw[4:8], sys.byteorder)
    if server not in (0, uid):
        raise Failure(
            "not_allowed",
            f"cannot trust {path}: uid {server} listens there, neither root nor you (uid {uid})",
            advice=["name the right socket with --socket or SOAKD_SOCKET"],
        )


def explain(error: OSError, choice: Choice, uid: int, environ: Mapping[str, str]) -> Failure:
    """Says why one cannot connect, and what to do about it."""
    path = choice.path
    if isinstance(error, PermissionError):
        return Failure(
            "not_allowed",
            f"cannot connect to soakd at {path}: permission denied",
            advice=[
                "join its group: sudo usermod -aG soak $USER, then log in again",
                f"or use one of your own: {_own_daemon(uid, environ)}",
            ],
        )
    if isinstance(error, BlockingIOError | TimeoutError):
        return Failure(
            "refused",
            f"cannot connect to soakd at {path}: it has too many callers just now",
            advice=["try again in a moment"],
        )
    if isinstance(error, FileNotFoundError):
        cause = "there is no such socket"
    elif isinstance(error, ConnectionRefusedError):
        cause = "nobody listens there"
    else:
        cause = error.strerror or str(error)
    return Failure(
        "no_daemon",
        f"cannot reach soakd at {path}: {cause}",
        advice=_how_to_start(choice, uid, environ),
    )


def _how_to_start(choice: Choice, uid: int, environ: Mapping[str, str]) -> list[str]:
    if choice.origin in ("flag", "environment"):
        return [f"start it there: soakd --background --socket {choice.path}"]
    if choice.origin == "own" or uid == 0:
        return ["start it: soakd --background"]
    return [
        "start it: sudo systemctl start soakd",
        f"or use one of your own: {_own_daemon(uid, environ)}",
    ]


def _own_daemon(uid: int, environ: Mapping[str, str]) -> str:
    # The system's socket is there and would be chosen again, so the own one must be named.
    return f"soakd --background; export SOAKD_SOCKET={own_path(environ, uid)}"
