"""The life of one node."""

from __future__ import annotations

from typing import get_args

import pytest

from soakd.core import node_state
from soakd.core.node_state import (
    Answers503,
    Attached,
    Exited,
    Gone,
    IllegalTransition,
    Launched,
    NodeEvent,
    NodeState,
    Ready,
    Turned200,
    Warm,
)

STATES: list[NodeState] = [
    Launched(7, 70),
    Warm(7, 70),
    Ready(7, 70, 1.0),
    Exited(7, 1, None, 2.0),
    Attached(),
]
EVENTS: list[NodeEvent] = [Answers503(), Turned200(), Gone(None, 9)]
NEXT: dict[str, list[NodeState | None]] = {
    "launched": [Warm(7, 70), Ready(7, 70, 5.0), Exited(7, None, 9, 5.0)],
    "warm": [Warm(7, 70), Ready(7, 70, 5.0), Exited(7, None, 9, 5.0)],
    "ready": [Ready(7, 70, 1.0), Ready(7, 70, 1.0), Exited(7, None, 9, 5.0)],
    "exited": [None, None, None],
    "attached": [Attached(), Attached(), None],
}


def test_the_table_covers_every_state_and_event() -> None:
    """A new state or event must be entered in the table."""
    assert {type(state) for state in STATES} == set(get_args(NodeState))
    assert {type(event) for event in EVENTS} == set(get_args(NodeEvent))


@pytest.mark.parametrize(
    "place", range(len(EVENTS)), ids=lambda place: type(EVENTS[place]).__name__
)
@pytest.mark.parametrize("state", STATES, ids=node_state.name)
def test_every_pair_is_legal_or_refused(state: NodeState, place: int) -> None:
    """Once ready stays ready until it is gone, and gone is the end."""
    wanted = NEXT[node_state.name(state)][place]
    if wanted is None:
        with pytest.raises(IllegalTransition):
            node_state.advance(state, EVENTS[place], 5.0)
    else:
        assert node_state.advance(state, EVENTS[place], 5.0) == wanted


def test_an_end_reads_as_status_or_signal() -> None:
    """Signals have names; a number without one stays a number."""
    assert node_state.exit_text(101, None) == "exit status 101"
    assert node_state.exit_text(None, 9) == "SIGKILL"
    assert node_state.exit_text(None, 200) == "signal 200"


def test_the_public_entry_of_a_node_has_the_same_keys_in_every_state() -> None:
    """A pid only while the process lives, an exit only when it is gone."""
    assert node_state.public_node("a", None) == {
        "name": "a",
        "pid": None,
        "state": "staged",
        "exit": None,
    }
    assert node_state.public_node("a", Attached()) == {
        "name": "a",
        "pid": None,
        "state": "attached",
        "exit": None,
    }
    assert node_state.public_node("a", Warm(7, 70)) == {
        "name": "a",
        "pid": 7,
        "state": "warm",
        "exit": None,
    }
    assert node_state.public_node("a", Exited(7, None, 9, 2.0)) == {
        "name": "a",
        "pid": None,
        "state": "exited",
        "exit": {"code": None, "signal": 9},
    }
