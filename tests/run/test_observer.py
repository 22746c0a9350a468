"""What is known of a run's processes: believed only as far as it makes sense."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from soakd.core import node_state, run_state
from soakd.core.node_state import Launched
from soakd.drivers.rust_mule import DRIVER
from soakd.edge.journal import RunFolder
from soakd.edge.pidfds import start_ticks
from soakd.edge.store import Store
from soakd.hub import Hub
from soakd.observer import Observer
from soakd.records import Records
from tests.run.kit import NO_PROCESS, TICKS, UID, VirtualTime, add_run, make_host, make_plan


class Watched:
    """An observer with real records, and what it told."""

    def __init__(self, tmp_path: Path, store: Store) -> None:
        host = make_host(tmp_path, store)
        add_run(host, make_plan())
        self.store = store
        self.folder = RunFolder.create(tmp_path, 1, UID, system=False)
        self.told: list[run_state.Event] = []
        self.hub = Hub()
        self.observer = Observer(host, 1, ("a", "b"), self.hub, self.told.append, DRIVER.words)
        self.observer.records = Records(self.folder)
        for name in "ab":
            self.observer.states[name] = Launched(NO_PROCESS, TICKS)

    async def hear(self, *events: dict[str, Any]) -> None:
        for event in events:
            await self.observer._take(event)

    def kinds(self) -> list[str]:
        assert self.observer.records is not None
        path = self.folder.path / "logs/events.ndjson"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line)["kind"] for line in lines]


@pytest.fixture
def watched(
    tmp_path: Path, store: Store, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Watched]:
    VirtualTime(autojump_clock).install(monkeypatch)
    made = Watched(tmp_path, store)
    yield made
    made.folder.close()


NONSENSE: list[dict[str, Any]] = [
    {},
    {"event": 3},
    {"event": "hello"},
    {"event": "stderr"},
    {"event": "stderr", "node": "a", "line": 3},
    {"event": "stderr", "node": ["a"], "line": "thread 'x' panicked at y"},
    {"event": "node_exited", "node": "nobody", "code": 1},
    {"event": "node_exited", "node": None},
    {"event": "rung", "rung": "made up", "pids": []},
    {"event": "rung", "rung": "sigint", "pids": 3},
    {"event": "stopped", "left": "all"},
    {"event": "output_cut", "node": "nobody", "dropped_bytes": 3},
    {"event": "output_cut", "node": "a", "dropped_bytes": "many"},
]


@pytest.mark.parametrize("event", NONSENSE)
async def test_nonsense_of_a_shim_is_passed_over(
    watched: Watched, autojump_clock: MockClock, event: dict[str, Any]
) -> None:
    """A shim is its user's program."""
    await watched.hear(event)
    assert watched.told == []
    assert watched.kinds() == []
    assert not watched.observer.has_stopped


@pytest.mark.parametrize(
    "how",
    [
        {"code": "x"},
        {"signal": "x"},
        {"signal": [1]},
        {"signal": {}},
        {"signal": -1},
        {"code": {"deep": [1]}},
        {},
    ],
)
async def test_odd_ends_of_nodes_are_ends(
    watched: Watched, autojump_clock: MockClock, how: dict[str, Any]
) -> None:
    """However it is told, the node is gone, and that is booked once."""
    for _ in range(2):
        await watched.hear({"event": "node_exited", "node": "a", **how})
    [event] = watched.told
    assert isinstance(event, run_state.NodeExited)
    assert event.node == "a"
    assert watched.kinds() == ["node_exited"]
    assert watched.observer.status()["nodes"][0]["state"] == "exited"


async def test_end_that_overtakes_the_answer_to_launch_is_booked_with_the_start(
    watched: Watched, autojump_clock: MockClock
) -> None:
    """A node may end so soon that both come in one piece; the end of another life is none of it."""
    for name, pid in (("a", NO_PROCESS), ("b", NO_PROCESS - 1)):
        watched.observer.states[name] = None
        await watched.hear({"event": "node_exited", "node": name, "pid": pid, "code": 7})
        watched.observer.states[name] = Launched(NO_PROCESS, TICKS)
        await watched.observer.start_is_written(name)
    [event] = watched.told
    assert isinstance(event, run_state.NodeExited)
    assert (event.node, event.text.endswith("exit status 7")) == ("a", True)
    states = watched.observer.status()["nodes"]
    assert [node["state"] for node in states] == ["exited", "launched"]


async def test_end_that_overtakes_the_writing_down_of_the_start_stays(
    watched: Watched, autojump_clock: MockClock
) -> None:
    """Neither the store nor a pid file says afterwards that the node lives."""
    await watched.hear({"event": "node_exited", "node": "a", "pid": NO_PROCESS, "code": 1})
    watched.store.put_node(1, "a", NO_PROCESS, TICKS)
    pid_file = watched.folder.path / "logs" / "a.pid"
    pid_file.write_text(f"{NO_PROCESS}\n")
    await watched.observer.start_is_written("a")
    [row] = watched.store.nodes(1)
    assert json.loads(row.exit_json or "") == {"code": 1, "signal": None}
    assert not pid_file.exists()
    assert len(watched.told) == 1


