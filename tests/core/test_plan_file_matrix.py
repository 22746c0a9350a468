"""Groups of runs: labels, who belongs to one, and in what plans differ."""

from __future__ import annotations

from dataclasses import replace

import pytest

from soakd.core.plan_file_matrix import differences, in_group, labels, value_text
from tests.core.helpers import make_plan, plan_data


def test_labels_say_the_values_or_the_number() -> None:
    """The number for all of a group as soon as one would be too long, or unprintable."""
    values = [{"rounds": 1, "latest": True}, {"rounds": 2, "latest": False}]
    assert labels("n", values, 64) == ["n: rounds=1, latest=true", "n: rounds=2, latest=false"]
    assert labels("n", values, 24) == ["n: 1 of 2", "n: 2 of 2"]
    assert labels("n", [{"node.a.source": "/a\u202e"}], 64) == ["n: 1 of 1"]


def test_a_group_is_known_by_its_label() -> None:
    """Not by any label that begins like it."""
    assert [in_group(label, "n") for label in ("n: rounds=1", "n", "night: 1", "", None)] == [
        True,
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(20.0, "20"), (0.5, "0.5"), (3, "3"), (False, "false"), ("/x", "/x")]
)
def test_values_are_shown_as_people_write_them(value: object, text: str) -> None:
    """So that `--set` takes them again."""
    assert value_text(value) == text


def test_plans_differ_in_what_somebody_changed() -> None:
    """By the names of a plan file; what one plan has not is None; labels and tags do not count."""
    data = plan_data(node_env={"LEVEL": "1"})
    first = make_plan(**data)
    data["nodes"][1] |= {"source": "/new", "env": {"X": "1"}}
    data["node_env"] = {"LEVEL": "1", "MORE": "2"}
    second = replace(make_plan(**data), wait_search_s=40.0, label="other", run_tag="other")
    assert differences([first, second, first]) == [
        {
            "node.b.source": "/b",
            "wait_search_s": 20.0,
            "node.b.env.X": None,
            "node.env.MORE": None,
        },
        {
            "node.b.source": "/new",
            "wait_search_s": 40.0,
            "node.b.env.X": "1",
            "node.env.MORE": "2",
        },
        {
            "node.b.source": "/b",
            "wait_search_s": 20.0,
            "node.b.env.X": None,
            "node.env.MORE": None,
        },
    ]


def test_equal_plans_do_not_differ() -> None:
    """One run, or two of the same."""
    assert differences([make_plan()]) == [{}]
    assert differences([make_plan(), make_plan(label="x")]) == [{}, {}]
