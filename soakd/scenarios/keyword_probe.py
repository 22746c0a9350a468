"""The calls of a keyword flow: a file is published under a word and looked for by that word.

A hit counts only if its origin is `network`: the publisher's own cache shows what it has published
as `local` at once, which proves nothing (node contract §7.4).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from soakd.core.errors import NodeError
from soakd.core.plan import NodePlan, Plan
from soakd.scenarios.player import OnAnswer, Seen, unheard
from soakd.scenarios.source_probe import fresh_file_id

NETWORK = "network"
FRESH_WORD_BYTES = 6


class Keyword(NamedTuple):
    """What is published: a file under a word."""

    query: str
    file_id: str
    size_bytes: int
    filename: str
    file_type: str | None


class KeywordAnswer(Protocol):
    """What a node says to a publish or a search."""

    @property
    def body(self) -> str:
        """As the node sent it."""

    @property
    def keyword_id(self) -> str | None:
        """32 hex digits; None: the answer has none."""


class KeywordHits(Protocol):
    """What a node knows of a keyword."""

    @property
    def body(self) -> str:
        """As the node sent it."""

    @property
    def hits(self) -> tuple[tuple[str, str], ...]:
        """File id and origin of each, in the node's order."""


class KeywordNode(Protocol):
    """The calls of a keyword flow on one node; a call that fails raises `SoakError`."""

    @property
    def name(self) -> str:
        """As the plan has it."""

    async def publish_keyword(
        self, query: str, file_id: str, size_bytes: int, filename: str, file_type: str | None
    ) -> KeywordAnswer:
        """Queues the publish of a file under a word."""

    async def search_keyword(self, query: str, keyword_id: str | None) -> KeywordAnswer:
        """Queues a search, by id where one is known."""

    async def keyword_hits(self, keyword_id: str) -> KeywordHits:
        """Reads what is known of a keyword."""


@dataclass(slots=True)
class Topic:
    """A keyword that several flows may look for, one after the other.

    Attributes:
        keyword_id: As the nodes said it; None until one of them does.
        published_s: When its publish was answered (boot clock); None: it was not.
    """

    keyword: Keyword
    keyword_id: str | None = None
    published_s: float | None = None


def new_topic(plan: Plan, publisher: NodePlan) -> Topic:
    """What a node publishes next: its own word or a fresh one, a fresh file unless one is given."""
    query = publisher.query
    if query is None:
        # A fresh word where rounds are many: what is listed under one is bounded (§5.6).
        is_selftest = plan.scenario == "dht_selftest"
        fresh = f"soak{secrets.token_hex(FRESH_WORD_BYTES)}"
        query = f"mule{publisher.name}_test" if is_selftest else fresh
    file_id = publisher.file_id or fresh_file_id()
    filename = publisher.filename or f"mule-{publisher.name}-test.bin"
    return Topic(Keyword(query, file_id, plan.file_size_bytes, filename, plan.file_type))


class KeywordCalls:
    """One keyword flow."""

    def __init__(
        self,
        topic: Topic,
        publisher: KeywordNode,
        searcher: KeywordNode,
        on_answer: OnAnswer = unheard,
    ) -> None:
        """Calls nothing yet; `topic` learns the keyword's id."""
        self._topic = topic
        self._publisher = publisher
        self._searcher = searcher
        self._on_answer = on_answer

    async def publish(self) -> str:
        """Publishes the file under the word on the publisher."""
        answer = await self._publisher.publish_keyword(*self._topic.keyword)
        return self._heard(self._publisher, "publish_keyword", answer)

    async def search(self) -> str:
        """Searches for the word on the searcher, by its id if the publish told it."""
        topic = self._topic
        answer = await self._searcher.search_keyword(topic.keyword.query, topic.keyword_id)
        return self._heard(self._searcher, "search_keyword", answer)

    async def read(self) -> Seen:
        """Reads what the searcher has found under the word; only the network's answers count."""
        found = await self._searcher.keyword_hits(self._known_id())
        self._on_answer(self._searcher.name, "keyword_results", found.body)
        wanted = (self._topic.keyword.file_id, NETWORK)
        return Seen(found.body, tuple(hit[0] for hit in found.hits if hit == wanted))

    async def ask_publisher(self) -> None:
        """Reads the publisher's own cache, in which its publish stands at once."""
        if self._topic.keyword_id is not None:
            await self._publisher.keyword_hits(self._topic.keyword_id)

    def _heard(self, node: KeywordNode, step: str, answer: KeywordAnswer) -> str:
        self._on_answer(node.name, step, answer.body)
        if answer.keyword_id is not None:
            self._topic.keyword_id = answer.keyword_id
        return answer.body

    def _known_id(self) -> str:
        if self._topic.keyword_id is None:
            text = "cannot read the results of a keyword: no answer named its keyword_id_hex"
            raise NodeError("no_keyword_id", text)
        return self._topic.keyword_id