async def test_words_of_a_dying_node_reach_its_cause(
    watched: Watched, autojump_clock: MockClock
) -> None:
    """The last fatal line, explained where it is known, cut where it is long."""
    await watched.hear(
        {"event": "stderr", "node": "a", "line": "Error: first"},
        {"event": "stderr", "node": "a", "line": "Error: App(SamKeys(" + "x" * 5000},
        {"event": "stderr", "node": "b", "line": "Error: of the other"},
        {"event": "node_exited", "node": "a", "signal": 9},
    )
    [event] = watched.told
    assert isinstance(event, run_state.NodeExited)
    assert "SIGKILL; sam.keys is damaged (Error: App(SamKeys(" in event.text
    assert len(event.text) < 500


async def test_panics_are_counted_by_the_records(
    watched: Watched, autojump_clock: MockClock
) -> None:
    """For the gate; the node may live on."""
    line = "thread 'main' panicked at src/x.rs:1:2:"
    await watched.hear({"event": "stderr", "node": "a", "line": line})
    facts = watched.observer.facts()
    assert facts is not None
    assert (facts.panics, facts.node_exits) == (1, 0)
    assert watched.told == []


async def test_output_that_was_cut_is_an_event(watched: Watched, autojump_clock: MockClock) -> None:
    """Readers see where bytes are missing; the record says so too."""
    await watched.hear({"event": "output_cut", "node": "a", "dropped_bytes": 7})
    assert watched.kinds() == ["output_cut"]


async def test_memory_does_not_grow_with_what_a_shim_says(
    watched: Watched, autojump_clock: MockClock
) -> None:
    """Fatal lines of nodes that are none are not kept."""
    for number in range(1000):
        await watched.hear({"event": "stderr", "node": f"n{number}", "line": "Error: x"})
    assert len(watched.observer._last_error) <= 2


async def test_lone_surrogates_of_a_shim_can_be_written(
    watched: Watched, autojump_clock: MockClock
) -> None:
    """JSON can hold what UTF-8 cannot."""
    line = "thread '\ud800' panicked at \udfff"
    await watched.hear(
        {"event": "stderr", "node": "a", "line": line},
        {"event": "stopping", "reason": "\ud800"},
    )
    assert watched.kinds() == ["panic", "stopping"]


async def test_end_of_a_node_that_was_asked_to_end_is_no_failure(
    watched: Watched, autojump_clock: MockClock
) -> None:
    """From the stop on it is expected."""
    watched.observer.ending()
    await watched.hear({"event": "node_exited", "node": "a", "code": 0})
    assert watched.told == []
    facts = watched.observer.facts()
    assert facts is not None
    assert facts.node_exits == 0


async def test_leftovers_are_those_that_the_kernel_confirms(
    watched: Watched, autojump_clock: MockClock
) -> None:
    """Living processes of the run's user; no other pid may block the slot."""
    with subprocess.Popen(["sleep", "1000"]) as child:
        try:
            event = {"event": "stopped", "left": [child.pid, 1, 0, -4, 1 << 80, True, "x", None]}
            await watched.hear(event)
            assert [pid for pid, _ in watched.observer.left] == [child.pid]
            watched.observer.uid = UID + 1
            await watched.hear(event)
            assert watched.observer.left == []
        finally:
            child.kill()
    assert watched.observer.has_stopped


async def test_measured_is_the_share_without_gaps(
    watched: Watched, autojump_clock: MockClock
) -> None:
    """Unknown before anything was to be measured; a gap longer than the whole is no less than 0."""
    observer = watched.observer
    facts = observer.facts()
    assert facts is not None
    assert facts.measured is None
    observer.running_since(50_000)
    await observer.add_gap(1000.0, 1010.0, "x")
    observer.span = [50_000.0, 50_100.0]
    facts = observer.facts()
    assert facts is not None
    assert facts.measured == pytest.approx(0.9)
    await observer.add_gap(1000.0, 9000.0, "x")
    await observer.add_gap(9000.0, 1000.0, "the clock went back")
    facts = observer.facts()
    assert facts is not None
    assert facts.measured == 0
    assert [gap.s for gap in watched.store.gaps(1)] == [10, 8000, 0]


async def test_run_that_measured_for_no_time_measured_all_of_it(
    watched: Watched, autojump_clock: MockClock
) -> None:
    """No division by nothing."""
    watched.observer.span = [50_000.0, 50_000.0]
    facts = watched.observer.facts()
    assert facts is not None
    assert facts.measured == 1


async def test_nodes_that_died_unheard_are_settled(
    watched: Watched, autojump_clock: MockClock
) -> None:
    """Their shim was gone: no pid of theirs is shown any more, no pid file stays."""
    watched.observer.states["b"] = Launched(os.getpid(), start_ticks(os.getpid()) or 0)
    (watched.folder.path / "logs/a.pid").write_text("1\n")
    await watched.observer.settle()
    states = {node["name"]: node["pid"] for node in watched.observer.status()["nodes"]}
    assert states == {"a": None, "b": os.getpid()}
    assert not (watched.folder.path / "logs/a.pid").exists()
    assert isinstance(watched.observer.states["a"], node_state.Exited)


def test_observer_without_records_keeps_still(tmp_path: Path, store: Store) -> None:
    """Before the run folder there is nowhere to write, and nothing to judge."""
    observer = Observer(
        make_host(tmp_path, store), 1, ("a",), Hub(), lambda _event: None, DRIVER.words
    )
    observer.event("x", None, {})
    observer.status_sample("a", "{}")
    observer.resources("a", {})
    assert observer.facts() is None
    assert "rounds" not in observer.status()
