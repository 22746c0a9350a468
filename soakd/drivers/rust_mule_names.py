"""How a rust-mule node's files are called, and its SAM session (contract §1, §9.1)."""

from __future__ import annotations

from soakd.core.plan import Plan

PROGRAM = "rust-mule"
CONFIG = "config.toml"
LOCK_FILE = "rust-mule.lock"
TOKEN_FILE = "api.token"  # noqa: S105 - a name
KEYS_FILE = "sam.keys"
IDENTITY_FILES = (KEYS_FILE, "kad_udp_key_secret.dat", TOKEN_FILE)


def session_name(plan: Plan, node: str, run: str) -> str:
    """The SAM session name of a node.

    Unique per bridge, or the newcomer destroys the other's session (contract §9.1).
    """
    return f"rust-mule-{node}-soak-{plan.run_tag}-{run}"
