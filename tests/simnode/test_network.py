from __future__ import annotations

import json
import socket
from functools import partial
from typing import Any

import pytest

from tests.simnode.simnodes import MakeNode, SimNode, wait_until

# Nodes together do what each does in the other tests.
pytestmark = pytest.mark.unmeasured


def file_id(number: int) -> str:
    """Return the id of a numbered file."""
    return f"{number:032x}"


def started(*nodes: SimNode) -> None:
    """Start nodes, and return when each has heard of all the others."""
    for node in nodes:
        # As a harness does; the loops below ask more often than the limits allow.
        node.edit("[api]", "[api]\nrate_limit_enabled = false")
        node.run()
    for node in nodes:
        wait_until(node.ready)
        wait_until(partial(knows, node, len(nodes) - 1))


def knows(node: SimNode, count: int) -> bool:
    """Say whether a node has found as many others."""
    return node.out().count("simulated node found") == count


def publish(node: SimNode, number: int) -> None:
    """Publish a numbered file."""
    assert node.call("POST", "/kad/publish_source", {"file_id_hex": file_id(number)})[0] == 200


def search(node: SimNode, number: int) -> None:
    """Search for a numbered file."""
    assert node.call("POST", "/kad/search_sources", {"file_id_hex": file_id(number)})[0] == 200


def found(node: SimNode, number: int) -> bool:
    """Say whether a node knows a source of a numbered file."""
    return bool(node.sources(file_id(number)))


def udp_port(node: SimNode) -> int:
    """Return the port of a node in the simulated network."""
    return int(node.out().split("udp_port=")[1].split()[0])


def send_datagram(node: SimNode, data: bytes) -> None:
    """Send to a node what anybody on the host could send."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(data, ("127.0.0.1", udp_port(node)))


def test_a_hit_comes_by_the_search_and_bears_the_publisher(make_node: MakeNode) -> None:
    """Not before the search; the row is the publisher's own."""
    a, b = make_node("a", outcomes=["hit"]), make_node("b", seed=2)
    started(a, b)
    publish(a, 1)
    assert not found(b, 1)
    search(b, 1)
    wait_until(lambda: found(b, 1))
    assert b.sources(file_id(1)) == a.sources(file_id(1))


def test_a_prestored_row_is_there_without_a_search(make_node: MakeNode) -> None:
    """The publisher stored it on the searcher."""
    a, b = make_node("a", outcomes=["prestored"]), make_node("b")
    started(a, b)
    publish(a, 1)
    wait_until(lambda: found(b, 1))


def test_a_miss_stays_one_though_the_publisher_was_asked(make_node: MakeNode) -> None:
    """The later hit shows that the answer to the miss would have come by now."""
    a, b = make_node("a", outcomes=["miss", "hit"]), make_node("b")
    started(a, b)
    for number in (1, 2):
        publish(a, number)
        search(b, number)
    wait_until(lambda: found(b, 2))
    assert not found(b, 1)
    assert a.out().count('event="source_store_query"') == 2


@pytest.mark.slow
def test_a_late_answer_comes_late(make_node: MakeNode) -> None:
    """After the hit that was asked for later."""
    a, b = make_node("a", outcomes=["late", "hit"], late_secs=0.5), make_node("b")
    started(a, b)
    for number in (1, 2):
        publish(a, number)
        search(b, number)
    wait_until(lambda: found(b, 2))
    assert not found(b, 1)
    wait_until(lambda: found(b, 1))


def test_publishing_again_draws_again(make_node: MakeNode) -> None:
    """A miss can become a hit by another publish and search."""
    a, b = make_node("a", outcomes=["miss", "hit"]), make_node("b")
    started(a, b)
    for _ in range(2):
        publish(a, 1)
        search(b, 1)
    wait_until(lambda: found(b, 1))


@pytest.mark.slow
def test_other_networks_hear_nothing(make_node: MakeNode) -> None:
    """A search finds what another process sends, and nothing else."""
    a, b = make_node("a", outcomes=["hit"]), make_node("b")
    other = make_node("c", network="another")
    started(a, b)
    other.run()
    wait_until(other.ready)
    publish(a, 1)
    search(other, 1)
    search(b, 1)
    wait_until(lambda: found(b, 1))
    assert not found(other, 1)
    assert "simulated node found" not in other.out()


@pytest.mark.slow
def test_three_nodes_find_each_other(make_node: MakeNode) -> None:
    """No hub, in any order of start."""
    a, b, c = make_node("a", outcomes=["prestored"]), make_node("b"), make_node("c")
    started(a, b, c)
    publish(a, 1)
    wait_until(lambda: found(b, 1) and found(c, 1))


