"""From a request to its answer: parameters, rights, the handler, and errors as the wire has them.

Rights come from `METHODS` alone, before a handler runs: a handler cannot forget them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, assert_never

import trio

from soakd.core.errors import SoakError
from soakd.handlers import (
    collect,
    daemon,
    extend,
    flows,
    forget,
    hello,
    hold,
    label,
    logs,
    plan,
    queue,
    release,
    soak,
    start,
    status,
    stop,
    top,
    watch,
)
from soakd.handlers import list as list_handler
from soakd.handlers.context import ClientGone, Context, Handler
from soakd.log import get_logger
from soakd.wire.errors import WireError
from soakd.wire.frames import Request
from soakd.wire.messages import METHODS, Access, check_params, format_run_id

HANDLERS: Mapping[str, Handler] = {
    "hello": hello.handle,
    "run.start": start.handle,
    "run.list": list_handler.handle,
    "run.status": status.handle,
    "run.stop": stop.handle,
    "run.watch": watch.handle,
    "run.logs": logs.handle,
    "run.collect": collect.handle,
    "run.plan": plan.handle,
    "run.flows": flows.handle,
    "run.soak": soak.handle,
    "run.extend": extend.handle,
    "run.label": label.handle,
    "run.forget": forget.handle,
    "queue.list": queue.handle,
    "queue.hold": hold.handle,
    "queue.release": release.handle,
    "queue.top": top.handle,
    "daemon.info": daemon.info,
    "daemon.drain": daemon.drain,
    "daemon.resume": daemon.resume,
    "daemon.shutdown": daemon.shutdown,
}

_log = get_logger()


async def answer(
    ctx: Context, request: Request
) -> tuple[dict[str, object] | None, Mapping[str, Any] | None]:
    """Serve one request and return the error map or the result.

    This is the place where whatever a handler raises ends: one line of log per request.
    """
    began = trio.current_time()
    error: WireError | None = None
    result: Mapping[str, Any] | None = None
    try:
        result = await _dispatch(ctx, request.method, request.params)
    except Exception as raised:  # noqa: BLE001 - one failing request must not end the daemon
        error = _to_wire_error(request.method, raised)
    _log.info(
        "request",
        method=request.method,
        run=request.params.get("run"),
        code="ok" if error is None else error.code,
        ms=round((trio.current_time() - began) * 1000, 1),
    )
    return (None if error is None else error.to_map()), result


async def _dispatch(ctx: Context, name: str, params: dict[str, Any]) -> Mapping[str, Any]:
    check_params(name, params)
    method = METHODS[name]
    _check_access(method.access, ctx, name)
    if "run" in method.params:
        ctx = replace(ctx, run_id=await ctx.scheduler.resolve(params.get("run"), ctx.peer))
    if method.access == "owner" and not await ctx.scheduler.allowed(ctx.run, ctx.peer):
        raise WireError("not_allowed", await _not_yours(ctx, name))
    return await HANDLERS[name](ctx, params)


async def _not_yours(ctx: Context, name: str) -> str:
    verb = name.partition(".")[2]
    act = {
        "logs": "read the logs of",
        "plan": "read the plan of",
        "flows": "read the flows of",
    }.get(verb, verb)
    owner = (await ctx.scheduler.status(ctx.run, ctx.peer))["owner"]
    return (
        f"cannot {act} {format_run_id(ctx.run)}: it belongs to {owner};"
        f" ask {owner} or a member of soak-admin"
    )


def _check_access(access: Access, ctx: Context, name: str) -> None:
    match access:
        case "any":
            return
        case "member" | "owner":
            if not ctx.peer.member:
                raise WireError(
                    "not_allowed",
                    f"cannot call {name}: {ctx.peer.name} is no member of group soak;"
                    " ask an admin, then log in again",
                )
        case "admin":
            if not ctx.peer.admin:
                raise WireError(
                    "not_allowed",
                    f"cannot {name.partition('.')[2]}: only root and members of soak-admin may;"
                    " ask one of them",
                )
        case _:
            assert_never(access)


def _to_wire_error(method: str, raised: Exception) -> WireError:
    known = _find_known(raised)
    if isinstance(known, SoakError):
        return WireError(known.code, known.message, known.details)
    if isinstance(known, WireError):
        return known
    if known is not None:
        return WireError("timeout", f"cannot finish {method}: the client reads no more")
    _log.error("request_failed", method=method, exc_info=raised)
    return WireError(
        "internal",
        f"cannot finish {method}: internal error ({type(raised).__name__}); see the log of soakd",
    )


def _find_known(raised: BaseException) -> SoakError | WireError | ClientGone | None:
    """Look through the groups that nurseries make, even of a single exception."""
    if isinstance(raised, SoakError | WireError | ClientGone):
        return raised
    if isinstance(raised, BaseExceptionGroup):
        found = [_find_known(inner) for inner in raised.exceptions]
        # A bug beside a known error must not be hidden by it.
        return found[0] if None not in found else None
    return None
