"""What drivers are made of: the node's environment, the calls that a driver may leave out."""

from __future__ import annotations

from typing import Any

import pytest

from soakd.core import readiness
from soakd.core.errors import NodeError
from soakd.core.plan import NodePlan, Plan
from soakd.drivers.driver import Api, Files, Snapshot, Words, node_environment

A = NodePlan("a", "/dist/mule-a", "127.0.0.1", 20001, ("publisher",))
B = NodePlan("b", "/dist/mule-b", "127.0.0.1", 20002, ("searcher",))
USER = {"HOME": "/home/ann", "USER": "ann", "LOGNAME": "ann"}
ADDED = {"DEPTH": "1"}


def plan(**changes: Any) -> Plan:
    given: dict[str, Any] = {"nodes": (A, B), "duration_s": 60.0, "rounds": None, "run_tag": "tag"}
    return Plan(**(given | changes))


class Mute(Api):
    """Has only what every driver must have."""

    async def readiness(self) -> readiness.Answer:
        return readiness.Ready()

    async def status_snapshot(self, *, aside: bool = False) -> Snapshot:
        return Snapshot("{}", 1)


def test_environment_of_a_node_is_built() -> None:
    """Nothing is inherited; the user's additions override only what they may."""
    env = node_environment(ADDED, plan(node_env=(("TZ", "CET"), ("X", "1"))), nonce="n", user=USER)
    assert env == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "TZ": "CET",
        "NO_COLOR": "1",
        "DEPTH": "1",
        "X": "1",
        **USER,
        "SOAK_RUN_NONCE": "n",
    }


def test_nonce_and_user_cannot_be_overridden() -> None:
    """They say whose the process is."""
    env = node_environment(
        ADDED, plan(node_env=(("SOAK_RUN_NONCE", "x"), ("HOME", "/x"))), nonce="n", user=USER
    )
    assert (env["SOAK_RUN_NONCE"], env["HOME"]) == ("n", "/home/ann")


async def test_a_call_that_the_driver_does_not_have_is_an_error_of_the_node() -> None:
    """A plan is refused before that; should it come to it, the sentence says whose fault it is."""
    calls = (
        lambda: Mute().publish_source("ab", 5),
        lambda: Mute().search_sources("ab", 5),
        lambda: Mute().sources("ab"),
    )
    for call in calls:
        with pytest.raises(NodeError, match=r"cannot call \w+\('ab'.*does not have it"):
            await call()


def test_a_program_of_few_words_is_never_in_trouble() -> None:
    """Words that a driver does not give mean nothing."""
    words = Words()
    assert not words.is_panic("panic")
    assert not words.is_fatal("Error")
    assert words.explain_failure("Error") is None
    assert words.log_trouble("WARN") is None


def test_program_and_configuration_are_copied_by_content() -> None:
    """A build that replaces the program must not change it under a run."""
    assert Files(program="p", config="c").by_content == ("p", "c")
