"""What soakd writes into argv[1]: whose run this is, and which descriptors came along."""

from __future__ import annotations

import json
from typing import NamedTuple


class Spec(NamedTuple):
    """What argv[1] says: numbers of descriptors, and whose run it is."""

    run: str
    nonce: str
    soakd_uid: int
    socket: int
    journal: int
    lock: int
    out: dict[str, int]


def parse(text: str) -> Spec:
    """The specification in argv[1].

    Raises:
        ValueError, KeyError, TypeError: it was not made by soakd.
    """
    raw = json.loads(text)
    fds = raw["fds"]
    return Spec(
        run=str(raw["run"]),
        nonce=str(raw["nonce"]),
        soakd_uid=int(raw["soakd_uid"]),
        socket=int(fds["socket"]),
        journal=int(fds["journal"]),
        lock=int(fds["lock"]),
        out={str(name): int(fd) for name, fd in fds["out"].items()},
    )
