"""status.ndjson and status_samples.ndjson: what the nodes' status lines come to.

Two readings of the same lines. The old triage's: of some counters the maximum and the last value
over all lines, a value being the first match of `"key":digits`, absent = 0. And ours: each snapshot
counted once, lifetime totals followed across restarts.
"""

from __future__ import annotations

import re
from typing import Any

from soakd.triage.node_status import NodeStatus
from soakd.triage.status_batch import Layout

MAX_NODES = 64
_NODE = re.compile(rb"[A-Za-z0-9_-]{1,20}")


class Status:
    """What stands in one such file, or in a part of it.

    Attributes:
        nodes: by the letter that the lines bear.
        torn: lines without a node.
    """

    def __init__(self, earlier: Status | None = None) -> None:
        """Has seen nothing; the nodes of an earlier part most likely go on as they were."""
        self._layouts = {} if earlier is None else earlier.layouts()
        self.nodes: dict[str, NodeStatus] = {}
        self.torn = 0
        self._by_mark: dict[bytes, NodeStatus] = {}

    def add(self, text: bytes) -> None:
        """Take the next lines; the last one's end is left out."""
        at = 0
        while at <= len(text):
            end = text.find(b"\n", at)
            end = len(text) if end < 0 else end
            begin = text.find(b"{", at, end)
            node = self._by_mark.get(text[begin - 3 : begin]) if begin >= at + 3 else None
            if node is None:
                begin = _after_second_tab(text, at, end)
                node = self._node_of(text[at:begin]) if begin > at else None
            if node is None:
                self.torn += 1
            else:
                node.add(text[at:begin], text[begin:end])
            at = end + 1

    def layouts(self) -> dict[str, Layout | None]:
        """Return what was learned of each node's lines."""
        return {name: node.layout for name, node in self.nodes.items()}

    def finish(self) -> None:
        """Take what is left after the last line."""
        for node in self.nodes.values():
            node.finish()

    def join(self, later: Status) -> None:
        """Append a later part of the same file; both must be finished."""
        self.torn += later.torn
        for name, node in later.nodes.items():
            if name in self.nodes:
                self.nodes[name].join(node)
            elif len(self.nodes) < MAX_NODES:
                self.nodes[name] = node

    def dump(self) -> list[Any]:
        """Return all of it as plain data; it must be finished."""
        return [self.torn, {name: node.dump() for name, node in self.nodes.items()}]

    @classmethod
    def load(cls, data: list[Any]) -> Status:
        """Make it of what `dump` gave."""
        status = cls()
        status.torn = data[0]
        status.nodes = {name: NodeStatus.load(node) for name, node in data[1].items()}
        return status

    def _node_of(self, head: bytes) -> NodeStatus | None:
        """Find or make the node of a line that begins `TIME ⇥ NODE ⇥`."""
        fields = head.split(b"\t")
        if len(fields) != 3 or not _NODE.fullmatch(fields[1]):
            return None
        name = fields[1].decode()
        if name not in self.nodes:
            if len(self.nodes) >= MAX_NODES:
                return None
            self.nodes[name] = NodeStatus(self._layouts.get(name))
            # Of most lines these three bytes before the brace say whose they are.
            if len(name) == 1:
                self._by_mark[b"\t" + fields[1] + b"\t"] = self.nodes[name]
        return self.nodes[name]


def _after_second_tab(text: bytes, at: int, end: int) -> int:
    """Return where the object of a line begins; where the line does if it has not two tabs."""
    first = text.find(b"\t", at, end)
    second = text.find(b"\t", first + 1, end) if first >= 0 else -1
    return second + 1 if second >= 0 else at