@pytest.mark.slow
def test_publishes_during_bootstrap_are_forgotten(make_node: MakeNode) -> None:
    """Acknowledged all the same: publish only when all nodes show 200."""
    a, b = make_node("a", outcomes=["prestored"]), make_node("b", warmup_secs=2)
    b.edit("[api]", "[api]\nrate_limit_enabled = false")
    a.run()
    b.run()
    wait_until(a.ready)
    wait_until(partial(knows, a, 1))
    publish(a, 1)
    wait_until(lambda: "source_probe_publish_first_response" in a.out())
    assert not b.ready()
    wait_until(b.ready)
    assert not found(b, 1)


def sums(node: SimNode, seen: dict[int, dict[str, Any]], fields: tuple[str, ...]) -> dict[str, int]:
    """Sum window counters over the distinct snapshots seen so far, as a sampler does."""
    status = node.get("/status")
    seen[hash(json.dumps(status))] = status
    return {field: sum(snapshot[field] for snapshot in seen.values()) for field in fields}


@pytest.mark.slow
def test_a_search_is_counted_at_both_ends(make_node: MakeNode) -> None:
    """Window counters show it once, lifetime totals keep it."""
    # Not below a second: snapshots are told apart by uptime_secs, which has no fraction.
    a = make_node("a", outcomes=["hit"], status_every_secs=1.0)
    b = make_node("b", status_every_secs=1.0)
    started(a, b)
    publish(a, 1)
    search(b, 1)
    wait_until(lambda: found(b, 1))
    asked, served = (
        ("sent_search_source_reqs", "recv_search_ress", "new_sources", "tracked_out_matched"),
        ("recv_search_source_reqs", "source_search_hits", "source_search_results_served"),
    )
    seen_a: dict[int, dict[str, Any]] = {}
    seen_b: dict[int, dict[str, Any]] = {}

    def both_are_counted() -> bool:
        # Both are looked at each time: a window that nobody reads is lost.
        counts = [*sums(a, seen_a, served).values(), *sums(b, seen_b, asked).values()]
        return all(counts)

    wait_until(both_are_counted)
    assert set(sums(a, seen_a, served).values()) == {1}
    assert b.get("/status")["source_store_entries_total"] == 1
    wait_until(lambda: b.get("/status")["new_sources"] == 0)
    assert b.get("/status")["tracked_out_matched_total"] >= 1


@pytest.mark.slow
def test_nodes_of_one_kad_id_ignore_each_other(make_node: MakeNode) -> None:
    """What a copied folder leads to."""
    a, b, c = make_node("a", outcomes=["prestored"]), make_node("b"), make_node("c")
    started(a, c)
    (b.folder / "data").mkdir()
    preferences = (a.folder / "data" / "preferencesKad.dat").read_bytes()
    (b.folder / "data" / "preferencesKad.dat").write_bytes(preferences)
    b.run()
    wait_until(b.ready)
    wait_until(lambda: "simulated node found" in b.out())
    publish(a, 1)
    wait_until(lambda: found(c, 1))
    assert not found(b, 1)


@pytest.mark.slow
def test_a_live_peer_stands_in_the_peer_list(make_node: MakeNode) -> None:
    """Most recently heard first."""
    a, b = make_node("a"), make_node("b")
    started(a, b)
    peers = a.get("/kad/peers")["peers"]
    assert len(peers) == 137
    assert peers[0]["peer_agent"] == "rust-mule/0.1.0"
    assert peers[1]["peer_agent"] is None
    assert peers[0]["last_inbound_secs_ago"] == 0


def test_garbage_in_datagrams_is_dropped(make_node: MakeNode) -> None:
    """The port is open to everybody on the host."""
    a = make_node("a", status_every_secs=0.05)
    started(a)
    own = a.get("/status")
    network = a.folder.parent
    stranger = {"n": str(network), "f": "ab" * 16}
    for data in (
        b"\xff",
        b"[]",
        b"[" * 5000,
        b'{"k":1}',
        json.dumps({**stranger, "k": "here", "d": "short"}).encode(),
        json.dumps({**stranger, "k": "here", "d": "%" * 516}).encode(),
        json.dumps({**stranger, "k": "search", "id": file_id(1)}).encode(),
    ):
        send_datagram(a, data)
    wait_until(lambda: '"kad_status"' in a.out())
    assert a.ready()
    assert a.get("/status")["routing"] == own["routing"]


def stored_keywords(node: SimNode) -> int:
    """Return how many keywords a node stores for others, as of its last snapshot."""
    return int(node.get("/status")["store_keyword_keywords"])


