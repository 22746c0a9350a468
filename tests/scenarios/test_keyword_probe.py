"""The calls of keyword flows: what is published, what counts as found, and which id is used."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from soakd.core.errors import NodeError
from soakd.core.flows import Flow
from soakd.core.plan import Plan
from soakd.scenarios.keyword_probe import KeywordCalls, Topic, new_topic
from soakd.scenarios.making import CallsMaker
from tests.core.helpers import make_plan
from tests.run.kit import FakeNet, FakeNode


def selftest_plan(**changes: Any) -> Plan:
    return make_plan(scenario="dht_selftest", **changes)


def test_a_self_test_has_the_scripts_words_and_fresh_files() -> None:
    """The files differ each time: round 2 must not find round 1's."""
    plan = selftest_plan()
    first, second = (new_topic(plan, plan.nodes[0]).keyword for _ in range(2))
    assert (first.query, first.filename, first.size_bytes) == ("mulea_test", "mule-a-test.bin", 123)
    assert first.file_id != second.file_id


def test_a_keyword_probe_has_a_fresh_word_each_time() -> None:
    """What a node lists under one word is bounded."""
    plan = make_plan(scenario="keyword_probe")
    words = {new_topic(plan, plan.nodes[0]).keyword.query for _ in range(50)}
    assert len(words) == 50


async def test_only_a_hit_of_the_network_counts(autojump_clock: MockClock) -> None:
    """On the publisher its own publish stands as local at once."""
    net = FakeNet("miss", "hit")
    node = FakeNode("a", net)
    plan = selftest_plan()
    calls = KeywordCalls(new_topic(plan, plan.nodes[0]), node, node)
    await calls.publish()
    await calls.search()
    assert await calls.read() == ("nothing", ())
    await calls.ask_publisher()
    assert net.called[-1] == ("a", "keyword_hits")


async def test_a_search_goes_by_the_id_that_the_publish_has_told(
    autojump_clock: MockClock,
) -> None:
    """Each answer is heard of, under the name of its step."""
    net, heard = FakeNet(), []
    plan = selftest_plan()
    topic = new_topic(plan, plan.nodes[0])
    a, b = FakeNode("a", net), FakeNode("b", net)
    calls = KeywordCalls(topic, a, b, lambda *said: heard.append(said[:2]))
    await calls.publish()
    await calls.search()
    await calls.read()
    assert net.called[1] == ("b", "search_keyword by id")
    assert heard == [("a", "publish_keyword"), ("b", "search_keyword"), ("b", "keyword_results")]


async def test_without_an_id_the_search_goes_by_the_query_and_a_read_says_what_is_missing(
    autojump_clock: MockClock,
) -> None:
    """An older node answers a publish without `keyword_id_hex`."""
    net = FakeNet()
    net.tells_keyword_ids = False
    plan = selftest_plan()
    calls = KeywordCalls(new_topic(plan, plan.nodes[0]), FakeNode("a", net), FakeNode("b", net))
    await calls.publish()
    await calls.search()
    assert net.called[1] == ("b", "search_keyword by query")
    with pytest.raises(NodeError, match="no answer named its keyword_id_hex"):
        await calls.read()
    await calls.ask_publisher()


def test_two_flows_share_a_publish_unless_it_failed() -> None:
    """A flow that comes first after a take-over publishes for itself."""
    nodes = {name: FakeNode(name, FakeNet()) for name in "ab"}
    maker = CallsMaker(selftest_plan(), nodes, lambda *_said: None)
    second = Flow("keyword", "a", "b", publishes=False)
    file, _, published_s = maker.make(Flow("keyword", "a", "a"))
    assert published_s is None
    maker.published(12.0)
    assert maker.make(second)[::2] == (file, 12.0)
    maker.published(None)
    other, _, published_s = maker.make(second)
    assert (other == file, published_s) == (False, None)


def test_a_source_flow_of_a_self_test_has_a_file_of_the_plans_size() -> None:
    """And knows nothing of a keyword before it."""
    nodes = {name: FakeNode(name, FakeNet()) for name in "ab"}
    maker = CallsMaker(selftest_plan(file_size_bytes=77), nodes, lambda *_said: None)
    assert maker.make(Flow("source", "a", "b"))[0].size_bytes == 77
    maker.published(3.0)
    probe = CallsMaker(make_plan(), nodes, lambda *_said: None)
    assert probe.make(Flow("source", "a", "b"))[0].size_bytes >= 1024


def test_what_the_plan_names_is_published() -> None:
    """Word, file and name of a node, and the type of all."""
    plan = selftest_plan(file_type="Doc")
    data = plan.nodes[0]
    named = type(data)(
        data.name, data.source, data.host, data.port, data.roles, (), "word", "ab" * 16, "x.bin"
    )
    topic = new_topic(plan, named)
    assert topic == Topic(topic.keyword)
    assert topic.keyword == ("word", "ab" * 16, 123, "x.bin", "Doc")
