from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from soakd.simnode.keyword_jobs import keyword_of
from tests.simnode.simnodes import MakeNode, SimNode, wait_until
from tests.simnode.test_network import file_id, started, sums

# Nodes together do what each does in the other tests.
pytestmark = pytest.mark.unmeasured


def word_id(word: str) -> str:
    """Return the id of a keyword."""
    keyword = keyword_of(word)
    assert keyword is not None
    return keyword.keyword_id


def publish(node: SimNode, word: str, number: int = 1) -> Any:
    """Publish a numbered file under a keyword; the answer."""
    hit = {"file_id_hex": file_id(number), "filename": f"{number}.iso", "file_size": 3}
    status, answer = node.call("POST", "/kad/publish_keyword", {"query": word, **hit})
    assert status == 200
    return answer


def search(node: SimNode, word: str) -> None:
    """Search a keyword."""
    assert node.call("POST", "/kad/search_keyword", {"query": word})[0] == 200


def origins(node: SimNode, word: str) -> dict[str, str]:
    """Return origin by file of the hits that a node knows of a keyword."""
    hits = node.get(f"/kad/keyword_results/{word_id(word)}")["hits"]
    return {hit["file_id_hex"]: hit["origin"] for hit in hits}


def job(node: SimNode, word: str) -> Any:
    """Return what a node does for a keyword."""
    return node.get(f"/searches/{word_id(word)}")["search"]


def answered(node: SimNode, word: str, *, expected: bool) -> bool:
    """Say whether a publish is acknowledged, if one can expect that."""
    return not expected or bool(job(node, word)["got_publish_ack"])


def test_a_search_turns_the_own_hit_to_network_and_a_publish_turns_it_back(
    make_node: MakeNode,
) -> None:
    """Only network proves the network: a peer stored the hit and answered."""
    a, b = make_node("a"), make_node("b")
    started(a, b)
    publish(a, "mulea_test")
    assert origins(a, "mulea") == {file_id(1): "local"}
    assert job(a, "mulea")["want_search"] is False
    search(a, "mulea_test")
    wait_until(lambda: origins(a, "mulea") == {file_id(1): "network"})
    publish(a, "mulea_test")
    assert origins(a, "mulea") == {file_id(1): "local"}
    wait_until(lambda: bool(job(a, "mulea")["got_publish_ack"]))


def test_two_nodes_find_each_others_keywords(make_node: MakeNode) -> None:
    """The publisher answers in the name of a third, and stores nothing of its own itself."""
    a, b = make_node("a", status_every_secs=0.05), make_node("b", status_every_secs=0.05)
    started(a, b)
    publish(a, "mulea_test")
    search(b, "mulea_test")
    wait_until(lambda: origins(b, "mulea") == {file_id(1): "network"})
    wait_until(lambda: b.get("/status")["store_keyword_hits_total"] == 1)
    wait_until(lambda: b.get("/status")["keyword_hits_total"] == 1)
    assert a.get("/status")["store_keyword_hits_total"] == 0


def test_without_a_third_node_a_keyword_cannot_be_found_if_so_wanted(make_node: MakeNode) -> None:
    """As between two real nodes alone: the publisher is asked and has stored nothing."""
    a, b = make_node("a", keyword_elsewhere=False), make_node("b", status_every_secs=1.0)
    started(a, b)
    publish(a, "mulea")
    search(b, "mulea")
    search(a, "mulea")
    wait_until(lambda: origins(a, "mulea") == {file_id(1): "network"})
    wait_until(lambda: b.get("/status")["store_keyword_hits_total"] == 1)
    assert origins(b, "mulea") == {}


@pytest.mark.slow
def test_the_outcome_of_each_keyword_publish_can_be_scripted(make_node: MakeNode) -> None:
    """Hit soon, late, lost on the way back, or never stored by anyone."""
    script = ["late", "miss", "local", "hit"]
    a, b = make_node("a", keyword_outcomes=script, late_secs=0.6), make_node("b", late_secs=0.6)
    c = make_node("c", late_secs=0.6)
    started(a, b, c)
    for number, word in enumerate(script):
        publish(a, f"word{word}", number)
    for word in script:
        wait_until(partial(answered, a, f"word{word}", expected=word != "local"))
        search(a, f"word{word}")
        search(b, f"word{word}")
    wait_until(lambda: origins(a, "wordhit") == origins(b, "wordhit") == {file_id(3): "network"})
    assert [origins(b, f"word{word}") for word in ("late", "miss", "local")] == [{}, {}, {}]
    assert origins(a, "wordlate") == {file_id(0): "local"}
    wait_until(lambda: origins(b, "wordlate") == {file_id(0): "network"})
    wait_until(lambda: origins(a, "wordlate") == {file_id(0): "network"})
    assert [origins(a, f"word{word}") for word in ("miss", "local")] == [
        {file_id(1): "local"},
        {file_id(2): "local"},
    ]
    assert job(a, "wordlocal")["got_publish_ack"] is False
    assert job(a, "wordlocal")["state"] == "running"


