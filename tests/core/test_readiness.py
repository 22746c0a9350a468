"""Readiness of all nodes together."""

from __future__ import annotations

import pytest

from soakd.core import readiness
from soakd.core.model import Cause
from soakd.core.readiness import (
    AllReady,
    Answer,
    Bad,
    Failed,
    Forbidden403,
    Foreign,
    NoToken,
    Readiness,
    Ready,
    Refused,
    Wait,
    Warming503,
)


def _sweep(state: Readiness, a: Answer, b: Answer, now_s: float) -> Readiness:
    state = readiness.advance(state, "a", a, now_s)
    return readiness.advance(state, "b", b, now_s)


def test_all_nodes_must_be_ready_at_once() -> None:
    """One ready node waits for the other."""
    state = readiness.begin(("a", "b"), 0.0)
    state = readiness.advance(state, "a", Ready(), 200.0)
    assert readiness.decide(state, 200.0) == Wait(205.0)
    state = readiness.advance(state, "b", Ready(), 205.0)
    assert readiness.decide(state, 205.0) == AllReady()


def test_the_first_looks_come_quickly_the_later_ones_every_five_seconds() -> None:
    """Simulated nodes are ready in moments, real ones after minutes."""
    state = readiness.begin(("a",), 100.0)
    assert readiness.decide(state, 100.0) == Wait(100.2)
    assert readiness.decide(state, 102.0) == Wait(102.5)
    assert readiness.decide(state, 114.5) == Wait(115.0)
    assert readiness.decide(state, 115.0) == Wait(120.0)


@pytest.mark.parametrize("answer", [Warming503(), Refused(), Bad("garbage")])
def test_warm_up_and_trouble_mean_not_yet(answer: Answer) -> None:
    """However often: the run's state has an end of its own."""
    state = readiness.begin(("a", "b"), 0.0)
    for tick in range(50):
        state = _sweep(state, answer, answer, 20.0 + 5 * tick)
    assert readiness.decide(state, 265.0) == Wait(270.0)


@pytest.mark.safety
def test_six_forbidden_sweeps_of_all_nodes_fail_with_the_likely_cause() -> None:
    """At 5 s spacing, not before the sixth."""
    state = readiness.begin(("a", "b"), 0.0)
    for tick in range(6):
        assert isinstance(readiness.decide(state, 20.0), Wait)
        state = _sweep(state, Forbidden403(), Forbidden403(), 20.0 + 5 * tick)
    decision = readiness.decide(state, 45.0)
    assert isinstance(decision, Failed)
    assert decision.cause.code == "ready_forbidden"
    assert "another process owns the port" in decision.cause.text


def test_one_other_answer_starts_the_count_anew() -> None:
    """Consecutive means without anything in between."""
    state = readiness.begin(("a", "b"), 0.0)
    for tick in range(5):
        state = _sweep(state, Forbidden403(), Forbidden403(), 20.0 + 5 * tick)
    state = _sweep(state, Forbidden403(), Warming503(), 45.0)
    state = _sweep(state, Forbidden403(), Forbidden403(), 50.0)
    assert isinstance(readiness.decide(state, 50.0), Wait)


def test_forbidden_answers_close_together_count_once() -> None:
    """A token that is read again and tried at once is the same patience."""
    state = readiness.begin(("a",), 0.0)
    for tick in range(40):
        state = readiness.advance(state, "a", Forbidden403(), 20.0 + 0.5 * tick)
    assert isinstance(readiness.decide(state, 40.0), Wait)
    for tick in range(2):
        state = readiness.advance(state, "a", Forbidden403(), 45.0 + 5 * tick)
    assert isinstance(readiness.decide(state, 50.0), Failed)


