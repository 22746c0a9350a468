"""The end of a run: the ladder, what it left, and the verdict."""

from __future__ import annotations

from typing import Any

import trio

from soakd.core import gates, rows
from soakd.core.errors import SoakError
from soakd.core.model import Verdict
from soakd.core.plan import Plan, ladder_s
from soakd.core.run_state import Stopping
from soakd.crew import Crew
from soakd.observer import Observer

LADDER_SLACK_S = 2.0


class Ending:
    """Brings a stopping run to rest; used once."""

    def __init__(self, plan: Plan, crew: Crew, observer: Observer) -> None:
        """Nothing is stopped before `walk`."""
        self._plan = plan
        self._crew = crew
        self._observer = observer
        self._gates: tuple[gates.GateResult, ...] = ()

    def summary(self) -> dict[str, Any]:
        """How each gate came out, for run.json."""
        return {
            "gates": [
                {
                    "gate": item.gate.text,
                    "status": item.status,
                    "value": item.value,
                    "text": item.text,
                }
                for item in self._gates
            ]
        }

    async def walk(self, stopping: Stopping) -> tuple[Verdict, str]:
        """Stops every process of the run, waits until none is left, and judges the run.

        Bounded by the ladder's own times; the state's deadline is behind it.
        """
        self._say(stopping)
        await self._stop_processes(stopping)
        facts = self._observer.facts()
        if facts is not None:
            self._gates = gates.evaluate(gates.gates_of(self._plan.gates), facts)
        return gates.verdict(stopping.result, stopping.cause, self._gates)

    def _say(self, stopping: Stopping) -> None:
        records = self._observer.records
        if records is None:
            return
        if stopping.result == "stopped":
            records.marker(rows.runner_stop_requested())
            records.marker(rows.stop_marker())
            records.soak_log("stop requested")
        elif stopping.cause is not None:
            records.marker(rows.error(stopping.cause.text))
        records.marker(rows.soak_finished(records.last_round))
        records.marker(rows.node_stop_requested())

    async def _stop_processes(self, stopping: Stopping) -> None:
        if not self._crew.hired:
            return
        reason = stopping.result if stopping.cause is None else stopping.cause.text
        try:
            await self._crew.call("stop", reason=reason[:200])
        except SoakError as error:
            # The shim is lost: its nodes die with it (PDEATHSIG), the cgroup takes the rest.
            self._observer.event("shim_lost", None, {"text": error.message})
        else:
            with trio.move_on_after(ladder_s(self._plan) + LADDER_SLACK_S):
                await self._observer.ladder_done.wait()
        if not self._observer.left and not await self._crew.dismiss():
            self._observer.event("leftovers", None, {"text": "processes of the run are left"})

    async def force(self) -> None:
        """Stops every process of the run with nothing said or judged: for a run that crashed."""
        if self._crew.hired:
            await self._crew.stop_unheard("internal error of soakd")
