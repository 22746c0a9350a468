"""Episodes of trouble: when one begins, when it is over, and what a verdict says of them."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soakd.core import trouble
from soakd.core.trouble import Episode, RoundErrors, answered, failed, kind_of, sentence

SOURCES = "/kad/sources"
STATUS = "/status"


def test_first_failure_begins_an_episode_and_the_next_is_counted() -> None:
    """Days of it are one event."""
    change = failed((), SOURCES, "api_timeout", "no whole answer within 12 s", 10.0)
    assert change.begun == Episode("api_hangs", SOURCES, 10.0, 1, "no whole answer within 12 s")
    for now_s in range(11, 20):
        change = failed(change.troubles, SOURCES, "api_timeout", "again", now_s)
        assert change.begun is None
        assert change.over == ()
    assert change.troubles == (
        Episode("api_hangs", SOURCES, 10.0, 10, "no whole answer within 12 s"),
    )


def test_good_answer_on_the_route_ends_it() -> None:
    """Another route that answers says nothing about this one."""
    troubles = failed((), SOURCES, "bad_answer", "x", 1.0).troubles
    assert answered(troubles, STATUS).over == ()
    change = answered(troubles, SOURCES)
    assert [episode.kind for episode in change.over] == ["api_garbage"]
    assert change.troubles == ()


def test_another_trouble_on_a_route_takes_the_place_of_the_first() -> None:
    """Each is told with its own beginning and end."""
    troubles = failed((), SOURCES, "bad_answer", "x", 1.0).troubles
    change = failed(troubles, SOURCES, "bad_status", "HTTP 500", 2.0)
    assert change.begun is not None
    assert change.begun.kind == "api_errors"
    assert [episode.kind for episode in change.over] == ["api_garbage"]


@pytest.mark.parametrize("code", ["api_refused", "api_foreign", "token_refused", "no_token"])
def test_trouble_of_all_routes_is_told_once(code: str) -> None:
    """A dead port is dead for every call; any good answer ends it."""
    change = failed((), SOURCES, code, "x", 1.0)
    assert change.begun is not None
    again = failed(change.troubles, STATUS, code, "y", 2.0)
    assert again.begun is None
    assert len(answered(again.troubles, "/kad/publish_source").over) == 1


def test_connection_that_ends_unanswered_is_of_its_route() -> None:
    """Only one path may hang up."""
    troubles = failed((), SOURCES, "api_lost", "x", 1.0).troubles
    assert answered(troubles, STATUS).troubles == troubles


def test_every_kind_has_its_words() -> None:
    """A failure that is nobody's known fault is the host's."""
    assert set(trouble.PHRASES) == set(get_args(trouble.Kind))
    assert kind_of("internal") == "host_trouble"


def test_sentence_names_node_time_and_evidence() -> None:
    """What `status` shows."""
    episode = Episode("api_hangs", SOURCES, 1.0, 3, "no whole answer within 12 s")
    assert sentence("b", episode, "12:00:00Z") == (
        "node b: its API hangs since 12:00:00Z (no whole answer within 12 s)"
    )


def test_most_frequent_cause_is_the_verdicts() -> None:
    """With the latest example, and how many of all."""
    errors = RoundErrors()
    assert errors.sentence() == ""
    errors.add("a", "api_errors", "HTTP 500")
    errors.add("b", "api_hangs", "first")
    errors.add("b", "api_hangs", "last")
    errors.add(None, None, "odd")
    expected = "2 of 4 failed because of node b: its API hangs (last)"
    assert errors.sentence() == expected


def test_cause_without_a_kind_is_its_text() -> None:
    """Nothing is made up."""
    errors = RoundErrors()
    errors.add(None, None, "node b is down")
    assert errors.sentence() == "1 of 1 failed because of node b is down"


CALLS = st.lists(
    st.tuples(
        st.sampled_from([SOURCES, STATUS, "/kad/publish_source"]),
        st.sampled_from([None, "api_refused", "api_lost", "api_timeout", "bad_status", "weird"]),
    ),
    max_size=60,
)


@given(CALLS)
def test_episodes_stay_few_and_each_ends_once(calls: list[tuple[str, str | None]]) -> None:
    """No more than routes and one; begun = over + open."""
    troubles: trouble.Troubles = ()
    begun = over = 0
    for now_s, (route, code) in enumerate(calls):
        change = (
            answered(troubles, route)
            if code is None
            else failed(troubles, route, code, "x", float(now_s))
        )
        troubles = change.troubles
        begun += change.begun is not None
        over += len(change.over)
        assert len(troubles) <= 4
        assert len({episode.route for episode in troubles}) == len(troubles)
        if code is None:
            assert all(episode.route not in (route, "*") for episode in troubles)
    assert begun == over + len(troubles)
