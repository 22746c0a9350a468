"""When all nodes of a run are ready: a pure machine over the answers to `/status`.

The run's task polls each node, feeds every answer and does what `decide` says. Time-out and
node exits are no business of this machine: the run's state has an end of its own.

Ready means that the latest answer of *every* node was 200. Warm-up takes a real node more
than three minutes of 503; only 403 from all of them, six times on end, ends the waiting.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias, assert_never

from soakd.core.model import Cause

if TYPE_CHECKING:
    from collections.abc import Iterable

    from soakd.core.model import NodeName

POLL_EVERY_S: Final = 5.0
# A simulated node is ready in moments; a few quick looks at the beginning cost nothing.
FIRST_POLL_EVERY_S: Final = 0.2
FIRST_FOR_S: Final = 2.0
EARLY_POLL_EVERY_S: Final = 0.5
EARLY_FOR_S: Final = 15.0
MAX_FORBIDDEN: Final = 6
# A listener that changes hands while it is looked at is no stranger yet.
MAX_FOREIGN: Final = 3
# Early looks come closer than the five seconds that each counted 403 is to be given; a look that
# comes a moment too early by rounding counts all the same.
_FORBIDDEN_SPACING_S: Final = POLL_EVERY_S - 0.1


@dataclass(frozen=True, slots=True)
class Ready:
    """200: the node's service loop runs."""


@dataclass(frozen=True, slots=True)
class Warming503:
    """503: the API is up, the node is still bootstrapping."""


@dataclass(frozen=True, slots=True)
class Forbidden403:
    """403: the token that the node's folder holds is not the listener's."""


@dataclass(frozen=True, slots=True)
class NoToken:
    """The token file that the user has named gives no token; nothing was asked."""

    text: str


@dataclass(frozen=True, slots=True)
class Foreign:
    """Another process listens on the node's port; no token was sent to it."""

    text: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Nobody listens yet."""


@dataclass(frozen=True, slots=True)
class Bad:
    """Anything else: another status, garbage, no answer in time."""

    text: str


Answer: TypeAlias = Ready | Warming503 | Forbidden403 | NoToken | Foreign | Refused | Bad


@dataclass(frozen=True, slots=True)
class NodeAnswers:
    """What one node has answered; None before its first answer."""

    latest: Answer | None = None
    forbidden: int = 0
    forbidden_at_s: float | None = None
    foreign: int = 0


@dataclass(frozen=True, slots=True)
class Readiness:
    """The answers of all nodes so far."""

    since_s: float
    nodes: tuple[tuple[NodeName, NodeAnswers], ...]


@dataclass(frozen=True, slots=True)
class AllReady:
    """Go on."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Poll every node again at this instant."""

    next_poll_s: float


@dataclass(frozen=True, slots=True)
class Failed:
    """Waiting longer is of no use."""

    cause: Cause


Decision: TypeAlias = AllReady | Wait | Failed


def begin(nodes: Iterable[NodeName], now_s: float) -> Readiness:
    """Return the state before any answer."""
    return Readiness(now_s, tuple((name, NodeAnswers()) for name in nodes))


def advance(state: Readiness, node: NodeName, answer: Answer, now_s: float) -> Readiness:
    """Take one node's answer.

    Raises:
        KeyError: The run has no such node.
    """
    if all(name != node for name, _ in state.nodes):
        raise KeyError(node)
    nodes = tuple(
        (name, _answered(past, answer, now_s) if name == node else past)
        for name, past in state.nodes
    )
    return replace(state, nodes=nodes)


def decide(state: Readiness, now_s: float, *, attached: bool = False) -> Decision:
    """Return what to do after the answers so far.

    Args:
        state: The answers.
        now_s: Boot time.
        attached: Somebody else runs the nodes, and has said where each one's token stands.
    """
    pasts = [past for _, past in state.nodes]
    if all(isinstance(past.latest, Ready) for past in pasts):
        return AllReady()
    if attached:
        for name, past in state.nodes:
            if past.forbidden >= MAX_FORBIDDEN:
                return Failed(_wrong_token(name, past.latest))
            if isinstance(past.latest, Foreign) and past.foreign >= MAX_FOREIGN:
                return Failed(Cause("listener_changed", past.latest.text, name))
    if all(past.forbidden >= MAX_FORBIDDEN for past in pasts):
        text = (
            f"every node answered 403 {MAX_FORBIDDEN} times on end:"
            " its api.token is not the one that its listener wants,"
            " most likely because another process owns the port"
        )
        return Failed(Cause("ready_forbidden", text))
    for name, past in state.nodes:
        if isinstance(past.latest, Foreign) and past.foreign >= MAX_FOREIGN:
            return Failed(_taken(name, past.latest))
    waited_s = now_s - state.since_s
    if waited_s < FIRST_FOR_S:
        return Wait(now_s + FIRST_POLL_EVERY_S)
    return Wait(now_s + (EARLY_POLL_EVERY_S if waited_s < EARLY_FOR_S else POLL_EVERY_S))


def _wrong_token(name: NodeName, latest: Answer | None) -> Cause:
    if isinstance(latest, NoToken):
        text = f"{latest.text}; name a file that you may read, with the token of that very node"
        return Cause("no_token", text, name)
    text = (
        f"node {name} answered 403 {MAX_FORBIDDEN} times on end: what stands in its token file is"
        " not the token of the node that listens there; name the api.token of that very node"
    )
    return Cause("wrong_token", text, name)


def _taken(name: NodeName, answer: Foreign) -> Cause:
    text = (
        f"{answer.text}; no token was sent to it; end that process or choose another port"
        " (the program in the node folder must listen itself, not one that it starts)"
    )
    return Cause("port_busy", text, name)


def answers(state: Readiness) -> dict[NodeName, str]:
    """Return each node's latest answer in a word or two, as the runner.log shows it."""
    return {name: _word(past.latest) for name, past in state.nodes}


def described(state: Readiness) -> str:
    """Return each node's latest answer in words, for a cause."""
    return ", ".join(
        f"{name}: {_DESCRIBED.get(word, word)}" for name, word in answers(state).items()
    )


_DESCRIBED: Final = {
    "none": "not asked yet",
    "000": "nobody listens",
    "200": "ready",
    "403": "403, its token is refused",
    "503": "503, it warms up",
    "foreign": "another process listens",
}


def _answered(past: NodeAnswers, answer: Answer, now_s: float) -> NodeAnswers:
    if isinstance(answer, Foreign):
        return NodeAnswers(answer, foreign=past.foreign + 1)
    if not isinstance(answer, Forbidden403 | NoToken):
        return NodeAnswers(answer)
    # A token re-read asks twice in a row; that must not count as patience used up.
    at_s = past.forbidden_at_s
    if at_s is not None and now_s - at_s < _FORBIDDEN_SPACING_S:
        return replace(past, latest=answer)
    return NodeAnswers(answer, past.forbidden + 1, now_s)


def _word(answer: Answer | None) -> str:
    match answer:
        case None:
            return "none"
        case Ready():
            return "200"
        case Warming503():
            return "503"
        case Forbidden403():
            return "403"
        case Refused():
            # What curl prints as status when it could not connect: the scripts logged that.
            return "000"
        case Foreign():
            return "foreign"
        case Bad(text=text) | NoToken(text=text):
            return text
        case _:
            assert_never(answer)
