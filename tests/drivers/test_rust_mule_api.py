"""The driver's HTTP half: tokens, and answers of every quality."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from soakd.core import readiness
from soakd.core.errors import HostError, NodeError
from soakd.core.plan import CALL_TIMEOUT_S
from soakd.drivers.rust_mule_api import MAX_ERROR_BODY, RustMuleApi

FILE = "0" * 32


@dataclass
class Answer:
    status: int
    body: bytes


class Node:
    """Answers in order (the last one for ever), and remembers what it was sent."""

    def __init__(self, *answers: Answer | Exception, tokens: tuple[str, ...] = ("t1",)) -> None:
        self.answers = list(answers)
        self.tokens = list(tokens)
        self.calls: list[tuple[str, str, str | None, dict[str, Any] | None]] = []
        self.times: list[float] = []
        self.asides: list[bool] = []
        self.takes_s = 0.0
        self.heard: list[str] = []
        self.reads = 0
        self.api = RustMuleApi(self, self.read_token, self.on_token)

    async def call(
        self,
        method: str,
        path: str,
        *,
        token: str | None,
        body: dict[str, Any] | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
        aside: bool = False,
    ) -> Answer:
        await trio.sleep(self.takes_s)
        self.calls.append((method, path, token, body))
        self.times.append(timeout_s)
        self.asides.append(aside)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def read_token(self) -> str:
        await trio.lowlevel.checkpoint()
        self.reads += 1
        return self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0]

    async def on_token(self, token: str) -> None:
        await trio.lowlevel.checkpoint()
        self.heard.append(token)


def ok(data: object) -> Answer:
    return Answer(200, json.dumps(data).encode())


FORBIDDEN = Answer(403, b"no")


# -- tokens ------------------------------------------------------------------------------------


async def test_token_is_read_once_and_reported_before_it_is_used() -> None:
    """A bundle must be cleaned of every value that was ever sent."""
    node = Node(ok({"queued": True}))
    for _ in range(3):
        await node.api.publish_source(FILE, 5)
    assert (node.reads, node.heard) == (1, ["t1"])
    assert {call[2] for call in node.calls} == {"t1"}


async def test_403_makes_the_token_be_read_again() -> None:
    """The node was restarted and has made itself a new one: the call goes on with it."""
    node = Node(ok({"queued": True}), FORBIDDEN, ok({"queued": True}), tokens=("t1", "t2"))
    await node.api.publish_source(FILE, 5)
    await node.api.publish_source(FILE, 5)
    assert [call[2] for call in node.calls] == ["t1", "t1", "t2"]
    assert node.heard == ["t1", "t2"]


async def test_403_to_an_unchanged_token_is_the_answer() -> None:
    """No second call with the same token."""
    node = Node(ok({"queued": True}), FORBIDDEN)
    await node.api.publish_source(FILE, 5)
    with pytest.raises(NodeError, match="HTTP 403 'no'"):
        await node.api.publish_source(FILE, 5)
    assert (len(node.calls), node.heard) == (2, ["t1"])


async def test_403_to_a_token_just_read_is_not_asked_twice() -> None:
    """A listener with another token is nobody to insist with."""
    node = Node(FORBIDDEN)
    assert await node.api.status() == (403, "no")
    assert (node.reads, len(node.calls)) == (1, 1)


async def test_forgotten_token_is_read_again() -> None:
    """While waiting for readiness every poll looks at the file."""
    node = Node(FORBIDDEN, Answer(503, b"{}"), tokens=("t1", "t2"))
    assert await node.api.readiness() == readiness.Forbidden403()
    assert await node.api.readiness() == readiness.Warming503()
    assert node.heard == ["t1", "t2"]


async def test_forgotten_and_unchanged_token_is_reported_at_most_again() -> None:
    """What matters is that every value was reported."""
    node = Node(FORBIDDEN)
    for _ in range(3):
        await node.api.readiness()
    assert set(node.heard) == {"t1"}


async def test_token_that_could_not_be_kept_is_not_sent() -> None:
    """Were the store full, a bundle could leak it."""
    node = Node(ok({"queued": True}))

    async def fails(_token: str) -> None:
        await trio.lowlevel.checkpoint()
        raise HostError("internal", "cannot write")

    api = RustMuleApi(node, node.read_token, fails)
    for _ in range(2):
        with pytest.raises(HostError):
            await api.publish_source(FILE, 5)
    assert node.calls == []


# -- answers -----------------------------------------------------------------------------------


async def test_calls_go_to_their_routes() -> None:
    """Methods, paths and bodies as the contract has them; raw bodies come back."""
    node = Node(ok({"queued": True, "sources": [], "uptime_secs": 3}))
    body = '{"queued": true, "sources": [], "uptime_secs": 3}'
    assert await node.api.publish_source(FILE, 5) == body
    assert await node.api.search_sources(FILE, 6) == body
    assert (await node.api.sources(FILE)).body == body
    assert await node.api.status_snapshot() == (body, 3)
    assert [call[:2] for call in node.calls] == [
        ("POST", "/api/v1/kad/publish_source"),
        ("POST", "/api/v1/kad/search_sources"),
        ("GET", f"/api/v1/kad/sources/{FILE}"),
        ("GET", "/api/v1/status"),
    ]
    assert node.calls[0][3] == {"file_id_hex": FILE, "file_size": 5}
    assert node.calls[2][3] is None


async def test_source_ids_come_in_the_nodes_order() -> None:
    """And nothing else of a row matters."""
    node = Node(ok({"sources": [{"source_id_hex": "b", "x": 1}, {"source_id_hex": "a"}]}))
    assert (await node.api.sources(FILE)).source_ids == ("b", "a")


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500, b"oops"),
        Answer(200, b""),
        Answer(200, b"<html>"),
        Answer(200, b"\xff\xfe\xfd"),
        Answer(200, b"[]"),
        Answer(200, b"null"),
        Answer(200, b"9" * 5000),
        Answer(200, b'{"x":' + b"9" * 5000 + b"}"),
        Answer(200, b"{}"),
        Answer(200, b'{"queued":"true","sources":{},"uptime_secs":"5"}'),
        Answer(200, b'{"queued":1,"sources":[1],"uptime_secs":null}'),
        Answer(200, b'{"queued":false,"sources":[{"source_id_hex":7}],"uptime_secs":1.5}'),
        Answer(200, b'{"uptime_secs":' + b"9" * 400 + b"}"),
        Answer(200, b'{"uptime_secs":-1}'),
    ],
)
async def test_answer_of_no_use_is_the_nodes_error(answer: Answer) -> None:
    """Whatever a node sends, it is data: a NodeError, never a crash."""
    api = Node(answer).api
    for call in (
        api.publish_source(FILE, 5),
        api.search_sources(FILE, 5),
        api.sources(FILE),
        api.status_snapshot(),
    ):
        with pytest.raises(NodeError):
            await call


async def test_nesting_without_end_is_the_nodes_error() -> None:
    """A megabyte of brackets overflows the parser's recursion, not ours."""
    with pytest.raises(NodeError):
        await Node(Answer(200, b"[" * 500_000)).api.sources(FILE)


