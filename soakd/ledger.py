"""What the store and the last files say of a run: read when it is taken up, written at each move.

Called by the run's owner only, so the store has one writer per run.
"""

from __future__ import annotations

import json
from typing import Any

from soakd.core import run_state
from soakd.core.errors import SoakError
from soakd.core.plan import Plan
from soakd.edge.clock import boot_now, rfc3339, wall_now
from soakd.edge.store import RunRow
from soakd.host import Host
from soakd.log import get_logger
from soakd.observer import Observer
from soakd.view import from_row
from soakd.work import Work

RUNNER_STATES = {
    "completed": "completed",
    "failed": "failed",
    "stopped": "stopped",
    "aborted": "failed",
}
"""The words of the scripts' `runner.state`, which know no abort."""

_log = get_logger()


class Ledger:
    """The written state of one run; `base` is what `status` shows of it."""

    def __init__(self, host: Host, run_id: int, plan: Plan, work: Work, observer: Observer) -> None:
        """Knows nothing before `read`."""
        self.base: dict[str, Any] = {}
        self._host = host
        self._id = run_id
        self._plan = plan
        self._work = work
        self._observer = observer

    async def read(self) -> tuple[RunRow, run_state.State]:
        """Reads the run as the store has it."""
        row = await self._host.db(self._host.store.get_run, self._id)
        assert row is not None, "a run without a row was given a slot"
        self.base = from_row(row, self._plan, (), (), None)
        self._observer.notes = list(self.base["notes"])
        self._observer.simulation = bool(self.base["simulation"])
        if row.measured_json:
            self._observer.span = json.loads(row.measured_json).get("span")
        return row, run_state.from_dict(json.loads(row.state_json))

    async def write(
        self, old: run_state.State, new: run_state.State, event: run_state.Event, uid: int | None
    ) -> None:
        """Makes a transition durable, with what begins or ends with it.

        Raises:
            SoakError: the store refuses; the run is still in its old state.
        """
        at = wall_now()
        columns: dict[str, Any] = {}
        match new:
            case run_state.Staging():
                columns["started_at"] = at
                self.base["started_at"] = rfc3339(at)
            case run_state.Running():
                if new.deadline_s is not None:
                    self.base["deadline_at"] = rfc3339(at + new.deadline_s - boot_now())
                columns["measured_json"] = self._measured()
            case run_state.Stopping():
                columns["measured_json"] = self._measured()
            case run_state.Finished():
                columns = await self._end(new, at)
            case _:
                columns = {}
        await self._host.db(
            self._host.store.transition,
            self._id,
            run_state.name(old),
            run_state.name(new),
            json.dumps(run_state.to_dict(new)),
            uid,
            type(event).__name__,
            at=at,
            **columns,
        )

    async def _end(self, end: run_state.Finished, at: float) -> dict[str, Any]:
        cause = None if end.cause is None else end.cause.to_dict()
        ended = {"result": end.result, "verdict": end.verdict, "why": end.why}
        self.base |= {
            "state": run_state.name(end),
            "ended_at": rfc3339(at),
            "cause": cause,
            **ended,
        }
        columns = {
            **ended,
            "ended_at": at,
            "cause_json": None if cause is None else json.dumps(cause),
            "measured_json": self._measured(),
        }
        records = self._work.records
        if records is not None:
            columns |= self._work.checkpoint()
            self.base |= {"remaining_s": None, "round": records.last_round or None}
            summary = self.base | self._observer.status() | {"gates": self._observer.gates}
            try:
                await records.write_json("run.json", summary)
                await records.state_file(RUNNER_STATES[end.result])
            except SoakError as error:
                # A full disk: what matters most is that the end itself gets into the store.
                _log.error("last_files_not_written", text=error.message)
        return columns

    def _measured(self) -> str:
        facts = {"deadline_at": self.base.get("deadline_at")}
        facts |= {"simulation": self._observer.simulation, "notes": self._observer.notes}
        return json.dumps(facts | {"span": self._observer.span})
