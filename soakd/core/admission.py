"""Whether a plan may be queued at all: the limits of one user, and the disk.

Asked once, when it is submitted; what changes later keeps a run waiting instead. Every refusal
says what to do next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from soakd.core.errors import UserError
from soakd.core.plan import Plan, latest_end_s, running_s

if TYPE_CHECKING:
    from collections.abc import Sequence

MINUTE_S: Final = 60.0
MEASURED_FROM_S: Final = 3600.0
"""A shorter run says little of what an hour costs: its beginning weighs too much."""


@dataclass(frozen=True, slots=True)
class UserLimits:
    """What one user may do; the settings of the same names."""

    queued_per_user: int
    max_duration_s: float
    submissions_per_minute: int


def check_duration(plan: Plan, limits: UserLimits) -> None:
    """Refuse a plan whose rounds may go on for too long.

    Raises:
        UserError: `bad_plan`.
    """
    longest_s = running_s(plan)
    if longest_s > limits.max_duration_s:
        what = "rounds" if plan.duration_s is None else "duration_s"
        problem = (
            f"{what}: the rounds may take {longest_s:.15g} s, max_duration_s of this host is"
            f" {limits.max_duration_s:.15g} s"
        )
        text = f"cannot accept the plan: {problem}; ask for less, or an admin for more"
        raise UserError("bad_plan", text, {"problems": [problem]})


def check_counts(
    limits: UserLimits, queued: int, submitted_s: Sequence[float], now_s: float
) -> None:
    """Refuse a user who has too much in the queue already, or submits too fast.

    Args:
        limits: Of each user.
        queued: How many runs of this user wait.
        submitted_s: When this user submitted before.
        now_s: The same clock.

    Raises:
        UserError: `refused`.
    """
    if queued >= limits.queued_per_user:
        raise UserError(
            "refused",
            f"cannot queue another run: {queued} of yours wait, queued_per_user is"
            f" {limits.queued_per_user}; wait until one starts, or take one out with"
            " `soakctl stop RUN`",
        )
    lately = [at_s for at_s in submitted_s if at_s > now_s - MINUTE_S]
    if len(lately) >= limits.submissions_per_minute:
        again_s = lately[-limits.submissions_per_minute] + MINUTE_S - now_s
        raise UserError(
            "refused",
            f"cannot queue another run: you submitted {len(lately)} within a minute,"
            f" submissions_per_minute is {limits.submissions_per_minute}; try again in"
            f" {max(1.0, again_s):.0f} s",
        )


def check_disk(disk_bytes: int, free_bytes: int) -> None:
    """Refuse a run that would not fit even alone.

    Raises:
        UserError: `refused`.
    """
    if disk_bytes > free_bytes:
        raise UserError(
            "refused",
            f"cannot queue the run: it may write {disk_bytes / 1e6:.0f} MB, and"
            f" {free_bytes / 1e6:.0f} MB are free; make it shorter, or free disk space"
            " (old runs: `soakctl list --all`)",
        )


def disk_bytes(plan: Plan, node_bytes_per_hour: float, most_bytes: int) -> int:
    """Return what a run may write: it is ended when it has written `most_bytes`."""
    hours = latest_end_s(plan) / 3600.0
    return min(most_bytes, int(len(plan.nodes) * hours * node_bytes_per_hour))


def node_bytes_per_hour(written_bytes: int, nodes: int, took_s: float) -> float | None:
    """Return what one node of a finished run wrote per hour; None: too short to tell."""
    if took_s < MEASURED_FROM_S:
        return None
    return written_bytes / nodes / (took_s / 3600.0)
