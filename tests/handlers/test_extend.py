"""Making a run longer."""

from __future__ import annotations

import pytest

from soakd.core.errors import UserError
from tests.handlers.calls import call, fail
from tests.handlers.fakes import OTHER, OWNER, Caller


async def test_extend_asks_the_queue() -> None:
    """It is applied unless the caller only wants to know."""
    caller = Caller()
    await call(caller, "run.extend", run="r7", by_s=3600)
    await call(caller, "run.extend", run="r7", by_s=60, dry_run=True)
    assert caller.scheduler.calls == [
        ("extend", 7, 3600, OWNER, False),
        ("extend", 7, 60, OWNER, True),
    ]


async def test_a_refusal_brings_what_would_be_possible() -> None:
    """As details, so that a program need not read the sentence."""
    caller = Caller()
    caller.scheduler.desk.failure = UserError("refused", "cannot extend r7", {"longest_s": 60.0})
    error = await fail(caller, "run.extend", run="r7", by_s=3600)
    assert (error["code"], error["details"]) == ("refused", {"longest_s": 60.0})


@pytest.mark.parametrize("by_s", [0, -1, None])
async def test_by_nothing_is_no_extension(by_s: int | None) -> None:
    """Nor does it shorten."""
    params = {} if by_s is None else {"by_s": by_s}
    error = await fail(Caller(), "run.extend", run="r7", **params)
    assert error["code"] == "bad_params"


async def test_another_user_may_not_extend() -> None:
    """Nor see the effect."""
    error = await fail(Caller(peer=OTHER), "run.extend", run="r7", by_s=1, dry_run=True)
    assert error["code"] == "not_allowed"
