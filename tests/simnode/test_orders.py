"""How faults are ordered."""

from __future__ import annotations

from pathlib import Path

import pytest

from soakd.simnode import order
from soakd.simnode.faults import KINDS, Fault, FaultError, parse
from soakd.simnode.lies import LIES
from soakd.simnode.mischief import DEEDS
from tests.simnode.simnodes import MakeNode, SimNode, tell, wait_until


def test_every_kind_can_be_carried_out() -> None:
    """The table and what stands behind it name the same kinds."""
    assert set(KINDS) == LIES | set(DEEDS) | {"fork", "daemon"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("exit:7", ("exit", False, 0.0, "7")),
        ("die@20:SIGSEGV", ("die", False, 20.0, "SIGSEGV")),
        ("panic@start+0.5", ("panic", True, 0.5, "")),
        ("hang@start:/status", ("hang", True, 0.0, "/status")),
        ("redirect:http://10.0.0.1:80/x@y", ("redirect", False, 0.0, "http://10.0.0.1:80/x@y")),
        ("fail:lock", ("fail", True, 0.0, "lock")),
        ("fail@3:sam-closed", ("fail", False, 3.0, "sam-closed")),
        ("port-taken", ("port-taken", True, 0.0, "")),
        ("http@1:504:/kad", ("http", False, 1.0, "504:/kad")),
    ],
)
def test_an_order_names_kind_time_and_argument(
    text: str, fault: tuple[str, bool, float, str]
) -> None:
    """Without a time it is at readiness, or at the start for what belongs there."""
    assert parse(text) == Fault(text, *fault)


@pytest.mark.parametrize(
    "text",
    [
        "", "frob", "exit", "exit:256", "exit:-1", "die:WINCH", "die:STOP", "die:99", "die:33",
        "hang:status", "http:99", "http:500:status", "stop:1", "print:", "print:1T", "print:1:x",
        "ignore:KILL", "ignore:", "fork:0", "fork:65", "fork:2,fast", "fail:unknown",
        "one-family:5", "one-family@3:4", "port-taken:x", "port-taken@start+1", "redirect:gopher:",
        "loop-stall@start", "session-loss@start+1", "exit@x:1", "exit@-1:1", "exit@nan:1",
        "exit@:1", "exit@start+:1", "loop-stall:-1",
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused(text: str) -> None:
    """By the builder too, since the node would die of it."""
    with pytest.raises(FaultError):
        parse(text)


@pytest.mark.parametrize("text", ["exit@start:1", "port-taken", "one-family:4"])
def test_a_running_node_cannot_start_otherwise(text: str, tmp_path: Path) -> None:
    """What belongs to the start belongs into the configuration."""
    with pytest.raises(ValueError, match="started already"):
        order(tmp_path, text)


def test_wrong_knobs_are_refused(make_node: MakeNode) -> None:
    """A list of strings, each of them an order."""
    for wrong in ("stop", [1], ["frob"]):
        with pytest.raises(ValueError, match=r"sim\.faults"):
            make_node(faults=wrong)


def test_orders_are_obeyed_line_by_line(make_node: MakeNode) -> None:
    """Old lines do not count, wrong ones are refused, half ones waited for, a new file read."""
    node = make_node()
    data = node.folder / "data"
    data.mkdir()
    (data / "sim.faults").write_text("exit:9\n")
    node.run()
    wait_until(node.ready)
    with (data / "sim.faults").open("a") as file:
        file.write("# a remark\n\nfrob\nempty:/downl")
    wait_until(lambda: "simulated fault refused" in node.out())
    assert node.call("GET", "/downloads")[0] == 200
    with (data / "sim.faults").open("a") as file:
        file.write("oads\n")
    wait_until(lambda: 'fault="empty:/downloads"' in node.out())
    (data / "sim.faults").write_text("heal\n")
    wait_until(lambda: 'fault="heal"' in node.out())
    tell(node, "exit@0.2:4")
    assert node.wait() == 4


def test_it_can_be_ordered_by_hand(node: SimNode, capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m soakd.simnode order` and `faults`."""
    from soakd.simnode.__main__ import main

    assert main(["faults"]) == 0
    assert "gzip-bomb:[PATH]" in capsys.readouterr().out
    assert main(["order", str(node.folder / "data"), "exit:5"]) == 0
    assert node.wait() == 5
    with pytest.raises(SystemExit):
        main(["order", str(node.folder / "data"), "frob"])