@pytest.mark.safety
def test_a_stranger_on_the_port_of_one_node_fails_soon_and_is_named() -> None:
    """Three looks in a row: a listener that has just changed hands is not taken for one."""
    stranger = Foreign("cannot talk to node b: 127.0.0.1:1 is held by pid 4711 (nc) of uid 0")
    state = readiness.begin(("a", "b"), 0.0)
    answers: list[Answer] = [stranger, stranger, Refused(), stranger, stranger]
    for tick, answer in enumerate(answers):
        state = _sweep(state, Warming503(), answer, 0.2 * tick)
        assert isinstance(readiness.decide(state, 0.2 * tick), Wait)
    state = _sweep(state, Warming503(), stranger, 1.0)
    decision = readiness.decide(state, 1.0)
    assert isinstance(decision, Failed)
    assert (decision.cause.code, decision.cause.node) == ("port_busy", "b")
    assert "pid 4711 (nc)" in decision.cause.text
    assert "no token was sent" in decision.cause.text
    assert readiness.answers(state)["b"] == "foreign"


def test_the_latest_answers_are_shown_as_the_scripts_did() -> None:
    """Status numbers, 000 for a refused connection, words for the rest."""
    state = readiness.begin(("a", "b", "c", "d", "e", "f"), 0.0)
    for node, answer in (
        ("a", Ready()),
        ("b", Warming503()),
        ("c", Forbidden403()),
        ("d", Refused()),
        ("e", Bad("500")),
    ):
        state = readiness.advance(state, node, answer, 1.0)
    assert readiness.answers(state) == {
        "a": "200",
        "b": "503",
        "c": "403",
        "d": "000",
        "e": "500",
        "f": "none",
    }


def test_an_unknown_node_is_refused() -> None:
    """An answer of a node that the run does not have is a bug."""
    with pytest.raises(KeyError):
        readiness.advance(readiness.begin(("a",), 0.0), "b", Ready(), 1.0)


def test_one_wrong_token_of_an_attached_node_is_told_by_name() -> None:
    """The user has named the file: waiting for the other node would tell nothing more."""
    state = readiness.begin(("a", "b"), 0.0)
    for tick in range(5):
        state = _sweep(state, Warming503(), Forbidden403(), 5.0 * tick)
    assert isinstance(readiness.decide(state, 20.0, attached=True), Wait)
    state = _sweep(state, Warming503(), Forbidden403(), 25.0)
    decided = readiness.decide(state, 25.0, attached=True)
    assert isinstance(decided, Failed)
    assert (decided.cause.code, decided.cause.node) == ("wrong_token", "b")
    assert "api.token of that very node" in decided.cause.text
    assert isinstance(readiness.decide(state, 25.0), Wait)


def test_a_token_file_that_gives_no_token_is_told_like_a_wrong_one() -> None:
    """Half a minute of patience, for one that is being written; then its own trouble is told."""
    state = readiness.begin(("a", "b"), 0.0)
    for tick in range(60):
        state = _sweep(state, Warming503(), NoToken("cannot read b's: it is empty"), tick / 3)
    assert isinstance(readiness.decide(state, 20.0, attached=True), Wait)
    assert readiness.answers(state)["b"] == "cannot read b's: it is empty"
    for now_s in (20.0, 25.0):
        state = _sweep(state, Warming503(), NoToken("cannot read b's: it is empty"), now_s)
    decided = readiness.decide(state, 25.0, attached=True)
    assert isinstance(decided, Failed)
    assert (decided.cause.code, decided.cause.node) == ("no_token", "b")
    assert decided.cause.text.startswith("cannot read b's: it is empty; name a file")
    state = _sweep(state, Warming503(), Ready(), 30.0)
    assert isinstance(readiness.decide(state, 30.0, attached=True), Wait)


@pytest.mark.safety
def test_another_listener_in_place_of_an_attached_node_is_told_as_it_is() -> None:
    """No advice about a program in a node folder: there is none."""
    state = readiness.begin(("a", "b"), 0.0)
    for tick in range(3):
        state = _sweep(state, Foreign("uid 7 listens now"), Ready(), 5.0 * tick)
    decided = readiness.decide(state, 10.0, attached=True)
    assert decided == Failed(Cause("listener_changed", "uid 7 listens now", "a"))
