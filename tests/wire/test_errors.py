"""The table of error codes and exit statuses."""

from __future__ import annotations

from typing import get_args

from soakd.core.errors import CODES
from soakd.core.model import Verdict
from soakd.wire.errors import EXIT_STATUS, VERDICT_EXIT_STATUS, WireError, exit_status


def test_core_and_wire_know_the_same_codes() -> None:
    """Core must not import wire, so that only a test can hold the lists together."""
    assert set(EXIT_STATUS) == CODES


def test_every_verdict_has_an_exit_status() -> None:
    """`wait` ends by the verdict."""
    assert set(VERDICT_EXIT_STATUS) == set(get_args(Verdict))


def test_exit_statuses_are_those_of_the_command_line() -> None:
    """Scripts depend on these numbers."""
    assert set(EXIT_STATUS.values()) == {2, 5, 66, 69, 75, 77, 78, 124}
    assert set(VERDICT_EXIT_STATUS.values()) == {0, 1, 3, 4, 5}
    assert exit_status("no_such_run") == 66
    assert exit_status("a_code_of_the_future") == 5


def test_errors_go_there_and_back() -> None:
    """Both ends see the same code, message and details."""
    error = WireError("refused", "cannot start: slot taken", {"position": 2})
    back = WireError.from_map(error.to_map())
    assert (back.code, back.message, back.details) == (error.code, error.message, error.details)
    assert str(back) == "cannot start: slot taken"
    assert back.exit_status == 75


def test_error_without_details_is_read() -> None:
    """Details are optional on the wire."""
    assert WireError.from_map({"code": "usage", "message": "no", "details": 5}).details == {}
