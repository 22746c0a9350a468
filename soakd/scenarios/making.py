"""From a flow to its calls: what is published, and whether that has been done already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from soakd.core.flows import SELFTEST, Flow
from soakd.core.plan import Plan
from soakd.scenarios.keyword_probe import KeywordCalls, KeywordNode, Topic, new_topic
from soakd.scenarios.player import Calls, OnAnswer
from soakd.scenarios.source_probe import (
    File,
    SourceCalls,
    SourceNode,
    fresh_file_id,
    random_file,
)


class FlowNode(SourceNode, KeywordNode, Protocol):
    """A node that can do its part in every flow."""


class CallsMaker:
    """Makes the calls of one flow after the other; knows the keyword that two of them share."""

    def __init__(self, plan: Plan, nodes: Mapping[str, FlowNode], on_answer: OnAnswer) -> None:
        """Calls nothing.

        Args:
            plan: what is published, as far as it says.
            nodes: by name.
            on_answer: hears of each answer to a flow's calls.
        """
        self._plan = plan
        self._nodes = nodes
        self._on_answer = on_answer
        self._topic: Topic | None = None

    def make(self, flow: Flow) -> tuple[File, Calls, float | None]:
        """Returns what a flow is about, its calls, and when its publish was answered already."""
        publisher, searcher = self._nodes[flow.publisher], self._nodes[flow.searcher]
        if flow.kind == "source":
            self._topic = None
            file = random_file()
            if self._plan.scenario == SELFTEST:
                file = File(fresh_file_id(), self._plan.file_size_bytes)
            return file, SourceCalls(file, publisher, searcher, self._on_answer), None
        topic = self._topic
        if flow.publishes or topic is None or topic.published_s is None:
            # A flow that comes first after a take-over, or after a failed publish, publishes too.
            node = next(node for node in self._plan.nodes if node.name == flow.publisher)
            topic = new_topic(self._plan, node)
        self._topic = topic
        calls = KeywordCalls(topic, publisher, searcher, self._on_answer)
        file = File(topic.keyword.file_id, topic.keyword.size_bytes)
        return file, calls, topic.published_s

    def published(self, at_s: float | None) -> None:
        """The flow made last has been published at that time (boot clock); None: it was not."""
        if self._topic is not None:
            self._topic.published_s = at_s