@pytest.mark.slow
def test_a_keyword_travels_to_the_searcher(make_node: MakeNode) -> None:
    """Local on the publisher, from the network on the searcher; the publish is acknowledged."""
    a, b, c = make_node("a"), make_node("b"), make_node("c", status_every_secs=0.05)
    started(a, b, c)
    hit = {"file_id_hex": file_id(1), "filename": "Ubuntu.iso", "file_size": 3}
    status, queued = a.call("POST", "/kad/publish_keyword", {"query": "Ubuntu.iso", **hit})
    assert (status, queued["keyword"]) == (200, "ubuntu")
    keyword_id = queued["keyword_id_hex"]
    (local,) = a.get(f"/kad/keyword_results/{keyword_id}")["hits"]
    assert local == hit | {"origin": "local"}
    wait_until(lambda: a.get(f"/searches/{keyword_id}")["search"]["got_publish_ack"])
    # The publisher stores nothing for others: it is c that answers.
    wait_until(lambda: stored_keywords(c) == 1)
    b.call("POST", "/kad/search_keyword", {"keyword_id_hex": keyword_id})
    wait_until(lambda: bool(b.get(f"/kad/keyword_results/{keyword_id}")["hits"]))
    (seen,) = b.get(f"/searches/{keyword_id}")["hits"]
    assert seen == hit | {"origin": "network"}
    (job,) = b.get("/searches")["searches"]
    assert (job["state"], job["want_search"]) == ("running", True)
    assert b.call("POST", f"/searches/{keyword_id}/stop")[1] == {"stopped": True}
    assert b.call("DELETE", f"/searches/{keyword_id}?purge_results=true")[1] == {
        "deleted": True,
        "purged_results": True,
    }
    assert b.get(f"/kad/keyword_results/{keyword_id}")["hits"] == []
    assert b.call("POST", "/kad/search_keyword", {"query": "a"})[0] == 400


@pytest.mark.slow
def test_a_lost_session_restarts_the_uptime_and_keeps_the_table(make_node: MakeNode) -> None:
    """Status stays 200 and stale meanwhile, sources survive, a SIGINT is lost."""
    node = make_node(session_loss_every_secs=1.2, session_recreate_secs=0.5, status_every_secs=0.1)
    process = node.run()
    wait_until(node.ready)
    publish(node, 1)
    wait_until(lambda: node.get("/status")["uptime_secs"] == 1)
    wait_until(lambda: "kad service lost SAM socket; recreating session" in node.out())
    stale = node.get("/status")
    node.interrupt()
    publish(node, 2)
    assert (stale["uptime_secs"], node.get("/status")) == (1, stale)
    wait_until(lambda: node.out().count("kad service started") == 2)
    assert node.get("/status")["uptime_secs"] == 0
    assert found(node, 1)
    assert found(node, 2)
    assert process.poll() is None


def test_too_many_requests_of_a_peer_are_dropped(make_node: MakeNode) -> None:
    """With the real node's limit switched on."""
    a = make_node("a", outcomes=["prestored"])
    b = make_node("b", inbound_per_minute=1)
    started(a, b)
    for number in range(1, 5):
        publish(a, number)
    search(b, 4)
    wait_until(lambda: found(b, 4))
    # Two if a minute ended in between.
    assert sum(found(b, number) for number in range(1, 4)) <= 2
    assert "request_rate_limited" in "".join(
        path.read_text() for path in (b.folder / "data" / "logs").iterdir()
    )


@pytest.mark.slow
def test_live_peers_answer_lookups_and_greetings(make_node: MakeNode) -> None:
    """Dead contacts leave lookups pending; live ones are asked first."""
    a, b = make_node("a", status_every_secs=0.1), make_node("b", status_every_secs=0.1)
    for node in (a, b):
        node.edit("[kad]", "[kad]\nservice_crawl_every_secs = 1\nservice_hello_every_secs = 1")
    started(a, b)
    fields = ("recv_hello_reqs", "sent_hellos", "recv_hello_ress", "recv_hello_acks")
    seen: dict[int, dict[str, Any]] = {}
    wait_until(lambda: all(sums(a, seen, fields).values()))
    wait_until(lambda: a.get("/status")["recv_ress_total"] >= 1)
    status = a.get("/status")
    assert status["sent_reqs_total"] >= 3
    assert status["pending"] >= 2
    assert status["tracked_out_requests"] >= 2
    assert status["peer_stable"] == 1


def test_the_keyword_cache_has_a_cap(make_node: MakeNode) -> None:
    """The keyword that was touched longest ago goes."""
    a = make_node("a", status_every_secs=0.05)
    a.edit("[kad]", "[kad]\nservice_keyword_max_keywords = 1")
    started(a)
    hit = {"file_id_hex": file_id(1), "filename": "x", "file_size": 3, "file_type": "Iso"}
    for number in (1, 2):
        a.call("POST", "/kad/publish_keyword", {"keyword_id_hex": file_id(number), **hit})
    wait_until(lambda: a.get("/status")["keyword_hits_total"] == 1)
    assert a.get(f"/kad/keyword_results/{file_id(2)}")["hits"] == [hit | {"origin": "local"}]
    assert a.get(f"/kad/keyword_results/{file_id(1)}")["hits"] == []
