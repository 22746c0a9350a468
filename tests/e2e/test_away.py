"""What nodes say while no soakd is there to hear it is told by the next one, once."""

from __future__ import annotations

import signal

import pytest

from soakd.simnode import order
from tests.e2e.box import Box
from tests.e2e.host import alive
from tests.e2e.waiting import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.safety]


def events(box: Box, run: str, kind: str) -> list[dict[str, object]]:
    """The events of a kind, in order."""
    found = box.records(run, "logs/events.ndjson")
    return [event for event in found if event["kind"] == kind]


def test_a_panic_and_a_lost_session_in_a_gap_are_told_once(bare_box: Box) -> None:
    """Also over two restarts; the panic fails its gate though nobody heard it."""
    box = bare_box
    box.install(outcomes=["hit"])
    box.serve()
    run = box.start("50")
    box.until_rounds(run, 1)
    box.leave(signal.SIGKILL)
    order(box.node(run, "a") / "data", "panic-thread:out of luck")
    order(box.node(run, "b") / "data", "session-loss")
    wait_for(lambda: "out of luck" in box.read(run, "logs/a.out"), "the panic")
    wait_for(lambda: "kad service lost SAM socket" in box.read(run, "logs/b.out"), "the loss")
    for _ in range(2):
        box.serve()
        wait_for(lambda: events(box, run, "sam_session_lost"), "the next soakd tells of it")
        box.leave(signal.SIGKILL)
    box.serve()
    [panic] = events(box, run, "panic")
    [lost] = events(box, run, "sam_session_lost")
    assert (panic["node"], lost["node"]) == ("a", "b")
    assert isinstance(lost["data"], dict)
    out = (box.run_folder(run) / "logs" / "b.out").read_bytes()
    assert out[: lost["data"]["at_byte"]].endswith(b"\n")
    box.ctl("stop", run)
    final = box.wait(run, status=1)
    assert final["verdict"] == "failed"
    assert "panics is 1" in final["why"]
    assert box.leftovers() == []


def test_a_node_that_ended_in_a_gap_is_explained_by_its_last_words(bare_box: Box) -> None:
    """Its true exit status from the shim, its own line from the file."""
    box = bare_box
    box.install()
    box.serve()
    run = box.start("50")
    status = box.until_rounds(run, 1)
    victim = status["nodes"][1]["pid"]
    box.leave(signal.SIGKILL)
    order(box.node(run, "b") / "data", "panic:the end")
    wait_for(lambda: not alive(victim), "the node's end")
    box.serve()
    final = box.wait(run, status=1)
    assert final["cause"]["code"] == "node_exited"
    assert "exit status 101" in final["cause"]["text"]
    assert "panicked at" in final["cause"]["text"]
    assert len(events(box, run, "panic")) == 1
