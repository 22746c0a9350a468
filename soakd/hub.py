"""What watchers of a run hear: numbered events, and gap marks where a reader was too slow.

One `Hub` per live run. Publishing never waits: a slow watcher loses events and is told which, it
never holds a round up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

REMEMBERED_EVENTS = 256
WATCHER_BACKLOG = 64
BACKLOG = REMEMBERED_EVENTS + WATCHER_BACKLOG
ROOM_FOR_THE_END = 2
"""However slow a watcher is, the end reaches it, with the gap mark before it."""

Event = dict[str, Any]


class Hub:
    """Events of one run: `{seq, kind, data}`, `seq` from 1 without holes."""

    def __init__(self) -> None:
        """Starts with nothing published and nobody watching."""
        self._seq = 0
        self._memory: deque[Event] = deque(maxlen=REMEMBERED_EVENTS)
        self._watchers: dict[trio.MemorySendChannel[Event], int] = {}
        self._closed = False

    @property
    def watched(self) -> bool:
        """Whether anyone listens now: if not, the publisher need not build what nobody gets."""
        return bool(self._watchers)

    def publish(self, kind: str, data: Mapping[str, Any]) -> None:
        """Numbers and remembers an event; watchers without room get a gap mark for it later.

        After `close` there is nothing to tell any more.
        """
        if self._closed:
            return
        self._seq += 1
        event: Event = {"seq": self._seq, "kind": kind, "data": dict(data)}
        self._memory.append(event)
        for watcher, lost_from in list(self._watchers.items()):
            self._offer(watcher, lost_from, event)

    def close(self) -> None:
        """Ends every watch after what is already in its backlog; a second close does nothing."""
        self._closed = True
        for watcher in list(self._watchers):
            watcher.close()
        self._watchers.clear()

    @asynccontextmanager
    async def subscribe(self, after: int | None) -> AsyncIterator[trio.MemoryReceiveChannel[Event]]:
        """Yields the channel of a new watcher.

        Args:
            after: number of the last event already seen: what is still remembered behind it comes
                first, and a gap mark for what is not;
                None = only the newest event and what follows.
        """
        send, receive = trio.open_memory_channel[Event](BACKLOG + ROOM_FOR_THE_END)
        for event in self._replay(after):
            send.send_nowait(event)
        if self._closed:
            send.close()
        else:
            self._watchers[send] = 0
        try:
            async with receive:
                yield receive
        finally:
            self._watchers.pop(send, None)
            send.close()

    def _replay(self, after: int | None) -> list[Event]:
        if after is None:
            return list(self._memory)[-1:]
        remembered = [event for event in self._memory if event["seq"] > after]
        first = remembered[0]["seq"] if remembered else self._seq + 1
        if first > after + 1:
            remembered.insert(0, _gap(after + 1, first - 1))
        return remembered

    def _offer(self, watcher: trio.MemorySendChannel[Event], lost_from: int, event: Event) -> None:
        try:
            if event["kind"] != "end" and watcher.statistics().current_buffer_used >= BACKLOG:
                self._watchers[watcher] = lost_from or event["seq"]
                return
            if lost_from:
                watcher.send_nowait(_gap(lost_from, event["seq"] - 1))
                self._watchers[watcher] = 0
            watcher.send_nowait(event)
        except trio.BrokenResourceError:
            # The watcher has closed its end; its own clean-up takes it out of the table.
            self._watchers.pop(watcher, None)


def _gap(first: int, last: int) -> Event:
    return {"seq": last, "kind": "gap", "data": {"from": first, "to": last}}
