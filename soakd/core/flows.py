"""Which nodes a round is about: from a plan and a round's place to its flow.

A *flow* is one way through the network: something is published on one node and looked for on
another. The choice depends on the plan and the place alone, so a soakd that takes a run over goes
on where the last one was, and a run can be repeated. Called by `soakd.measure`.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import Final, Literal, NamedTuple, TypeAlias

from soakd.core.plan_shape import Plan, flows_per_round

Kind: TypeAlias = Literal["source", "keyword"]
Pair: TypeAlias = tuple[str, str]
"""Publisher and searcher."""


class Flow(NamedTuple):
    """What one round does with whom.

    Attributes:
        publishes: It begins with a publish; else it looks for what the round before published.
        rests: A pause follows it.
        shows_peers: The peers of all nodes are recorded after it, if the plan wants them.
        shows_routing: So are their routing tables.
    """

    kind: Kind
    publisher: str
    searcher: str
    publishes: bool = True
    rests: bool = True
    shows_peers: bool = False
    shows_routing: bool = False

    @property
    def name(self) -> str:
        """As records have it: `source:a>b`."""
        return f"{self.kind}:{self.publisher}>{self.searcher}"


SELFTEST: Final = "dht_selftest"
KEYWORD: Final = "keyword_probe"


def flow_at(plan: Plan, index: int) -> Flow:
    """Return the flow of the round at a place, from 0, of a measurement."""
    per_pass = flows_per_round(plan)
    publisher, searcher = _pair_at(plan, index // per_pass)
    if plan.scenario == SELFTEST:
        return _selftest(publisher, searcher)[index % per_pass]
    return Flow("keyword" if plan.scenario == KEYWORD else "source", publisher, searcher)


def pairs_of(plan: Plan) -> tuple[Pair, ...]:
    """Return all pairs that the roles allow, each node's first partner first.

    A node that may do both does not search for itself: that would prove nothing.
    """
    publishers = [node.name for node in plan.nodes if "publisher" in node.roles]
    searchers = [node.name for node in plan.nodes if "searcher" in node.roles]
    places = {node.name: place for place, node in enumerate(plan.nodes)}
    found = [(one, other) for one in publishers for other in searchers if one != other]

    def turn(pair: Pair) -> tuple[int, int]:
        one, other = (places[name] for name in pair)
        return ((other - one) % len(places), one)

    return tuple(sorted(found, key=turn))


def _pair_at(plan: Plan, place: int) -> Pair:
    if plan.pairs == "fixed":
        return _first_pair(plan)
    every = pairs_of(plan)
    if plan.pairs == "round_robin":
        return every[place % len(every)]
    return _shuffled(every, plan.pair_seed, place // len(every))[place % len(every)]


def _first_pair(plan: Plan) -> Pair:
    """The first publisher in the plan's order that has another searcher, with the first of them."""
    publishers = [node.name for node in plan.nodes if "publisher" in node.roles]
    searchers = [node.name for node in plan.nodes if "searcher" in node.roles]
    return next((one, other) for one in publishers for other in searchers if one != other)


@lru_cache(maxsize=4)
def _shuffled(every: tuple[Pair, ...], seed: int, turn: int) -> tuple[Pair, ...]:
    """Every pair once, in an order of this turn's own; the same under every Python."""

    def lot(pair: Pair) -> bytes:
        return sha256(f"{seed}:{turn}:{pair[0]}>{pair[1]}".encode()).digest()

    return tuple(sorted(every, key=lot))


def _selftest(one: str, other: str) -> tuple[Flow, ...]:
    """The self-test of the scripts: keyword and source from one to the other, then back."""
    there = (
        Flow("keyword", one, one, rests=False),
        Flow("keyword", one, other, publishes=False, shows_peers=True, shows_routing=True),
        Flow("source", one, other, shows_peers=True),
    )
    back = (
        Flow("keyword", other, other, rests=False),
        Flow("keyword", other, one, publishes=False, shows_peers=True, shows_routing=True),
        Flow("source", other, one, shows_peers=True),
    )
    return there + back
