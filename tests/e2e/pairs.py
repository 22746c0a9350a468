"""Many runs side by side in one soakd, each with a pair of nodes and ports of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.box import Box, Status


class Pairs:
    """The runs of a box, by the names that a test file gives them.

    Attributes:
        box: where they run.
        runs: their ids.
        ports: those of all their nodes.
    """

    def __init__(self, box: Box) -> None:
        """No run yet."""
        self.box = box
        self.runs: dict[str, str] = {}
        self.ports: list[int] = []

    def lay_out(
        self,
        sim: dict[str, object] | None = None,
        spoil: Callable[[list[Path]], object] | None = None,
    ) -> None:
        """Make a new pair of nodes, for the next runs; `spoil` may change their folders."""
        self.box.renew()
        self.box.install(**{"outcomes": ["hit"], **(sim or {})})
        self.ports += self.box.ports
        if spoil is not None:
            spoil(self.box.soaks)

    def begin(
        self, name: str, *args: str, sim: dict[str, object] | None = None, **variables: str
    ) -> None:
        """Start a run of a new pair of nodes."""
        self.lay_out(sim)
        self.runs[name] = self.box.start(*args, **variables)

    def statuses(self) -> dict[str, Status]:
        """What soakd says of all runs now."""
        return {name: self.box.status(run) for name, run in self.runs.items()}


@contextmanager
def served(box: Box, settings: str | None = None) -> Iterator[Box]:
    """Yield a box with its soakd; nothing may be left in the end. `settings` are its soakd.toml."""
    if settings is not None:
        (box.folder / "soakd.toml").write_text(settings)
    try:
        box.serve()
        yield box
    finally:
        box.close()
    assert box.leftovers() == []


@contextmanager
def wide_box(folder: Path, at_a_time: int = 2) -> Iterator[Box]:
    """Yield a box whose soakd has slots for several runs; nothing may be left in the end."""
    settings = (
        f"max_running = {at_a_time}\nrunning_per_user = {at_a_time}\nqueued_per_user = 100\n"
        "submissions_per_minute = 1000\n"
    )
    with served(Box(folder), settings) as box:
        yield box


@contextmanager
def pairs(folder: Path, at_a_time: int) -> Iterator[Pairs]:
    """Yield no run yet, in a soakd that has a slot for each of so many."""
    with wide_box(folder, at_a_time) as box:
        made = Pairs(box)
        yield made
        box.ports = made.ports
