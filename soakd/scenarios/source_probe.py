"""The calls of a source flow: a file is published as held by one node and looked for on another."""

from __future__ import annotations

import secrets
from typing import NamedTuple, Protocol

from soakd.scenarios.player import OnAnswer, Seen, unheard

FILE_ID_BYTES = 16
MIN_FILE_SIZE_BYTES = 1024
MAX_FILE_SIZE_BYTES = 5_001_023


class File(NamedTuple):
    """What is published: 32 hex digits, and a size in bytes."""

    file_id: str
    size_bytes: int


class Sources(Protocol):
    """A searcher's answer: the raw body and the source ids in it."""

    @property
    def body(self) -> str:
        """As the node sent it."""

    @property
    def source_ids(self) -> tuple[str, ...]:
        """Ids in the node's order."""


class SourceNode(Protocol):
    """The calls of a source flow on one node; a call that fails raises `SoakError`."""

    @property
    def name(self) -> str:
        """As the plan has it."""

    async def publish_source(self, file_id: str, size_bytes: int) -> str:
        """Queues a publish and returns the raw answer."""

    async def search_sources(self, file_id: str, size_bytes: int) -> str:
        """Queues a search and returns the raw answer."""

    async def sources(self, file_id: str) -> Sources:
        """Reads the source table for a file."""


def fresh_file_id() -> str:
    """A fresh 128-bit file id: ids are never reused, since rows in nodes never expire."""
    return secrets.token_hex(FILE_ID_BYTES)


def random_file() -> File:
    """A fresh file with a size of its own."""
    size = MIN_FILE_SIZE_BYTES + secrets.randbelow(MAX_FILE_SIZE_BYTES - MIN_FILE_SIZE_BYTES + 1)
    return File(fresh_file_id(), size)


class SourceCalls:
    """One source flow."""

    def __init__(
        self,
        file: File,
        publisher: SourceNode,
        searcher: SourceNode,
        on_answer: OnAnswer = unheard,
    ) -> None:
        """Calls nothing yet."""
        self._file = file
        self._publisher = publisher
        self._searcher = searcher
        self._on_answer = on_answer

    async def publish(self) -> str:
        """Publishes the file on the publisher."""
        body = await self._publisher.publish_source(*self._file)
        self._on_answer(self._publisher.name, "publish_source", body)
        return body

    async def search(self) -> str:
        """Searches for it on the searcher."""
        body = await self._searcher.search_sources(*self._file)
        self._on_answer(self._searcher.name, "search_sources", body)
        return body

    async def read(self) -> Seen:
        """Reads the sources that the searcher knows."""
        seen = await self._searcher.sources(self._file.file_id)
        self._on_answer(self._searcher.name, "sources", seen.body)
        return Seen(seen.body, seen.source_ids)

    async def ask_publisher(self) -> None:
        """Reads the publisher's own table, in which its publish stands at once."""
        await self._publisher.sources(self._file.file_id)
