"""`run.start`: checks a submitted plan once more and hands it to the scheduler."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from soakd.core.errors import UserError
from soakd.core.plan import Plan, parse_plan
from soakd.drivers import registry
from soakd.handlers.context import Context

_DIGEST = re.compile(r"[0-9a-f]{64}")


async def handle(ctx: Context, params: dict[str, Any]) -> Mapping[str, Any]:
    """Queue a plan; the client is not trusted to have checked it.

    Raises:
        UserError: `bad_plan`, all problems together, or what the scheduler says.
    """
    plan = parse_plan(params["plan"])
    registry.check(plan)
    digests = params.get("sha256") or {}
    _check_digests(plan, digests)
    return await ctx.scheduler.submit(ctx.peer, plan, digests)


def _check_digests(plan: Plan, digests: dict[str, Any]) -> None:
    names = {node.name for node in plan.nodes}
    problems = [
        f"sha256.{name}: must be 64 hex digits of a node of the plan, got {digest!r}"
        for name, digest in digests.items()
        if name not in names or not isinstance(digest, str) or not _DIGEST.fullmatch(digest)
    ]
    if problems:
        raise UserError(
            "bad_plan", f"cannot accept the plan: {'; '.join(problems)}", {"problems": problems}
        )
