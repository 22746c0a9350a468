"""Watchers: numbered events, replay from memory, gap marks, and an end for everyone."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from soakd.hub import REMEMBERED_EVENTS, WATCHER_BACKLOG, Event, Hub

BACKLOG = REMEMBERED_EVENTS + WATCHER_BACKLOG


def publish(hub: Hub, count: int) -> None:
    for _ in range(count):
        hub.publish("event", {})


async def heard(hub: Hub, after: int | None) -> list[Event]:
    """What a watcher gets that comes now and reads until the end."""
    async with hub.subscribe(after) as events:
        hub.close()
        return [event async for event in events]


def numbers(events: list[Event]) -> list[int]:
    return [event["seq"] for event in events]


def covered(events: list[Event]) -> list[int]:
    """Every number that an event or a gap mark stands for, in order."""
    found: list[int] = []
    for event in events:
        first = event["data"]["from"] if event["kind"] == "gap" else event["seq"]
        found += range(first, event["seq"] + 1)
    return found


async def test_watcher_hears_events_as_they_come() -> None:
    """Numbered from 1, without holes."""
    hub = Hub()
    async with hub.subscribe(None) as events:
        hub.publish("state", {"state": "running"})
        hub.publish("progress", {"x": 1})
        first, second = await events.receive(), await events.receive()
    assert first == {"seq": 1, "kind": "state", "data": {"state": "running"}}
    assert second["seq"] == 2


async def test_event_is_not_changed_behind_the_watchers_back() -> None:
    """The publisher may go on using its map."""
    hub = Hub()
    data = {"n": 1}
    async with hub.subscribe(None) as events:
        hub.publish("event", data)
        data["n"] = 2
        assert (await events.receive())["data"] == {"n": 1}


async def test_newcomer_gets_the_newest_event_or_what_it_asks_for() -> None:
    """`after` None: only the last; a number: everything behind it."""
    for after, expected in ((None, [5]), (0, [1, 2, 3, 4, 5]), (3, [4, 5]), (5, []), (99, [])):
        hub = Hub()
        publish(hub, 5)
        assert numbers(await heard(hub, after)) == expected
    assert await heard(Hub(), None) == []


async def test_forgotten_events_are_marked_as_a_gap() -> None:
    """A resuming watcher learns exactly what it missed."""
    hub = Hub()
    publish(hub, REMEMBERED_EVENTS + 10)
    events = await heard(hub, 4)
    assert events[0] == {"seq": 10, "kind": "gap", "data": {"from": 5, "to": 10}}
    assert covered(events) == [*range(5, REMEMBERED_EVENTS + 11)]


async def test_slow_watcher_gets_a_gap_mark_and_holds_nobody_up() -> None:
    """What did not fit is named as soon as there is room again."""
    hub = Hub()
    async with hub.subscribe(0) as slow, hub.subscribe(0) as quick:
        seen = []
        for _ in range(BACKLOG + 20):
            publish(hub, 1)
            seen.append((await quick.receive())["seq"])
        assert seen == [*range(1, BACKLOG + 21)]
        events = [await slow.receive() for _ in range(10)]
        publish(hub, 1)
        hub.close()
        events += [event async for event in slow]
    assert covered(events) == [*range(1, BACKLOG + 22)]
    assert [event["kind"] for event in events].count("gap") == 1


async def test_gap_mark_that_fits_alone_is_not_repeated() -> None:
    """Room for the mark but not for the event behind it: the next mark begins there."""
    hub = Hub()
    async with hub.subscribe(0) as slow:
        publish(hub, BACKLOG + 5)
        events = [await slow.receive()]
        publish(hub, 1)
        events += [await slow.receive() for _ in range(3)]
        publish(hub, 1)
        hub.close()
        events += [event async for event in slow]
    assert covered(events) == [*range(1, BACKLOG + 8)]


async def test_slow_watcher_hears_the_end() -> None:
    """However much it missed: without the end a `wait` would have no verdict."""
    hub = Hub()
    async with hub.subscribe(0) as slow:
        publish(hub, BACKLOG + 5)
        hub.publish("end", {"verdict": "passed"})
        hub.close()
        events = [event async for event in slow]
    assert events[-1]["kind"] == "end"
    assert covered(events) == [*range(1, BACKLOG + 7)]


async def test_close_ends_every_watch_behind_its_backlog() -> None:
    """Nothing published before is lost; closing twice is closing once."""
    hub = Hub()
    async with hub.subscribe(None) as one, hub.subscribe(None) as two:
        publish(hub, 3)
        hub.close()
        hub.close()
        assert not hub.watched
        for events in (one, two):
            assert numbers([event async for event in events]) == [1, 2, 3]


async def test_watch_of_a_closed_hub_replays_and_ends() -> None:
    """A watcher that comes just after the end."""
    hub = Hub()
    publish(hub, 2)
    hub.publish("end", {})
    hub.close()
    with trio.fail_after(1):
        assert numbers(await heard(hub, 1)) == [2, 3]


async def test_watcher_that_leaves_is_forgotten() -> None:
    """By leaving the block, or by closing its end first."""
    hub = Hub()
    assert not hub.watched
    async with hub.subscribe(None) as events:
        assert hub.watched
        events.close()
        publish(hub, 2)
        assert not hub.watched
    async with hub.subscribe(None):
        assert hub.watched
    assert not hub.watched
    publish(hub, 1)


async def test_memory_is_bounded() -> None:
    """A soak of days publishes without end."""
    hub = Hub()
    async with hub.subscribe(0) as events:
        publish(hub, 5000)
        assert events.statistics().current_buffer_used <= BACKLOG
    assert len(await heard(hub, 0)) <= REMEMBERED_EVENTS + 1


@pytest.mark.parametrize("after", [-5, 0])
async def test_odd_numbers_do_no_harm(after: int) -> None:
    """`after` comes from a client."""
    hub = Hub()
    publish(hub, 2)
    events: list[dict[str, Any]] = await heard(hub, after)
    assert numbers(events)[-2:] == [1, 2]
