from __future__ import annotations

from functools import partial

import pytest

from tests.ports import free_udp_range
from tests.simnode.simnodes import MakeNode, SimNode, wait_until
from tests.simnode.test_keyword_flows import answered, origins
from tests.simnode.test_keyword_flows import publish as publish_keyword
from tests.simnode.test_keyword_flows import search as search_keyword
from tests.simnode.test_network import file_id, found, publish, search, started

# Nodes together do what each does in the other tests.
pytestmark = pytest.mark.unmeasured

MANY = 20


def made(make_node: MakeNode, count: int, **sim: object) -> list[SimNode]:
    """Make the nodes of one network, with room for all of them."""
    first = free_udp_range(count)
    knobs = {"udp_first_port": first, "udp_ports": count, "outcomes": ["hit"], **sim}
    return [make_node(f"n{number}", seed=number, **knobs) for number in range(count)]


def counts_live(node: SimNode, count: int) -> bool:
    """Say whether the gauge of a node has come to this."""
    return bool(node.get("/status")["live_10m"] == count)


def shows(node: SimNode, word: str, number: int) -> bool:
    """Say whether the network has brought a node the file of a keyword."""
    return origins(node, word) == {file_id(number): "network"}


@pytest.mark.slow
def test_twenty_nodes_find_each_other_and_any_pair_works(make_node: MakeNode) -> None:
    """All count all others, and the first, the last and one between find what another publishes."""
    nodes = made(make_node, MANY, beacon_secs=0.5, status_every_secs=0.5)
    started(*nodes)
    for node in nodes:
        wait_until(partial(counts_live, node, MANY - 1))
        assert node.get("/status")["routing"] == 136 + MANY - 1
    for number, (publisher, searcher) in enumerate([(0, 19), (19, 0), (7, 8), (12, 3)]):
        a, b, word = nodes[publisher], nodes[searcher], f"word{number}"
        publish(a, number)
        search(b, number)
        wait_until(partial(found, b, number))
        publish_keyword(a, word, number)
        wait_until(partial(answered, a, word, expected=True))
        search_keyword(b, word)
        wait_until(partial(shows, b, word, number))


def test_strangers_count_as_live_from_a_moment_on(make_node: MakeNode) -> None:
    """So that a warm-up can be waited for with few nodes; they answer nothing."""
    node = make_node(heard_contacts=3, heard_after_secs=0.3, status_every_secs=0.1)
    started(node)
    wait_until(partial(counts_live, node, 3))
    assert "live_10m=0" in node.out()
    status = node.get("/status")
    assert (status["live"], status["peer_stable"], status["routing"]) == (3, 3, 136)
    heard = [peer["last_inbound_secs_ago"] is not None for peer in node.get("/kad/peers")["peers"]]
    assert heard == [True] * 3 + [False] * 133


def test_strangers_are_live_in_the_first_snapshot_if_so_wanted(make_node: MakeNode) -> None:
    """Without a moment to wait for."""
    node = make_node(heard_contacts=5, status_every_secs=3600.0)
    started(node)
    wait_until(partial(counts_live, node, 5))
