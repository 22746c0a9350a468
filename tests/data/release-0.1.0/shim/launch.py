"""Fork and exec of a node, by hand: a session of its own, a clean slate, and proof that it ran.

`subprocess` can do most of it but not PDEATHSIG, and costs memory; `posix_spawn` cannot change
the folder. Forking is safe here because this process has no threads.
"""

from __future__ import annotations

import fcntl
import os
import resource
import select
import signal
from typing import NamedTuple, NoReturn

from soakd.shim import files, system
from soakd.shim.errors import VerbError, from_os

EXEC_TIMEOUT_MS = 10_000
STDERR_PIPE_BYTES = 1024 * 1024

_LIMITS = {
    name: getattr(resource, f"RLIMIT_{name}")
    for name in ("AS", "CORE", "CPU", "DATA", "FSIZE", "MEMLOCK", "NOFILE", "NPROC", "STACK")
}


class Launch(NamedTuple):
    """What to execute; `out` receives stdout, `folder` is the node folder's descriptor."""

    folder: int
    out: int
    argv: list[str]
    env: dict[str, str]
    limits: dict[int, tuple[int, int]]


class Launched(NamedTuple):
    """A child that has executed its program; `stderr` is the reading end of its pipe."""

    pid: int
    stderr: int


def limits_from(wanted: dict[str, int]) -> dict[int, tuple[int, int]]:
    """Resource limits by kernel number, never above the hard limits this process has.

    Raises:
        VerbError: an unknown name or a negative value.
    """
    limits = {}
    for name, value in ({"CORE": 0} | wanted).items():
        if name not in _LIMITS or value < 0:
            raise VerbError(
                "bad_params", f"cannot set limit {name} to {value}: unknown or negative"
            )
        hard = resource.getrlimit(_LIMITS[name])[1]
        ceiling = value if hard == resource.RLIM_INFINITY else min(value, hard)
        limits[_LIMITS[name]] = (ceiling, ceiling)
    return limits


def program_facts(folder: int, program: str) -> tuple[os.stat_result, bool]:
    """The staged program's identity, and whether it is a `#!` file.

    Raises:
        VerbError: it is missing, a link, or not a regular file.
    """
    fd = files.open_file(folder, program)
    try:
        return os.fstat(fd), os.pread(fd, 2, 0) == b"#!"
    finally:
        os.close(fd)


def launch(plan: Launch) -> Launched:
    """Start a node and wait until its program was executed.

    Raises:
        VerbError: it could not be executed; nothing is left of the attempt.
    """
    error_read, error_write = os.pipe2(os.O_CLOEXEC)
    stderr_read, stderr_write = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    # A signal between fork and exec would run our handlers in the child, on our wake-up pipe.
    old = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _child(plan, stderr_write, error_write, parent)
    except OSError as exc:
        os.close(error_read)
        os.close(stderr_read)
        raise from_os(exc, "fork a node") from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
        os.close(error_write)
        os.close(stderr_write)
    try:
        _await_exec(pid, error_read, plan.argv[0])
    except BaseException:
        os.close(stderr_read)
        raise
    finally:
        os.close(error_read)
    os.set_blocking(stderr_read, False)
    _widen(stderr_read)
    return Launched(pid, stderr_read)


def _widen(pipe: int) -> None:
    """Let the node write on while we sit in a slow fdatasync, as far as the kernel allows."""
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, STDERR_PIPE_BYTES)
    except OSError:
        return


def _await_exec(pid: int, error_read: int, program: str) -> None:
    poll = select.poll()
    poll.register(error_read, select.POLLIN)
    report = os.read(error_read, 200) if poll.poll(EXEC_TIMEOUT_MS) else b"exec:110"
    if not report:
        return
    system.send_signal(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    step, _, number = report.decode("ascii", "replace").rpartition(":")
    cause = os.strerror(int(number))
    raise VerbError("exec_failed", f"cannot execute {program}: {cause} (at {step})")


def _child(plan: Launch, stderr: int, error: int, parent: int) -> NoReturn:
    step = "setsid"
    try:
        os.setsid()
        step = "signals"
        _reset_signals()
        step = "prctl"
        system.prctl(system.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(127)
        step = "limits"
        for number, limit in plan.limits.items():
            resource.setrlimit(number, limit)
        step = "descriptors"
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(plan.out, 1)
        os.dup2(stderr, 2)
        step = "chdir"
        os.fchdir(plan.folder)
        step = "exec"
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execve(plan.argv[0], plan.argv, plan.env)  # noqa: S606 - a shell is what nobody wants
    except OSError as exc:
        os.write(error, f"{step}:{exc.errno}".encode("ascii"))
    except BaseException:  # noqa: BLE001 - nothing of the shim may go on in the child
        os.write(error, f"{step}:22".encode("ascii"))
    finally:
        os._exit(127)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    fixed = {signal.SIGKILL, signal.SIGSTOP}
    for number in signal.valid_signals() - fixed:
        signal.signal(number, signal.SIG_DFL)


def evidence(pid: int, folder: int, program: os.stat_result) -> dict[str, object]:
    """What the kernel says about a launched process, for the comparison with what was staged.

    Values are None where the process is already gone.
    """
    exe = _identity(f"/proc/{pid}/exe")
    cwd = _identity(f"/proc/{pid}/cwd")
    home = os.fstat(folder)
    return {
        "exe_dev": exe[0],
        "exe_ino": exe[1],
        "file_dev": program.st_dev,
        "file_ino": program.st_ino,
        "cwd_ok": cwd == (home.st_dev, home.st_ino),
    }


def _identity(path: str) -> tuple[int | None, int | None]:
    try:
        info = os.stat(path)
    except OSError:
        return None, None
    return info.st_dev, info.st_ino


def inspect(pid: int) -> dict[str, object]:
    """Working folder, program and arguments of a node as the kernel shows them.

    Raises:
        VerbError: it is gone or hides itself.
    """
    try:
        cwd = os.readlink(f"/proc/{pid}/cwd")
        exe = os.readlink(f"/proc/{pid}/exe")
        fd = os.open(f"/proc/{pid}/cmdline", os.O_RDONLY | os.O_CLOEXEC)
        try:
            line = os.read(fd, 4096)
        finally:
            os.close(fd)
    except OSError as exc:
        raise from_os(exc, f"look at process {pid}") from None
    argv = [os.fsdecode(word) for word in line.split(b"\0")[:-1]]
    return {"cwd": cwd, "exe": exe, "argv": argv}
