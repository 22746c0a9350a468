"""Errors keep their code, show their message, and agree with the wire."""

from __future__ import annotations

import copy
import pickle

import pytest

from soakd.core.errors import CODES, HostError, NodeError, SoakError, UserError, first_known
from soakd.wire.errors import EXIT_STATUS


def test_core_and_wire_know_the_same_codes() -> None:
    """Core must not import the wire, so this comparison keeps the two lists equal."""
    assert set(EXIT_STATUS) == CODES


@pytest.mark.parametrize("kind", [UserError, NodeError, HostError])
def test_an_error_shows_its_message_and_keeps_its_code(kind: type[SoakError]) -> None:
    """The message is for people; code and details are for programs."""
    error = kind("refused", "cannot start the run: slots", {"run": "r7"})
    assert str(error) == error.message == "cannot start the run: slots"
    assert (error.code, error.details) == ("refused", {"run": "r7"})
    assert kind(code="usage", message="x").details == {}


def test_an_error_survives_copying_and_pickling() -> None:
    """Threads and processes hand errors over."""
    error = UserError("usage", "cannot read it", {"value": 3})
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (twin.code, str(twin), twin.details) == ("usage", "cannot read it", {"value": 3})


def test_what_is_meant_for_people_is_found_in_the_groups_that_nurseries_make() -> None:
    """Unless a bug stands beside it, which must not be hidden."""
    refused = HostError("refused", "no")
    assert first_known(refused) is refused
    assert first_known(ExceptionGroup("", [ExceptionGroup("", [refused])])) is refused
    assert first_known(ExceptionGroup("", [refused, ZeroDivisionError()])) is None
    assert first_known(ZeroDivisionError()) is None
