"""Carries out the faults: what each kind of the table does to a node."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable

from soakd.simnode import faults
from soakd.simnode.control import Control
from soakd.simnode.descendants import fork, take_port
from soakd.simnode.failures import FAILURES
from soakd.simnode.fatal import FatalError
from soakd.simnode.identity import TOKEN, new_token
from soakd.simnode.lies import LIES, Lie, hang_up, lie
from soakd.simnode.tracing import Shown

FOREIGN_LOG = "sim.foreign"
_PANICKED = 101
_LINE = b"x" * 127 + b"\n"
_CHUNK = _LINE * 8192  # 1 MiB

Deed = Callable[[Control, str], None]


def carry_out(control: Control, fault: faults.Fault) -> None:
    """Do what a checked order says.

    Raises:
        FatalError: the order is to fail.
        SystemExit: the order is to exit or to panic.
    """
    if fault.kind in LIES:
        _log(control, fault.text)
        control.lies.append(lie(fault.kind, fault.argument))
    elif fault.kind in ("fork", "daemon"):
        count, options = faults.descent(fault.argument)
        sockets = [listener.fileno() for listener in control.listeners]
        pids = [fork(options, sockets, daemon=fault.kind == "daemon") for _ in range(count)]
        _log(control, fault.text, pids=" ".join(map(str, pids)))
    else:
        _log(control, fault.text)
        DEEDS[fault.kind](control, fault.argument)


def _log(control: Control, text: str, **fields: object) -> None:
    control.tracing.warn("sim", "simulated fault", event="sim_fault", fault=text, **fields)


def _exit(_control: Control, argument: str) -> None:
    sys.exit(int(argument))


def _die(_control: Control, argument: str) -> None:
    # Costs a start what few nodes need.
    import resource  # noqa: PLC0415

    _soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    number = faults.deadly_signal(argument)
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)


def _panic(_control: Control, argument: str) -> None:
    _panicked("main", "src/kad/service.rs:612:33", argument)
    sys.exit(_PANICKED)


def _panic_thread(control: Control, argument: str) -> None:
    _panicked("tokio-runtime-worker", "src/api/mod.rs:148:18", argument)
    _close_api(control)


def _panicked(thread: str, where: str, message: str) -> None:
    text = message or "called `Option::unwrap()` on a `None` value"
    sys.stderr.write(
        f"\nthread '{thread}' ({os.getpid()}) panicked at {where}:\n{text}\n"
        "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n"
    )
    sys.stderr.flush()


def _fail(_control: Control, argument: str) -> None:
    raise FatalError(FAILURES[argument])


def _stop(_control: Control, _argument: str) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _ignore(control: Control, argument: str) -> None:
    control.ignored.update(faults.signal_set(argument))
    control.apply_ignored()


def _print(control: Control, argument: str) -> None:
    left, fd = faults.size_and_stream(argument)

    def more() -> None:
        """Print a piece each turn of the loop, so that the API goes on as in the real program."""
        nonlocal left
        with contextlib.suppress(OSError):  # nobody reads any more
            left -= os.write(fd, _CHUNK[:left])
            if left:
                control.loop.later(0.0, more)

    more()


def _port_taken(control: Control, argument: str) -> None:
    log = control.config.data_path(FOREIGN_LOG)
    take_port(control.config.get("api", "port"), argument or "node", log)


def _one_family(control: Control, argument: str) -> None:
    control.only_family = int(argument)


def _close_listeners(control: Control, _argument: str = "") -> None:
    for listener in control.listeners:
        listener.close()
    control.listeners.clear()
    control.api_gone = True


def _close_api(control: Control) -> None:
    _close_listeners(control)
    control.lies.append(Lie("api-closed", "", hang_up))


def _api_closed(control: Control, _argument: str) -> None:
    _close_api(control)
    text = "accept error: Too many open files (os error 24)"
    control.tracing.error("app", "api server stopped", error=Shown(text))


def _rotate_token(control: Control, _argument: str) -> None:
    if control.node is not None:
        control.node.auth.replace_token(new_token(control.config.data_path(TOKEN)))


def _session_loss(control: Control, _argument: str) -> None:
    if control.node is not None:
        control.node.kad.lose_session()


def _loop_stall(control: Control, argument: str) -> None:
    if control.node is not None:
        control.node.kad.stall(faults.seconds(argument))


def _heal(control: Control, _argument: str) -> None:
    # In place: whoever asks holds this list.
    control.lies[:] = [item for item in control.lies if item.kind not in LIES]
    if control.node is not None:
        control.node.kad.recover()


DEEDS: dict[str, Deed] = {
    "exit": _exit,
    "die": _die,
    "panic": _panic,
    "panic-thread": _panic_thread,
    "fail": _fail,
    "stop": _stop,
    "ignore": _ignore,
    "print": _print,
    "port-taken": _port_taken,
    "one-family": _one_family,
    "listener-closed": _close_listeners,
    "api-closed": _api_closed,
    "rotate-token": _rotate_token,
    "session-loss": _session_loss,
    "loop-stall": _loop_stall,
    "heal": _heal,
}
