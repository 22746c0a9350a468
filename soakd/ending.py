"""The end of a run: the ladder, what it left, and the verdict."""

from __future__ import annotations

import trio

from soakd.core import gates, rows
from soakd.core.errors import SoakError
from soakd.core.model import Verdict
from soakd.core.plan import Plan, ladder_s
from soakd.core.run_state import Stopping
from soakd.crew import Crew, Left
from soakd.observer import Observer

LADDER_SLACK_S = 2.0
LAST_NEWS_S = 1.0


class Ending:
    """Brings a stopping run to rest; used once.

    Attributes:
        was_announced: an earlier soakd has written that the run is ending.
        left: what could not be ended, as it stood when the processes were last dealt with. The
            observer's may shrink later, but what held them still has to be put away then.
    """

    def __init__(self, plan: Plan, crew: Crew, observer: Observer) -> None:
        """Nothing is stopped before `walk`."""
        self.was_announced = False
        self.left: tuple[tuple[int, int], ...] = ()
        self._plan = plan
        self._crew = crew
        self._observer = observer

    async def walk(self, stopping: Stopping) -> tuple[Verdict, str]:
        """Stops every process of the run, waits until none is left, and judges the run.

        Bounded: the ladder has its times, the shim's end has its own, and then force is used.
        """
        if not self.was_announced:
            self._announce(stopping)
        await self._stop_processes(stopping)
        return self._judge(stopping)

    async def force(self) -> None:
        """Stops every process of the run with nothing said or judged: for a run that crashed."""
        self._is_left(await self._crew.stop_unheard("internal error of soakd"))

    async def put_down(self) -> None:
        """Ends by force what is still there: for a run that has no more time."""
        self._is_left(await self._crew.put_down())

    def _is_left(self, left: Left) -> None:
        self._observer.left = left
        self.left = tuple(left)

    def _announce(self, stopping: Stopping) -> None:
        records = self._observer.records
        if records is None:
            return
        cause = stopping.cause
        # Kept nodes that idle are stopped too, and what was measured on them is whole.
        if cause is not None and cause.code == "stop_asked":
            records.marker(rows.runner_stop_requested())
            records.marker(rows.stop_marker())
            records.soak_log("stop requested")
        elif cause is not None:
            records.marker(rows.error(cause.text))
        records.marker(rows.soak_finished(records.last_round))
        if not self._plan.is_attached:
            records.marker(rows.node_stop_requested())

    async def _stop_processes(self, stopping: Stopping) -> None:
        observer, crew = self._observer, self._crew
        if crew.is_connected:
            reason = stopping.result if stopping.cause is None else stopping.cause.text
            try:
                await crew.call("stop", reason=reason[:200])
                with trio.move_on_after(ladder_s(self._plan) + LADDER_SLACK_S):
                    await observer.ladder_done.wait()
            except SoakError as error:
                observer.event("stop_refused", None, {"text": error.message})
                # A shim that has just ended by itself has said how: that is still being read.
                with trio.move_on_after(LAST_NEWS_S):
                    await observer.ladder_done.wait()
        if not crew.is_connected:
            # An earlier soakd's shim that could not be taken over: asked once more, then forced.
            observer.left = await crew.stop_unheard("the run has ended")
        elif not observer.has_stopped:
            observer.left = await crew.put_down()
        elif not observer.left:
            observer.left = await crew.dismiss()
        self._is_left(observer.left)
        await observer.settle()
        if crew.swept is not None and (crew.swept.killed or crew.swept.spared):
            spared = [{"pid": pid, "why": why} for pid, why in crew.swept.spared]
            observer.event("swept", None, {"killed": list(crew.swept.killed), "spared": spared})
        if crew.sweep_error:
            observer.event("sweep_failed", None, {"text": crew.sweep_error})
        if self.left:
            pids = [pid for pid, _ in self.left]
            observer.event(
                "leftovers", None, {"pids": pids, "text": "processes of the run are left"}
            )

    def _judge(self, stopping: Stopping) -> tuple[Verdict, str]:
        facts = self._observer.facts()
        results: tuple[gates.GateResult, ...] = ()
        if facts is not None:
            results = gates.judge(self._plan.gates, facts, attached=self._plan.is_attached)
        self._observer.gates = [item.to_dict() for item in results]
        verdict, why = gates.verdict(stopping.result, stopping.cause, results)
        if any(item.gate.metric == "errors" and item.status == "failed" for item in results):
            why += f"; {self._observer.error_sentence()}"
        return verdict, why
