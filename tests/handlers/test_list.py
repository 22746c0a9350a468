"""Lists of runs."""

from __future__ import annotations

from typing import Any

import pytest

from soakd.handlers import list as list_handler
from soakd.handlers.list import MAX_LISTED
from soakd.wire.messages import PUBLIC_RUN_KEYS
from tests.handlers.calls import call
from tests.handlers.fakes import ADMIN, OWNER, Caller


async def test_one_sees_ones_own_runs() -> None:
    """Without `all` the scheduler is asked for the peer's runs."""
    caller = Caller()
    result = await call(caller, "run.list")
    assert result == {"runs": [caller.scheduler.full_status()], "truncated": False}
    assert caller.scheduler.calls == [("list_runs", OWNER, False)]


async def test_others_runs_are_cut_to_the_public_keys() -> None:
    """One's own keep everything."""
    mine, theirs = (await call(Caller(), "run.list", all=True))["runs"]
    assert "nodes" in mine
    assert set(theirs) == set(PUBLIC_RUN_KEYS)


async def test_an_admin_sees_everybodys() -> None:
    """Nothing is cut."""
    runs = (await call(Caller(peer=ADMIN), "run.list", all=True))["runs"]
    assert all("nodes" in run for run in runs)


async def test_a_long_list_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer must fit into a frame; the newest come first."""
    caller = Caller()

    async def many(_peer: object, *, all_runs: bool) -> list[dict[str, Any]]:
        return [{**caller.scheduler.full_status(), "id": f"r{n}"} for n in range(MAX_LISTED + 1)]

    monkeypatch.setattr(caller.scheduler, "list_runs", many)
    result = await call(caller, "run.list")
    assert len(result["runs"]) == MAX_LISTED
    assert result["truncated"] is True
    assert result["runs"][0]["id"] == "r0"


async def test_a_list_too_large_for_a_frame_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """One run with very many gaps must not cost the whole list."""
    monkeypatch.setattr(list_handler, "MAX_LISTED_BYTES", 400)
    caller = Caller()
    caller.scheduler.extra = {"why": "x" * 50}
    result = await call(caller, "run.list", all=True)
    assert (len(result["runs"]), result["truncated"]) == (2, False)
    caller.scheduler.extra = {"why": "x" * 300}
    result = await call(caller, "run.list", all=True)
    assert (len(result["runs"]), result["truncated"]) == (0, True)
