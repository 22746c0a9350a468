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
    """

    def __init__(self, box: Box) -> None:
        """No run yet."""
        self.box = box
        self.runs: dict[str, str] = {}
        self._ports: list[int] = []

    def lay_out(
        self, sim: dict[str, object] | None = None, spoil: Callable[[list[Path]], object] = list
    ) -> None:
        """Make a new pair of nodes, for the next runs; `spoil` may change their folders."""
        self.box.renew()
        self.box.install(**{"outcomes": ["hit"], **(sim or {})})
        self._ports += self.box.ports
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

    def end(self) -> None:
        """End everything; nothing may be left on the ports of any run, nor elsewhere."""
        self.box.close()
        self.box.ports = self._ports
        assert self.box.leftovers() == []


@contextmanager
def pairs(folder: Path, at_a_time: int) -> Iterator[Pairs]:
    """Yield a soakd that has a slot for each of so many runs."""
    box = Box(folder)
    (folder / "soakd.toml").write_text(
        f"max_running = {at_a_time}\nrunning_per_user = {at_a_time}\nqueued_per_user = 100\n"
        "submissions_per_minute = 1000\n"
    )
    made = Pairs(box)
    try:
        box.serve()
        yield made
    except BaseException:
        box.close()
        raise
    made.end()
