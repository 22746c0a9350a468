"""Causes: blame and plain data."""

from __future__ import annotations

from typing import get_args

from soakd.core.model import (
    OUTCOMES,
    RESULTS,
    ROLES,
    VERDICTS,
    Cause,
    Outcome,
    Result,
    Role,
    Verdict,
)


def test_the_lists_of_words_are_those_of_the_types() -> None:
    """Types for mypy, tuples for loops: one word missing in either is a bug."""
    assert get_args(Outcome) == OUTCOMES
    assert get_args(Verdict) == VERDICTS
    assert get_args(Result) == RESULTS
    assert get_args(Role) == ROLES


def test_a_cause_survives_plain_data() -> None:
    """All four keys are always there; absent optional ones read as none."""
    cause = Cause("node_exited", "node b ended", "b", "2026-11-22T17:00:00Z")
    assert Cause.from_dict(cause.to_dict()) == cause
    assert Cause("x", "y").to_dict() == {"code": "x", "text": "y", "node": None, "at": None}
    assert Cause.from_dict({"code": "x", "text": "y"}) == Cause("x", "y")


def test_a_cause_says_whom_to_blame() -> None:
    """Unknown codes are ours until someone proves otherwise."""
    assert Cause("node_exited", "").is_nodes
    assert not Cause("disk_full", "").is_nodes
    assert not Cause("from the future", "").is_nodes
