"""What is wrong with a node that lives: episodes of trouble, made of what its calls come to.

One failed call begins an episode, the next good call on the same route ends it; what happens in
between is counted, not told again. So trouble of days is two events and never a flood. A node's
ready state is not touched by it: whether the run goes on is decided elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal[
    "api_dead",
    "api_hangs",
    "api_hangs_up",
    "api_errors",
    "api_garbage",
    "api_foreign",
    "token_refused",
    "token_unreadable",
    "host_trouble",
]

PHRASES: Final[Mapping[str, str]] = {
    "api_dead": "its API is dead while its process lives",
    "api_hangs": "its API hangs",
    "api_hangs_up": "its API hangs up before its answer is whole",
    "api_errors": "its API answers with errors",
    "api_garbage": "its API answers with garbage",
    "api_foreign": "another process answers on its port",
    "token_refused": "its API refuses the token of its own api.token",
    "token_unreadable": "its api.token cannot be used",
    "host_trouble": "the host keeps it from being asked",
}

_KINDS: Final[Mapping[str, Kind]] = {
    "api_refused": "api_dead",
    "api_lost": "api_hangs_up",
    "api_timeout": "api_hangs",
    "api_protocol": "api_garbage",
    "api_too_big": "api_garbage",
    "api_foreign": "api_foreign",
    "bad_answer": "api_garbage",
    "bad_status": "api_errors",
    "no_token": "token_unreadable",
    "too_many_tokens": "token_unreadable",
    "token_refused": "token_refused",
}
# Whatever route meets these, all routes have them: one episode tells it.
_OF_ALL_ROUTES: Final = frozenset(
    {"api_refused", "api_foreign", "no_token", "too_many_tokens", "token_refused"}
)
_NO_ROUTE: Final = "*"


@dataclass(frozen=True, slots=True)
class Episode:
    """Calls that have failed in one way without a good one between them.

    Attributes:
        route: The route of these calls, `*` where the trouble is not of one route.
        since_s: When the first of them failed (boot clock).
        calls: How many failed.
        text: What the first one came to: the evidence.
    """

    kind: Kind
    route: str
    since_s: float
    calls: int
    text: str


Troubles: TypeAlias = tuple[Episode, ...]
"""The open episodes of one node, oldest first; no more than there are routes, and one."""


class Change(NamedTuple):
    """What a call has changed.

    Attributes:
        troubles: The open episodes now.
        begun: The episode that begins with it.
        over: The episodes that end with it.
    """

    troubles: Troubles
    begun: Episode | None = None
    over: Troubles = ()


def kind_of(code: str) -> Kind:
    """Return what a call that failed with this error code says."""
    return _KINDS.get(code, "host_trouble")


def failed(troubles: Troubles, route: str, code: str, text: str, now_s: float) -> Change:
    """Take a failed call: it begins an episode, or is one more of an open one.

    Args:
        troubles: The open episodes of the node.
        route: What was called, such as `/kad/sources`.
        code: Of the error.
        text: What the call came to.
        now_s: Boot clock.
    """
    kind = kind_of(code)
    key = _NO_ROUTE if code in _OF_ALL_ROUTES else route
    for episode in troubles:
        if (episode.kind, episode.route) == (kind, key):
            more = replace(episode, calls=episode.calls + 1)
            return Change(tuple(more if item is episode else item for item in troubles))
    # A route has one trouble at a time: another one is news, and the end of the old one.
    over = tuple(item for item in troubles if item.route == key)
    begun = Episode(kind, key, now_s, 1, text)
    rest = tuple(item for item in troubles if item.route != key)
    return Change((*rest, begun), begun, over)


def answered(troubles: Troubles, route: str) -> Change:
    """Take a good call: it ends what was wrong with its route, and with all routes."""
    over = tuple(item for item in troubles if item.route in (route, _NO_ROUTE))
    return Change(tuple(item for item in troubles if item not in over), None, over)


def sentence(node: str, episode: Episode, since: str) -> str:
    """Return an open episode as `status` shows it; `since` is its time for people."""
    return f"node {node}: {PHRASES[episode.kind]} since {since} ({episode.text})"


class RoundErrors:
    """What the failed rounds of a run failed of, counted; bounded by nodes × kinds."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str | None, Kind | None]] = Counter()
        self._examples: dict[tuple[str | None, Kind | None], str] = {}

    def add(self, node: str | None, kind: Kind | None, text: str) -> None:
        """Count one round.

        Args:
            node: Whose fault it was; None if nobody's.
            kind: What was wrong with it, if that is known.
            text: What the deciding call came to.
        """
        self._counts[node, kind] += 1
        self._examples[node, kind] = text

    def sentence(self) -> str:
        """Return the most frequent cause with its latest example; empty without errors."""
        if not self._counts:
            return ""
        (node, kind), count = self._counts.most_common(1)[0]
        example = self._examples[node, kind]
        phrase = None if kind is None else PHRASES[kind]
        because = example if phrase is None else f"{phrase} ({example})"
        who = "" if node is None else f"node {node}: "
        return f"{count} of {self._counts.total()} failed because of {who}{because}"
