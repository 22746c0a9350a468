"""`hello`: the first call of a connection; settles the protocol and says who one is here."""

from __future__ import annotations

from typing import Any

from soakd.handlers.context import Context
from soakd.wire.errors import WireError
from soakd.wire.messages import PROTOCOL_MAJOR, PROTOCOL_MINOR
from soakd.wire.results import HelloResult


async def handle(ctx: Context, params: dict[str, Any]) -> HelloResult:
    """Accept a client of our major version.

    Raises:
        WireError: `version`; the connection ends after it.
    """
    if params["protocol"] != PROTOCOL_MAJOR:
        raise WireError(
            "version",
            f"cannot talk to a client of protocol {params['protocol']}: soakd {ctx.daemon.version}"
            f" speaks {PROTOCOL_MAJOR}.{PROTOCOL_MINOR}; use the soakctl installed with that soakd",
            {"protocol": PROTOCOL_MAJOR, "minor": PROTOCOL_MINOR},
        )
    return {
        "server": f"soakd {ctx.daemon.version}",
        "protocol": PROTOCOL_MAJOR,
        "minor": PROTOCOL_MINOR,
        "mode": ctx.daemon.mode,
        "uid": ctx.peer.uid,
        "member": ctx.peer.member,
        "admin": ctx.peer.admin,
    }
