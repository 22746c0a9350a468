"""The order of the queue. Part of `soakd.core.queue`, used by nothing else.

An admin's priority comes first, then the user with the least recent soak-hours, then whoever came
first; a run that was promised a time leads its priority, so that no newcomer gets in front of it.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from soakd.core.queue_types import Candidate


class Line:
    """Queued runs; `in_turn` is lazy, since most picks need only its beginning."""

    def __init__(self, runs: Iterable[Candidate]) -> None:
        self._runs = {run.id: run for run in sorted(runs, key=lambda run: run.id)}
        # Those of one user and one priority stand in order of arrival whatever happens.
        self._groups: dict[tuple[int, int], dict[int, Candidate]] = {}
        for run in self._runs.values():
            self._groups.setdefault((run.priority, run.uid), {})[run.id] = run

    def __bool__(self) -> bool:
        return bool(self._runs)

    def get(self, run_id: int) -> Candidate | None:
        """Return a run that still waits."""
        return self._runs.get(run_id)

    def remove(self, run_id: int) -> None:
        """Take a run out that starts."""
        run = self._runs.pop(run_id)
        group = self._groups[run.priority, run.uid]
        del group[run_id]
        if not group:
            del self._groups[run.priority, run.uid]

    def in_turn(
        self,
        usage: Mapping[int, float],
        promised: int | None,
        is_hopeless: Callable[[Candidate], bool] = lambda _: False,
    ) -> Iterator[Candidate]:
        """Yield runs in the order of their turn; the line may not change meanwhile.

        Args:
            usage: Recent soak-hours by user.
            promised: The run that leads its priority.
            is_hopeless: True leaves a run out; asked when the one of its user before it is done.
        """
        heap: list[tuple[int, float, int, Iterator[Candidate]]] = []

        def push(runs: Iterator[Candidate]) -> None:
            for run in runs:
                if run.id != promised and not is_hopeless(run):
                    heapq.heappush(heap, (-run.priority, usage.get(run.uid, 0.0), run.id, runs))
                    break

        leader = None if promised is None else self._runs.get(promised)
        if leader is not None:
            heapq.heappush(heap, (-leader.priority, -1.0, leader.id, iter(())))
        for group in self._groups.values():
            push(iter(group.values()))
        while heap:
            _, _, run_id, rest = heapq.heappop(heap)
            yield self._runs[run_id]
            push(rest)