async def test_a_refused_token_has_a_name_of_its_own() -> None:
    """It is neither an error of the API nor garbage: somebody has another token."""
    with pytest.raises(NodeError) as error:
        await Node(FORBIDDEN).api.sources(FILE)
    assert error.value.code == "token_refused"
    with pytest.raises(NodeError) as error:
        await Node(Answer(404, b"no")).api.sources(FILE)
    assert error.value.code == "bad_status"


@pytest.mark.slow
async def test_a_call_that_is_made_twice_takes_no_longer_than_one() -> None:
    """What the refusal has taken is missing from the time of the second one."""
    node = Node(ok({"sources": []}), FORBIDDEN, ok({"sources": []}), tokens=("t1", "t2"))
    await node.api.sources(FILE)
    node.takes_s = 0.3
    await node.api.sources(FILE)
    assert node.times[:2] == [CALL_TIMEOUT_S, CALL_TIMEOUT_S]
    assert CALL_TIMEOUT_S - 3 < node.times[2] <= CALL_TIMEOUT_S - 0.3


async def test_a_snapshot_can_be_taken_aside() -> None:
    """Only then: what a round waits for has its own connection."""
    node = Node(ok({"uptime_secs": 3, "sources": []}))
    await node.api.status_snapshot(aside=True)
    await node.api.status_snapshot()
    await node.api.sources(FILE)
    assert node.asides == [True, False, False]


async def test_readiness_is_what_the_status_says() -> None:
    """200 is ready, 503 warm-up, 403 a wrong token; anything else is shown."""
    assert await Node(ok({"uptime_secs": 3})).api.readiness() == readiness.Ready()
    assert await Node(Answer(500, b"oh")).api.readiness() == readiness.Bad("HTTP 500 'oh'")


async def test_a_node_that_answers_garbage_is_not_ready() -> None:
    """200 alone is no status; every other answer passes, it has a meaning of its own."""
    assert await Node(ok({"uptime_secs": 3})).api.status() == (200, '{"uptime_secs": 3}')
    assert await Node(Answer(503, b"\xff")).api.status() == (503, "\ufffd")
    for body in (b"", b"<html>", b"[]", b"{}"):
        with pytest.raises(NodeError, match="status"):
            await Node(Answer(200, body)).api.status()


async def test_quoted_bodies_are_short_and_flat() -> None:
    """They go into logs and status."""
    body = b"line\n\tline " + b"\x1b[31m" + b"x" * 10_000
    with pytest.raises(NodeError) as error:
        await Node(Answer(500, body)).api.sources(FILE)
    assert len(error.value.message) < MAX_ERROR_BODY + 100
    assert error.value.message.isprintable()


async def test_quoting_a_huge_body_takes_little_memory() -> None:
    """A megabyte of one-letter words; cut, and marked as cut."""
    node = Node(Answer(500, b" " * 1000 + b"x " * 500_000))
    tracemalloc.start()
    try:
        with pytest.raises(NodeError) as error:
            await node.api.sources(FILE)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "x x x" in error.value.message
    assert error.value.message.endswith("…'")
    assert most_bytes < 5_000_000


async def test_errors_of_the_connection_pass() -> None:
    """They are the HTTP layer's to word."""
    failure = NodeError("api_refused", "cannot call: nobody listens")
    with pytest.raises(NodeError) as error:
        await Node(failure).api.status()
    assert error.value is failure
