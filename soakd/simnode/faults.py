"""What a simulated node can be made to do wrong: the names, and how an order is written.

    KIND[@WHEN][:ARGUMENT]      such as  die@20:SIGSEGV   hang:/status   exit@start+0.5:7

`[sim] faults` is a list of orders. WHEN is `S`, seconds after the node got ready (its first 200
from `/status`), or `start+S`, seconds after its process began, or `start`; without it `0`, for the
kinds marked "start" `start`. While the node runs it also obeys the file `sim.faults` in its data
dir, looked at ten times a second: every complete line appended there is an order, WHEN is then `S`
seconds from now (what the file held when the process began is old and does not count). Each order
is logged when it is carried out: WARN `simulated fault`, its field `fault` the order.

PATH limits a fault of the API to paths that begin so, below `/api/v1`; without it all are hit,
pages too. The youngest fault that fits wins. "Answered" means the request is carried out as ever
and only its answer is spoilt; with the others it is not carried out.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Literal, NamedTuple

from soakd.simnode.failures import FAILURES

When = Literal["any", "start", "ready"]
OPTIONS = ("noenv", "chdir", "deaf", "listen")
FOREIGN = ("node", "web", "silent")
MOST_CHILDREN = 64
_UNITS = {"k": 1000, "M": 1000_000, "G": 1000_000_000}
_HARMLESS = {"SIGCHLD", "SIGCONT", "SIGURG", "SIGWINCH", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU"}


class FaultError(ValueError):
    """An order is not understood."""


class Fault(NamedTuple):
    """An order; `seconds` count from the start of the process or from readiness (or from now)."""

    text: str
    kind: str
    from_start: bool
    seconds: float
    argument: str


class Kind(NamedTuple):
    """One row of the table."""

    argument: str  # how it is written
    check: Callable[[str], object]  # raises ValueError
    help: str
    when: When = "any"  # "start": only there; "ready": only in the service loop
    default_start: bool = False


def no_argument(text: str) -> None:
    """Demand none."""
    if text:
        raise ValueError("takes no argument")


def path_prefix(text: str) -> str:
    """Read the PATH of a fault of the API."""
    if text and not text.startswith("/"):
        raise ValueError("PATH must begin with /")
    return text


def exit_code(text: str) -> int:
    """Read an exit code."""
    return _whole(text, 0, 255)


def http_code(text: str) -> tuple[int, str]:
    """Read `CODE[:PATH]`."""
    code, _, path = text.partition(":")
    return _whole(code, 200, 599), path_prefix(path)


def signal_number(text: str) -> int:
    """Read a signal by name, with or without SIG, or by number."""
    try:
        if text.isascii() and text.isdigit():
            return signal.Signals(int(text)).value
        return signal.Signals[f"SIG{text.upper().removeprefix('SIG')}"].value
    except (KeyError, ValueError) as error:
        # Real-time signals other than the first and the last have no name.
        if text.isdigit() and signal.SIGRTMIN < int(text) < signal.SIGRTMAX:
            return int(text)
        raise ValueError(f"{text!r} is no signal") from error


def deadly_signal(text: str) -> int:
    """Read a signal whose default action ends a process."""
    number = signal_number(text)
    names = {item.value: item.name for item in signal.Signals}
    if names.get(number) in _HARMLESS:
        raise ValueError(f"{text} does not end a process")
    return number


def signal_set(text: str) -> list[int]:
    """Read a list of signals that can be ignored."""
    numbers = [signal_number(item) for item in text.split(",")]
    if {signal.SIGKILL, signal.SIGSTOP} & set(numbers):
        raise ValueError("SIGKILL and SIGSTOP cannot be ignored")
    return numbers


def size_and_stream(text: str) -> tuple[int, int]:
    """Read `SIZE[k|M|G][:out|err]` as bytes and descriptor."""
    size, _, stream = text.partition(":")
    unit = _UNITS.get(size[-1:], 1)
    if stream not in ("", "out", "err"):
        raise ValueError("the stream is out or err")
    return _whole(size[:-1] if unit > 1 else size, 0, 1 << 40) * unit, 2 if stream == "err" else 1


def seconds(text: str) -> float:
    """Read seconds; none means for ever."""
    if not text:
        return float("inf")
    value = float(text)
    if not 0 <= value < 1e9:
        raise ValueError("seconds must be in 0..1e9")
    return value


def descent(text: str) -> tuple[int, frozenset[str]]:
    """Read `[COUNT][,OPTION…]`."""
    words = [word for word in text.split(",") if word]
    count = _whole(words.pop(0), 1, MOST_CHILDREN) if words and words[0].isdigit() else 1
    unknown = set(words) - set(OPTIONS)
    if unknown:
        raise ValueError(f"unknown option {min(unknown)!r}; there are {', '.join(OPTIONS)}")
    return count, frozenset(words)


def _family(text: str) -> None:
    if text not in ("4", "6"):
        raise ValueError("must be 4 or 6")


def _one_of(names: tuple[str, ...], *, required: bool) -> Callable[[str], object]:
    def check(text: str) -> None:
        if text not in names and (required or text):
            raise ValueError(f"must be one of {', '.join(names)}")

    return check


def _url(text: str) -> None:
    if text and not text.startswith(("http://", "https://", "/")):
        raise ValueError("must be an http URL or an absolute path")


def _whole(text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise ValueError(f"{text!r} is not a whole number in {low}..{high}")
    return int(text)


def _of_api(text: str) -> Kind:
    return Kind("[PATH]", path_prefix, text)


KINDS: dict[str, Kind] = {
    # The process ends, stops or does not listen.
    "exit": Kind("CODE", exit_code, "end with this code, saying nothing"),
    "die": Kind("SIGNAL", deadly_signal, "die by this signal (name or number; no core)"),
    "panic": Kind("[MESSAGE]", str, "panic of the main thread on stderr, exit 101"),
    "panic-thread": Kind("[MESSAGE]", str, "panic of a worker: API gone as with api-closed"),
    "fail": Kind(
        "CAUSE",
        _one_of(tuple(FAILURES), required=True),
        f"exit 1 with the stderr line of a failed start: {', '.join(FAILURES)}",
        default_start=True,
    ),
    "stop": Kind("", no_argument, "SIGSTOP to itself"),
    "ignore": Kind("SIGNAL[,SIGNAL…]", signal_set, "ignore these signals from now on"),
    "print": Kind("SIZE[k|M|G][:out|err]", size_and_stream, "print so many bytes at full speed"),
    # Processes that the node leaves behind; each ends by itself after 300 s.
    "fork": Kind(
        "[COUNT][,OPTION…]",
        descent,
        "fork children that wait; options: noenv (exec'ed with an empty environment), chdir "
        "(to /), deaf (ignore INT, TERM, HUP), listen (keep the API's listeners open); the "
        "logged field `pids` names them",
    ),
    "daemon": Kind("[COUNT][,OPTION…]", descent, "the same, double-forked and with setsid"),
    # The API at other addresses than ours, or at none.
    "port-taken": Kind(
        "[node|web|silent]",
        _one_of(FOREIGN, required=False),
        "another process, forked here and gone soon after the node, holds the API port on both "
        "addresses: another node (default), any web server, or one that never answers; each "
        "request to it is a line `METHOD PATH bearer|-` of data/sim.foreign",
        "start",
    ),
    "one-family": Kind("4|6", _family, "listen on 127.0.0.1 or on ::1 only", "start"),
    "listener-closed": Kind("", no_argument, "close the listeners; open connections go on"),
    "api-closed": Kind(
        "",
        no_argument,
        "close the listeners, hang up on open connections, log `api server stopped`",
    ),
    # The API lies.
    "hang": _of_api("accept and read, never answer"),
    "hang-up": _of_api("close the connection without an answer"),
    "http": Kind("CODE[:PATH]", http_code, "answer with this status and the error envelope"),
    "garbage": _of_api("200 with bytes that are neither JSON nor UTF-8"),
    "empty": _of_api("200 with an empty body"),
    "wrong-json": _of_api("200 with valid JSON of another shape: a list of a string and null"),
    "deep-json": _of_api("200 with 100 000 brackets in brackets"),
    "truncated-json": _of_api("answered: half the body, announced as half"),
    "cut": _of_api("answered: half the body, announced as the whole, then closed"),
    "endless-headers": _of_api("200, then header lines for ever"),
    "endless-body": _of_api("200, then chunks of blanks for ever"),
    "gzip-bomb": _of_api("answered: after 1 GiB of blanks, gzipped to 1 MB whatever was accepted"),
    "big-body": _of_api("answered: after 100 MB of blanks"),
    "drip": _of_api("answered: head at once, then one byte of the body each 0.3 s"),
    "drip-head": _of_api("answered: one byte each 0.3 s from the status line on"),
    "redirect": Kind("[URL]", _url, "302 to this URL (default http://127.0.0.1:9/elsewhere)"),
    "rotate-token": Kind("", no_argument, "a new token in file and force, as by /token/rotate"),
    # The service loop.
    "session-loss": Kind("", no_argument, "lose the SAM session and make it again", "ready"),
    "loop-stall": Kind(
        "[SECONDS]",
        seconds,
        "the service loop does nothing: stale status, Kad GETs 504, SIGINT and datagrams lost",
        "ready",
    ),
    "heal": Kind("", no_argument, "end all faults of `The API lies` and loop-stall"),
}


def parse(text: str, *, running: bool = False) -> Fault:
    """Read an order.

    Args:
        text: `KIND[@WHEN][:ARGUMENT]`.
        running: it comes from the control file, so it cannot be about the start.

    Raises:
        FaultError: it is not understood, or its kind is not possible then.
    """
    head, _, argument = text.strip().partition(":")
    name, at, when = head.partition("@")
    kind = KINDS.get(name)
    if kind is None:
        raise FaultError(f"unknown fault {name!r}; there are {', '.join(KINDS)}")
    default_start = not running and (kind.default_start or kind.when == "start")
    try:
        from_start, after = _when(when) if at else (default_start, 0.0)
        kind.check(argument)
    except ValueError as error:
        raise FaultError(f"fault {text!r}: {error}") from error
    if running and (from_start or kind.when == "start"):
        raise FaultError(f"fault {text!r}: the node has started already")
    if (kind.when == "start" and (not from_start or after)) or (
        kind.when == "ready" and from_start
    ):
        raise FaultError(f"fault {text!r}: {name} is possible at @{kind.when} only")
    return Fault(text.strip(), name, from_start, after, argument)


def _when(text: str) -> tuple[bool, float]:
    if text == "start":
        return True, 0.0
    from_start = text.startswith("start+")
    value = text.removeprefix("start+")
    try:
        after = seconds(value)
    except ValueError:
        after = -1.0
    if not value or after < 0:
        raise ValueError(f"WHEN is S, start+S or start, not {text!r}")
    return from_start, after
