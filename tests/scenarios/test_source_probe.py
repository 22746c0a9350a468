"""One round under way: the player does what the machine asks for and can be cut at any step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from soakd.core import rounds
from soakd.core.errors import HostError, NodeError
from soakd.core.rounds import Cut, NodeDown, RoundResult, RoundSpec
from soakd.scenarios.player import Player
from soakd.scenarios.source_probe import (
    MAX_FILE_SIZE_BYTES,
    MIN_FILE_SIZE_BYTES,
    File,
    SourceCalls,
    random_file,
)
from tests.run.kit import KAD_ID, FakeNet, FakeNode, VirtualTime


def spec(**changes: object) -> RoundSpec:
    given: dict[str, object] = {
        "number": 1, "measurement": "1", "publisher": "a", "searcher": "b", "flow": "source:a>b",
        "file_id": "f" * 32, "file_size": 2048, "cold": False, "wait_publish_s": 20.0,
        "wait_search_s": 20.0, "read_every_s": 5.0, "recheck_attempts": 1, "recheck_delay_s": 20.0,
    }  # fmt: skip
    return RoundSpec(**(given | changes))  # type: ignore[arg-type]


class Game:
    """A player with its two nodes, and what happened."""

    def __init__(self, net: FakeNet, **changes: object) -> None:
        self.net = net
        self.phases: list[str] = []
        self.snapshots = 0
        self.snapshot_error: Exception | None = None
        self.when: Callable[[str], None] = lambda _phase: None
        made = spec(**changes)
        file = File(made.file_id, made.file_size)
        calls = SourceCalls(file, FakeNode("a", net), FakeNode("b", net))
        self.player = Player(made, calls, self.snapshot, self.phase)

    async def snapshot(self, _doubts: bool) -> None:  # noqa: FBT001
        await self.net.meet("ab", "snapshot")
        self.snapshots += 1
        if self.snapshot_error is not None:
            raise self.snapshot_error

    def phase(self, phase: str) -> None:
        if self.phases[-1:] != [phase]:
            self.phases.append(phase)
        self.when(phase)


@pytest.fixture
def time(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> VirtualTime:
    made = VirtualTime(autojump_clock)
    made.install(monkeypatch)
    return made


def test_files_are_random_and_within_the_scripts_limits() -> None:
    """128 bits, never reused: rows in nodes do not expire."""
    made = [random_file() for _ in range(500)]
    assert len({file_id for file_id, _ in made}) == 500
    assert all(len(file_id) == 32 and int(file_id, 16) >= 0 for file_id, _ in made)
    assert all(MIN_FILE_SIZE_BYTES <= size <= MAX_FILE_SIZE_BYTES for _, size in made)


async def test_hit_takes_the_waits_and_no_more(
    time: VirtualTime, autojump_clock: MockClock
) -> None:
    """Publish, wait, early read, search, wait with dating reads, deciding read, snapshots."""
    game = Game(FakeNet("hit"))
    begun_s = trio.current_time()
    result = await game.player.play()
    assert (result.outcome, result.rechecks, result.prestored) == ("hit", 0, False)
    assert trio.current_time() - begun_s == pytest.approx(40)
    assert result.first_seen_s == pytest.approx(25)
    assert result.source_ids == (KAD_ID,)
    assert game.snapshots == 1
    assert game.phases == [
        "publish", "wait_publish", "early_read", "search", "wait_search", "dating_read",
        "wait_search", "read", "snapshot", "finished",
    ]  # fmt: skip


async def test_late_hit_comes_on_a_recheck(time: VirtualTime, autojump_clock: MockClock) -> None:
    """The delay is waited for, then it is read again."""
    game = Game(FakeNet("late"))
    result = await game.player.play()
    assert (result.outcome, result.rechecks) == ("late", 1)
    assert game.phases[-4:] == ["wait_recheck", "recheck", "snapshot", "finished"]


async def test_miss_stays_a_miss(time: VirtualTime, autojump_clock: MockClock) -> None:
    """After all rechecks; none with attempts 0."""
    assert (await Game(FakeNet("miss"), recheck_attempts=3).player.play()).rechecks == 3
    game = Game(FakeNet("miss"), recheck_attempts=0)
    assert (await game.player.play()).outcome == "miss"
    assert "recheck" not in game.phases


async def test_round_without_waits_still_yields(
    time: VirtualTime, autojump_clock: MockClock
) -> None:
    """Waits of 0 leave the steps out and other tasks their turn."""
    game = Game(
        FakeNet("prestored"), wait_publish_s=0, wait_search_s=0, read_every_s=0, recheck_delay_s=0
    )
    result = await game.player.play()
    assert (result.outcome, result.prestored) == ("hit", True)
    assert not any(phase.startswith("wait") for phase in game.phases)


@pytest.mark.parametrize(
    ("node", "call", "step"), [("a", "publish", "publish"), ("b", "search", "search")]
)
@pytest.mark.parametrize("kind", [NodeError, HostError])
async def test_failed_call_makes_an_error_round(
    time: VirtualTime,
    autojump_clock: MockClock,
    node: str,
    call: str,
    step: str,
    kind: type[NodeError | HostError],
) -> None:
    """It says nothing about the network; the snapshots are taken all the same."""
    net = FakeNet()
    net.fails[node, call] = kind("internal", "cannot call the node: why")
    game = Game(net)
    result = await game.player.play()
    assert (result.outcome, result.error) == ("error", (step, "cannot call the node: why"))
    assert game.snapshots == 1


async def test_failed_reads_before_the_deciding_one_are_notes(
    time: VirtualTime, autojump_clock: MockClock
) -> None:
    """The deciding read alone decides."""
    net = FakeNet("hit")
    game = Game(net)
    net.fails["b", "sources"] = NodeError("api_timeout", "cannot read")

    def mend(phase: str) -> None:
        if phase == "read":
            net.fails.clear()

    game.when = mend
    result = await game.player.play()
    assert result.outcome == "hit"
    assert {step for step, _ in result.notes} == {"early_read", "dating_read"}


async def test_failed_snapshot_is_a_note(time: VirtualTime, autojump_clock: MockClock) -> None:
    """The round is classified already."""
    game = Game(FakeNet("hit"))
    game.snapshot_error = NodeError("no_snapshot", "cannot take it")
    result = await game.player.play()
    assert (result.outcome, result.notes) == ("hit", (("snapshot", "cannot take it"),))


async def test_bug_is_not_taken_for_a_failed_call(
    time: VirtualTime, autojump_clock: MockClock
) -> None:
    """Only errors of known kinds are data."""
    net = FakeNet()
    net.fails["a", "publish"] = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        await Game(net).player.play()


STEPS = [
    "publish", "wait_publish", "early_read", "search", "wait_search", "dating_read", "read",
    "wait_recheck", "recheck",
]  # fmt: skip


async def cut_at(game: Game, phase: str, event: Cut | NodeDown) -> RoundResult:
    """Play; when the phase is reached, let its step begin and then cut it."""
    results: list[RoundResult] = []
    reached = trio.Event()
    game.when = lambda now: reached.set() if now == phase else None

    async def play() -> None:
        results.append(await game.player.play())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(play)
        await reached.wait()
        await trio.sleep(0.5)
        game.player.interrupt(event)
        game.player.interrupt(Cut("second"))
        cut_s = trio.current_time()
    assert trio.current_time() == cut_s
    return results[0]


HANGING = {
    "publish": ("a", "publish"),
    "early_read": ("b", "sources"),
    "search": ("b", "search"),
    "dating_read": ("b", "sources"),
    "read": ("b", "sources"),
    "recheck": ("b", "sources"),
}


@pytest.mark.parametrize("phase", STEPS)
async def test_round_is_cut_at_once_in_any_step(
    time: VirtualTime, autojump_clock: MockClock, phase: str
) -> None:
    """Even in a call that hangs; the first reason stands."""
    net = FakeNet("miss")
    game = Game(net)
    hang = HANGING.get(phase)
    outer = game.phase

    def on_phase(now: str) -> None:
        if now == phase and hang is not None:
            net.hangs.add(hang)
        outer(now)

    game.player._on_phase = on_phase
    result = await cut_at(game, phase, Cut("stop"))
    assert (result.outcome, result.cause) == ("skipped", "cut:stop")
    assert game.snapshots == 0


async def test_dead_node_makes_an_error_round(time: VirtualTime, autojump_clock: MockClock) -> None:
    """Says nothing about the network."""
    result = await cut_at(Game(FakeNet()), "wait_search", NodeDown("b"))
    assert (result.outcome, result.cause) == ("error", "node_down:b")
    assert result.error == ("wait_search", "node b is down")


async def test_round_cut_in_its_snapshots_keeps_its_outcome(
    time: VirtualTime, autojump_clock: MockClock
) -> None:
    """It was classified before."""
    net = FakeNet("hit")
    net.hangs.add(("ab", "snapshot"))
    result = await cut_at(Game(net), "snapshot", Cut("stop"))
    assert (result.outcome, result.cause) == ("hit", None)


async def test_round_cut_before_it_began_calls_nobody(
    time: VirtualTime, autojump_clock: MockClock
) -> None:
    """The stop came between two rounds."""
    game = Game(FakeNet())
    game.player.interrupt(Cut("stop"))
    assert (await game.player.play()).outcome == "skipped"
    assert game.net.called == []


async def test_round_cut_in_the_moment_of_an_answer_is_cut(
    time: VirtualTime, autojump_clock: MockClock
) -> None:
    """The answer is taken, the next step is not begun."""
    game = Game(FakeNet())

    def when(phase: str) -> None:
        if phase == "search":
            game.player.interrupt(Cut("stop"))

    game.when = when
    result = await game.player.play()
    assert (result.outcome, ("b", "search") in game.net.called) == ("skipped", False)


async def test_cancelled_round_has_no_result(time: VirtualTime, autojump_clock: MockClock) -> None:
    """soakd leaves: nothing is classified, nothing hangs."""
    game = Game(FakeNet())
    with trio.move_on_after(7) as scope:
        await game.player.play()
    assert scope.cancelled_caught
    assert rounds.phase is not None
