"""What soakd and the shim agree on: limits, verbs, rungs and the frames of JSON lines.

Shared by `soakd.shim` and `soakd.edge.shim_client`, so there is one codec and not two. Nothing
here does I/O.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping

PROTOCOL = 1

MAX_FRAME_BYTES = 64 * 1024
MAX_FILE_BYTES = 256 * 1024
"""Largest file that `read_file` and `replace` move."""
MAX_PIECE_BYTES = 32 * 1024
"""Largest piece of a file in one frame, before base64."""
MAX_TOKEN_BYTES = 4096
"""Largest token file of a node that somebody else runs."""
MAX_LINE_BYTES = 4096
"""Longest line of a node's stderr in one event."""

VERBS = frozenset(
    {
        "begin",
        "stage",
        "read",
        "read_token",
        "replace",
        "remove",
        "list",
        "launch",
        "inspect",
        "latest_end",
        "stop",
        "end",
        "sweep",
    }
)

RUNGS = ("sigint", "sigterm", "sigkill", "sweep")
SIGINT_REPEAT_S = 2.0
SIGTERM_GRACE_S = 3.0
SIGKILL_GRACE_S = 1.0
SWEEP_S = 10.0

RUN_ROOT_MARKER = ".soakd-run-root"


class FrameError(ValueError):
    """A frame that is too long or is not one JSON object."""


def encode(message: Mapping[str, object]) -> bytes:
    """One frame: compact ASCII JSON and a newline.

    Raises:
        FrameError: the message does not fit into `MAX_FRAME_BYTES`.
    """
    text = json.dumps(message, separators=(",", ":"), allow_nan=False)
    if len(text) >= MAX_FRAME_BYTES:
        msg = f"cannot send a frame of {len(text)} bytes: the limit is {MAX_FRAME_BYTES}"
        raise FrameError(msg)
    return text.encode("ascii") + b"\n"


def _refuse_constant(name: str) -> NoReturn:
    msg = f"cannot read a frame: {name} is not JSON"
    raise FrameError(msg)


def decode(line: bytes) -> dict[str, object]:
    """The object in one line.

    Raises:
        FrameError: it is not exactly one JSON object.
    """
    try:
        value = json.loads(line, parse_constant=_refuse_constant)
    except FrameError:
        raise
    except (ValueError, RecursionError) as exc:
        # A deeply nested line overflows the parser's recursion, which is not a ValueError.
        msg = f"cannot read a frame: {type(exc).__name__}"
        raise FrameError(msg) from None
    if not isinstance(value, dict):
        msg = f"cannot read a frame: got {type(value).__name__}, want an object"
        raise FrameError(msg)
    return value


class Decoder:
    """Cuts a stream of bytes into frames; holds at most one unfinished frame."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[dict[str, object]]:
        """The frames completed by `data`.

        Raises:
            FrameError: the stream is broken; the decoder must not be fed again.
        """
        self._rest += data
        *lines, rest = bytes(self._rest).split(b"\n")
        if any(len(line) > MAX_FRAME_BYTES for line in (*lines, rest)):
            msg = f"cannot read a frame: it is longer than {MAX_FRAME_BYTES} bytes"
            raise FrameError(msg)
        self._rest = bytearray(rest)
        return [decode(line) for line in lines]


_HELLO: dict[str, type | tuple[type, ...]] = {
    "run": str,
    "nonce": str,
    "pid": int,
    "ticks": int,
    "begun": bool,
    "latest_end_boot_s": (int, float),
    "nodes": dict,
    "stopping": (str, type(None)),
    "journal_seq": int,
}


def hello_problem(message: Mapping[str, object]) -> str | None:
    """Why a first frame is not a hello of this protocol; None when it is one."""
    if message.get("event") != "hello":
        return "its first frame is no hello"
    if message.get("protocol") != PROTOCOL:
        return f"it speaks protocol {message.get('protocol')!r}, we speak {PROTOCOL}"
    wrong = [name for name, kind in _HELLO.items() if not isinstance(message.get(name), kind)]
    return f"its hello lacks {', '.join(wrong)}" if wrong else None