@pytest.mark.slow
def test_rounds_that_share_a_keyword_keep_their_outcomes_apart(make_node: MakeNode) -> None:
    """One search is answered with the old hit at once and with the late one later."""
    a = make_node("a", keyword_outcomes=["hit", "late", "miss"], late_secs=0.5)
    b = make_node("b", late_secs=0.5)
    started(a, b)
    for number in range(3):
        publish(a, "mulea", number)
    search(b, "mulea")
    wait_until(lambda: origins(b, "mulea") == {file_id(0): "network"})
    wait_until(lambda: len(origins(b, "mulea")) == 2)
    assert origins(b, "mulea") == {file_id(0): "network", file_id(1): "network"}


def test_publishing_again_as_local_takes_nothing_back_from_those_who_stored(
    make_node: MakeNode,
) -> None:
    """What was stored stays stored: the searcher, who asks a third, finds it."""
    a, b, c = make_node("a", keyword_outcomes=["hit", "local"]), make_node("b"), make_node("c")
    started(a, b, c)
    publish(a, "mulea")
    wait_until(lambda: bool(job(a, "mulea")["got_publish_ack"]))
    publish(a, "mulea")
    search(b, "mulea")
    wait_until(lambda: origins(b, "mulea") == {file_id(1): "network"})


def test_a_purged_keyword_is_forgotten_by_its_publisher_too(make_node: MakeNode) -> None:
    """Nobody stores it any more once both have purged it."""
    a, b = make_node("a"), make_node("b")
    started(a, b)
    publish(a, "mulea")
    wait_until(lambda: bool(job(a, "mulea")["got_publish_ack"]))
    for node in (a, b):
        node.call("DELETE", f"/searches/{word_id('mulea')}")
    publish(b, "other")
    for word in ("mulea", "other"):
        search(a, word)
    wait_until(lambda: bool(origins(a, "other")))
    assert origins(a, "mulea") == {}


def test_counters_and_gauges_of_keywords_move(make_node: MakeNode) -> None:
    """At both ends, as far as two nodes can show them in one window."""
    a, b = make_node("a", status_every_secs=1.0), make_node("b", status_every_secs=1.0)
    started(a, b)
    publish(a, "mulea")
    wait_until(lambda: bool(job(a, "mulea")["got_publish_ack"]))
    search(a, "mulea")
    wait_until(lambda: origins(a, "mulea") == {file_id(1): "network"})
    asked = ("sent_publish_key_reqs", "recv_publish_key_ress", "sent_search_key_reqs")
    served = ("recv_publish_key_reqs", "sent_publish_key_ress", "recv_search_key_reqs")
    seen_a: dict[int, dict[str, Any]] = {}
    seen_b: dict[int, dict[str, Any]] = {}

    def all_counted() -> bool:
        # Both are looked at each time: a window that nobody reads is lost.
        at_a = sums(a, seen_a, (*asked, "keyword_results"))
        at_b = sums(b, seen_b, (*served, "new_store_keyword_hits"))
        return set(at_a.values()) == set(at_b.values()) == {1}

    wait_until(all_counted)
    assert sums(a, seen_a, ("new_keyword_results",)) == {"new_keyword_results": 0}  # known here
    status = a.get("/status")
    assert (status["keyword_keywords_tracked"], status["keyword_hits_total"]) == (1, 1)


def test_an_older_publish_answer_lacks_the_keyword(make_node: MakeNode) -> None:
    """The search still tells it, so a harness can go on by query."""
    node = make_node(tell_keyword_id=False)
    started(node)
    assert publish(node, "mulea_test") == {"queued": True}
    answer = node.call("POST", "/kad/search_keyword", {"query": "mulea_test"})[1]
    assert answer == {"queued": True, "keyword": "mulea", "keyword_id_hex": word_id("mulea")}
    by_id = {"keyword_id_hex": word_id("mulea").upper(), "query": "other"}
    answer = node.call("POST", "/kad/search_keyword", by_id)[1]
    assert answer == {"queued": True, "keyword": "", "keyword_id_hex": word_id("mulea")}
