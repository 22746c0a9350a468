from __future__ import annotations

import pytest

from tests.simnode.simnodes import MakeNode, SimNode, wait_until
from tests.simnode.test_network import file_id, started

# Nodes together do what each does in the other tests.
pytestmark = pytest.mark.unmeasured

AGES = {
    "last_seen_min_secs",
    "last_seen_max_secs",
    "last_inbound_min_secs",
    "last_inbound_max_secs",
}
SUMMARY_COUNTS = {
    "bucket_count",
    "total_nodes",
    "verified_nodes",
    "unverified_nodes",
    "buckets_empty",
    "bucket_fill_min",
    "bucket_fill_median",
    "bucket_fill_max",
}
BUCKET_COUNTS = {"index", "count", "verified", "unverified"}
BUCKET_AGES = AGES | {"last_activity_secs_ago", "last_refresh_secs_ago"}
PEER_NUMBERS = {
    "kad_version",
    "udp_key",
    "udp_key_ip",
    "failures",
    "last_seen_secs_ago",
}
PEER_TEXTS = {"kad_id_hex", "udp_dest_b64", "udp_dest_short"}
PEER_AGES = {
    "last_inbound_secs_ago",
    "last_queried_secs_ago",
    "last_bootstrap_secs_ago",
    "last_hello_secs_ago",
}


def kinds(answer: dict[str, object], fields: set[str]) -> set[type]:
    """Return the types of some fields."""
    return {type(answer[field]) for field in fields}


def test_the_routing_summary_has_the_fields_of_the_contract(node: SimNode) -> None:
    """Eight counts, and four ages that are null where there is nothing to be old."""
    answer = node.get("/debug/routing/summary")
    assert set(answer) == {"summary"}
    summary = answer["summary"]
    assert set(summary) == SUMMARY_COUNTS | AGES
    assert kinds(summary, SUMMARY_COUNTS) == {int}
    assert summary["verified_nodes"] + summary["unverified_nodes"] == summary["total_nodes"]
    assert (summary["last_inbound_min_secs"], summary["last_inbound_max_secs"]) == (None, None)
    # Not since the host was booted.
    assert 0 <= summary["last_seen_min_secs"] <= summary["last_seen_max_secs"] < 60


def test_the_routing_buckets_have_the_fields_of_the_contract(make_node: MakeNode) -> None:
    """128 of them; the one of a running peer has been active."""
    a, b = make_node("a"), make_node("b")
    started(a, b)
    answer = a.get("/debug/routing/buckets")
    assert set(answer) == {"buckets"}
    buckets = answer["buckets"]
    assert [bucket["index"] for bucket in buckets] == list(range(128))
    for bucket in buckets:
        assert set(bucket) == BUCKET_COUNTS | BUCKET_AGES
        assert kinds(bucket, BUCKET_COUNTS) == {int}
        assert kinds(bucket, BUCKET_AGES) <= {int, type(None)}
    active = [bucket for bucket in buckets if bucket["last_activity_secs_ago"] is not None]
    assert len(active) == 1
    assert active[0]["last_activity_secs_ago"] == active[0]["last_inbound_min_secs"]


def test_peers_have_the_fields_of_the_contract(make_node: MakeNode) -> None:
    """Of running and of dead ones."""
    a, b = make_node("a"), make_node("b")
    started(a, b)
    answer = a.get("/kad/peers")
    assert set(answer) == {"peers"}
    for peer in answer["peers"]:
        assert set(peer) == PEER_NUMBERS | PEER_TEXTS | PEER_AGES | {"verified", "peer_agent"}
        assert kinds(peer, PEER_NUMBERS) == {int}
        assert kinds(peer, PEER_TEXTS) == {str}
        assert kinds(peer, PEER_AGES) <= {int, type(None)}
        assert type(peer["verified"]) is bool
        assert peer["last_seen_secs_ago"] < 60


def test_keyword_hits_and_jobs_have_the_fields_of_the_contract(node: SimNode) -> None:
    """`file_type` is absent if there is none."""
    plain = {"file_id_hex": file_id(1), "filename": "x", "file_size": 3}
    typed = {"file_id_hex": file_id(2), "filename": "y", "file_size": 4, "file_type": "Iso"}
    for hit in (plain, typed):
        node.call("POST", "/kad/publish_keyword", {"query": "mulea", **hit})
    keyword_id = node.get("/searches")["searches"][0]["keyword_id_hex"]
    answer = node.get(f"/kad/keyword_results/{keyword_id}")
    assert answer == {
        "keyword_id_hex": keyword_id,
        "hits": [plain | {"origin": "local"}, typed | {"origin": "local"}],
    }
    found = node.get(f"/searches/{keyword_id}")
    assert found["search"] == {
        "search_id_hex": keyword_id,
        "keyword_id_hex": keyword_id,
        "state": "running",
        "created_secs_ago": 0,
        "hits": 2,
        "want_search": False,
        "publish_enabled": True,
        "got_publish_ack": False,
    }


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/debug/routing/summary", None),
        ("GET", "/debug/routing/buckets", None),
        ("GET", "/debug/routing/nodes?bucket=0", None),
        ("POST", "/debug/lookup_once", {}),
        ("POST", "/debug/probe_peer", {}),
    ],
)
def test_a_node_without_debug_routes_knows_none_of_them(
    make_node: MakeNode, method: str, path: str, body: object
) -> None:
    """404 with the token, and the other routes stay."""
    node = make_node()
    node.edit("[api]", "[api]\nenable_debug_endpoints = false")
    node.run()
    wait_until(node.ready)
    assert node.call(method, path, body) == (404, {"code": 404, "message": "not found"})
    assert node.call("GET", "/kad/peers")[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"query": "a, b"},
        {"query": 3},
        {"keyword_id_hex": "x"},
        {"keyword_id_hex": "x", "query": "mulea"},
        {"query": "mulea", "file_id_hex": "x"},
        {"query": "mulea", "filename": None},
        {"query": "mulea", "file_size": -1},
        {"query": "mulea", "file_size": True},
        {"query": "mulea", "file_type": 1},
    ],
)
def test_a_bad_keyword_request_is_refused(node: SimNode, body: dict[str, object]) -> None:
    """And nothing of it is kept."""
    complete = {"file_id_hex": file_id(1), "filename": "x", "file_size": 3}
    assert node.call("POST", "/kad/publish_keyword", {**complete, **body})[0] == 400
    assert node.get("/searches") == {"searches": []}


def test_a_lookup_is_counted(make_node: MakeNode) -> None:
    """Of a given target or of the node's own id."""
    node = make_node(status_every_secs=0.05)
    node.edit("[kad]", "[kad]\nservice_crawl_every_secs = 3600")
    started(node)
    target = node.call("POST", "/debug/lookup_once", {})[1]["target_id_hex"]
    assert len(target) == 32
    wait_until(lambda: node.get("/status")["sent_reqs_total"] == 3)
    assert node.call("POST", "/debug/lookup_once", {"target_id_hex": "x"})[0] == 400
