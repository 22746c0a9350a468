"""Parameters, rights and errors, the same for every method."""

from __future__ import annotations

import pytest
import trio
from structlog.testing import capture_logs

from soakd.core.errors import HostError, UserError
from soakd.edge.peers import Peer
from soakd.handlers.context import ClientGone
from soakd.handlers.dispatch import HANDLERS
from soakd.wire.errors import WireError
from soakd.wire.messages import METHODS
from tests.handlers.calls import call, fail
from tests.handlers.fakes import ADMIN, OTHER, OWNER, STRANGER, Caller


def test_every_method_has_a_handler() -> None:
    """The table and the code know the same verbs."""
    assert set(HANDLERS) == set(METHODS)


MAY = {
    "any": {OWNER, OTHER, STRANGER, ADMIN},
    "member": {OWNER, OTHER, ADMIN},
    "owner": {OWNER, ADMIN},
    "admin": {ADMIN},
}


@pytest.mark.parametrize("peer", [OWNER, OTHER, STRANGER, ADMIN], ids=lambda peer: peer.name)
@pytest.mark.parametrize("name", METHODS)
async def test_rights_are_those_of_the_table(name: str, peer: Peer) -> None:
    """Every method against every kind of peer; refused ones never reach the handler."""
    caller = Caller(peer=peer)
    caller.scheduler.finished = True
    params = {"run": "r7"} if "run" in METHODS[name].params else {}
    if name == "hello":
        params = {"client": "t", "protocol": 1}  # type: ignore[dict-item]
    if name == "run.start":
        params = {"plan": {}}  # type: ignore[dict-item]
    if name == "run.extend":
        params["by_s"] = 60  # type: ignore[assignment]
    if name == "run.soak":
        params["soak"] = {"rounds": 3}  # type: ignore[assignment]
    if peer in MAY[METHODS[name].access]:
        # An empty plan and a missing log are refused later, by whoever looks at them.
        if name in {"run.start", "run.logs"}:
            assert (await fail(caller, name, **params))["code"] in {"bad_plan", "refused"}
        else:
            await call(caller, name, **params)
    else:
        assert (await fail(caller, name, **params))["code"] == "not_allowed"
        assert [entry for entry in caller.scheduler.calls if entry[0] != "watch"] == []


async def test_unknown_methods_and_parameters_are_refused_for_anyone() -> None:
    """Spelling is checked before rights."""
    assert (await fail(Caller(peer=STRANGER), "run.fly"))["code"] == "unknown_method"
    error = await fail(Caller(peer=STRANGER), "run.list", al=True)
    assert error["code"] == "bad_params"
    assert error["details"] == {"problems": ["al: unknown parameter"]}


async def test_an_unknown_run_is_reported_by_the_scheduler() -> None:
    """A member learns that a run does not exist, with its code."""
    error = await fail(Caller(), "run.stop", run="r8")
    assert error == {
        "code": "no_such_run",
        "message": "cannot find run r8",
        "details": {"run": "r8"},
    }


def grouped(*errors: Exception) -> Exception:
    """Wrap as a nursery inside a nursery would."""
    return ExceptionGroup("outer", [ExceptionGroup("inner", list(errors))])


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (UserError("refused", "cannot do it: later"), "refused"),
        (HostError("internal", "cannot write: disk full"), "internal"),
        (WireError("version", "cannot talk"), "version"),
        (grouped(UserError("refused", "cannot do it: later")), "refused"),
        (grouped(UserError("refused", "x"), HostError("internal", "y")), "refused"),
        (grouped(ClientGone()), "timeout"),
        (ClientGone(), "timeout"),
    ],
)
async def test_known_errors_keep_their_code(raised: Exception, code: str) -> None:
    """What a handler raises arrives as code and message, also out of a nursery."""
    caller = Caller()
    caller.scheduler.failure = raised
    assert (await fail(caller, "run.status"))["code"] == code


@pytest.mark.parametrize("raised", [KeyError("x"), grouped(UserError("refused", "x"), KeyError())])
async def test_a_bug_is_an_internal_error_with_a_traceback_in_the_log(raised: Exception) -> None:
    """The client gets no internals; the log gets them; a bug beside a known error is not hidden."""
    caller = Caller()
    caller.scheduler.failure = raised
    with capture_logs() as logs:
        error = await fail(caller, "run.status")
    assert error["code"] == "internal"
    assert "see the log of soakd" in error["message"]
    assert [entry["event"] for entry in logs] == ["request_failed", "request"]
    assert logs[0]["exc_info"] is raised


async def test_each_request_is_one_line_of_log() -> None:
    """Method, run, code and time: enough to see who did what."""
    with capture_logs() as logs:
        await call(Caller(), "run.stop", run="r7")
    assert len(logs) == 1
    line = logs[0]
    assert (line["event"], line["method"], line["run"], line["code"]) == (
        "request",
        "run.stop",
        "r7",
        "ok",
    )


async def test_cancellation_is_not_an_answer() -> None:
    """The dispatcher catches errors, never the end of its own scope."""
    caller = Caller()
    with trio.move_on_after(0) as scope:
        await call(caller, "run.status")
    assert scope.cancelled_caught


def test_a_method_without_run_has_no_run() -> None:
    """A slip in a handler shows at once."""
    with pytest.raises(AssertionError, match="without the parameter"):
        _ = Caller().context.run
