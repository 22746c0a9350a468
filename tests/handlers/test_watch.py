"""Watching a run."""

from __future__ import annotations

from typing import Any

from soakd.wire.messages import PUBLIC_RUN_KEYS
from tests.handlers.calls import call
from tests.handlers.fakes import OTHER, Caller

EVENTS: list[dict[str, Any]] = [
    {"seq": 3, "kind": "state", "data": {"state": "running", "nodes": []}},
    {"seq": 4, "kind": "progress", "data": {"phase": "publish"}},
    {"seq": 9, "kind": "gap", "data": {"from": 5, "to": 9}},
    {"seq": 10, "kind": "event", "data": {"what": "panic"}},
    {"seq": 11, "kind": "rung", "data": {"rung": "sigint", "pids": [5]}},
    {"seq": 12, "kind": "end", "data": {"state": "finished", "nodes": []}},
]


async def test_the_owner_hears_every_event_in_order() -> None:
    """Then the response names the last number, to resume after."""
    caller = Caller()
    caller.scheduler.events, caller.scheduler.finished = EVENTS, True
    assert await call(caller, "run.watch", after=2) == {"run": "r7", "last_seq": 12}
    assert caller.heard == [("run.event", {"run": "r7", **event}) for event in EVENTS]
    assert caller.scheduler.calls == [("watch", 7, 2)]


async def test_a_foreigner_hears_states_with_public_keys_only() -> None:
    """Neither pids nor events nor rungs of others are shown."""
    caller = Caller(peer=OTHER)
    caller.scheduler.events, caller.scheduler.finished = EVENTS, True
    await call(caller, "run.watch", run="r7")
    heard = [params for _method, params in caller.heard]
    assert [params["kind"] for params in heard] == ["state", "gap", "end"]
    assert set(heard[0]["data"]) == set(heard[2]["data"]) == set(PUBLIC_RUN_KEYS)
    assert heard[1]["data"] == {"from": 5, "to": 9}


async def test_a_watch_without_events_returns_where_it_began() -> None:
    """Nothing new: the number to resume after is unchanged."""
    caller = Caller()
    caller.scheduler.finished = True
    assert (await call(caller, "run.watch", after=12))["last_seq"] == 12
    assert (await call(caller, "run.watch"))["last_seq"] == 0
