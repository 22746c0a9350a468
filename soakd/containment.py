"""What holds a run's processes together besides their shim: a scope, a cgroup, or nothing.

Called once per shim, before it is sent `begin`.
"""

from __future__ import annotations

from pathlib import Path

from soakd.core.errors import HostError
from soakd.core.plan import Plan, ladder_s
from soakd.edge.cgroup import Cgroup, folder_of
from soakd.host import Host

SYSTEM_STATE = Path("/var/lib/soakd")
SCOPE_SLACK_S = 5.0
"""What systemd leaves to the shim behind its own ladder, before it kills."""


async def contain(host: Host, run: str, plan: Plan, pid: int) -> Cgroup | None:
    """Put a shim that has touched nothing yet where its run can be found and killed as a whole.

    Args:
        host: whose `containment` says what is wanted.
        run: the run's id such as `r7`.
        plan: the run's, for its time-outs.
        pid: the shim, a child of ours.

    Returns:
        Its cgroup; None where evidence must do.

    Raises:
        HostError: what is wanted cannot be had.
    """
    wanted = host.config.containment
    if wanted == "evidence":
        return None
    if wanted == "scope":
        return await _in_scope(host, run, plan, pid)
    # The state folder is part of the name: two soakds on one host may both have a run r1.
    group = Cgroup.create(f"soak-{host.state_tag}-{run}")
    if group is not None:
        group.attach(pid)
    elif wanted == "cgroup":
        raise HostError(
            "refused",
            "cannot contain the run: no cgroup v2 is writable here; set containment to"
            ' "auto" in soakd.toml to do without',
        )
    return group


async def _in_scope(host: Host, run: str, plan: Plan, pid: int) -> Cgroup:
    # Only a soakd under systemd needs a D-Bus library in its memory.
    from soakd.edge.scope import SYSTEM_BUS, ScopeOrder, scope_name, start_scope  # noqa: PLC0415

    name = scope_name(run, None if host.state_dir == SYSTEM_STATE else host.state_tag)
    description = f"Soak {run} of soakd"
    order = ScopeOrder(name, pid, description, ladder_s(plan) + SCOPE_SLACK_S)
    # A user's own soakd is a service of the user's own manager, which has a bus of its own.
    await start_scope(order, SYSTEM_BUS if host.system else f"/run/user/{host.uid}/bus")
    folder = folder_of(pid)
    if folder is None or folder.name != name:
        raise HostError(
            "internal",
            f"cannot contain the run: the shim (pid {pid}) is in cgroup {folder} and not in"
            f" {name}; soakd needs systemd with cgroup v2",
        )
    return Cgroup(folder)
