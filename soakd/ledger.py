"""What the store and the last files say of a run: read when it is taken up, written at each move.

Called by the run's owner only, so the store has one writer per run.
"""

from __future__ import annotations

import json
from typing import Any

import trio

from soakd import leases
from soakd.core import run_state
from soakd.core.errors import HostError, SoakError
from soakd.core.plan import Plan, parse_plan, plan_to_dict
from soakd.edge.clock import boot_id, boot_now, rfc3339, wall_now
from soakd.edge.peers import Peer
from soakd.edge.store import LeaseTaken, NewRun, RunRow
from soakd.host import Host
from soakd.keeping import without_gates
from soakd.log import get_logger
from soakd.observer import Observer
from soakd.view import QUEUED, from_row, run_name
from soakd.work import Work

RUNNER_STATES = {
    "completed": "completed",
    "failed": "failed",
    "stopped": "stopped",
    "aborted": "failed",
}
"""The words of the scripts' `runner.state`, which know no abort."""

_log = get_logger()


def stored_plan(row: RunRow) -> Plan:
    """The plan of a run that an earlier soakd has stored.

    Raises:
        HostError: this soakd cannot read it.
    """
    try:
        return parse_plan(json.loads(row.plan_json))
    except (ValueError, SoakError) as error:
        raise HostError(
            "internal",
            f"cannot take over run {run_name(row.id)}: this soakd cannot read its plan ({error});"
            " finish the run with the soakd that stored it, then upgrade",
        ) from error


def new_run(peer: Peer, plan: Plan, sha256: dict[str, str]) -> NewRun:
    """The row of a run that has just been submitted."""
    return NewRun(
        owner_uid=peer.uid,
        owner_name=peer.name,
        label=plan.label,
        created_at=wall_now(),
        state=QUEUED,
        state_json=json.dumps(run_state.to_dict(run_state.Queued())),
        plan_json=json.dumps(plan_to_dict(plan)),
        sha256_json=json.dumps(sha256),
    )


class Ledger:
    """The written state of one run.

    Attributes:
        base: what `status` shows of it.
        written_bytes: how large its records are, once it is over.
    """

    def __init__(self, host: Host, run_id: int, plan: Plan, work: Work, observer: Observer) -> None:
        """Knows nothing before `read`."""
        self.base: dict[str, Any] = {}
        self.written_bytes: int | None = None
        self._host = host
        self._id = run_id
        self._plan = plan
        self._work = work
        self._observer = observer

    def lengthen(self, plan: Plan) -> None:
        """The run's plan is another from the next transition on, which stores it."""
        self._plan = plan
        self.base["duration_s"] = plan.duration_s

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
        self,
        old: run_state.State,
        new: run_state.State,
        event: run_state.Event,
        uid: int | None,
        remains: tuple[leases.Process, ...] = (),
    ) -> None:
        """Makes a transition durable, with the leases and whatever else begins or ends with it.

        Args:
            old: the state it is in.
            new: the state it gets.
            event: what has come about.
            uid: who has asked for it; None is soakd itself.
            remains: processes that the run leaves behind if it is over now.

        Raises:
            SoakError: the store refuses, or another run holds what this one needs; the run is
                still in its old state.
        """
        at = wall_now()
        columns = await self._columns(new, at)
        if isinstance(event, run_state.SlotGranted | run_state.Extended):
            # Ports of the range, and more time: what the run really has.
            columns["plan_json"] = json.dumps(plan_to_dict(self._plan))
        take = left = None
        if isinstance(new, run_state.Staging):
            take = leases.of_start(self._id, self._plan)
        elif isinstance(new, run_state.Finished):
            left = [leases.key_of(process, boot_id()) for process in remains]
        try:
            await self._host.db(
                self._host.store.transition,
                self._id,
                run_state.name(old),
                run_state.name(new),
                json.dumps(run_state.to_dict(new)),
                uid,
                type(event).__name__,
                at=at,
                take=take or (),
                left=left,
                **columns,
            )
        except LeaseTaken as taken:
            raise HostError("refused", leases.refusal(taken), {"cause": "leased"}) from taken

    async def _columns(self, new: run_state.State, at: float) -> dict[str, Any]:
        """What else of the run's row changes with a new state."""
        match new:
            case run_state.Staging():
                self.base["started_at"] = rfc3339(at)
                return {"started_at": at}
            case run_state.Running():
                if new.deadline_s is not None:
                    self.base["deadline_at"] = rfc3339(at + new.deadline_s - boot_now())
                return {"measured_json": self._measured()}
            case run_state.Stopping():
                return {"measured_json": self._measured()}
            case run_state.Finished():
                return await self._end(new, at)
            case _:
                return {}

    async def _end(self, end: run_state.Finished, at: float) -> dict[str, Any]:
        cause = None if end.cause is None else end.cause.to_dict()
        ended = {"result": end.result, "verdict": end.verdict, "why": end.why}
        self.base |= {
            "state": run_state.name(end),
            "ended_at": rfc3339(at),
            "cause": cause,
            **ended,
        }
        records = self._work.records
        if records is not None:
            self.written_bytes = await trio.to_thread.run_sync(records.used_bytes)
        columns = {
            **ended,
            "ended_at": at,
            "cause_json": None if cause is None else json.dumps(cause),
            "measured_json": self._measured(),
        }
        if records is not None:
            columns |= self._work.checkpoint()
            self.base |= {"remaining_s": None, "round": records.last_round or None}
            summary = self.base | self._observer.status()
            summary |= {"rung": None, "gates": self._observer.gates, "soaks": records.soaks}
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
        records = self._work.records
        facts["soaks"] = [] if records is None else list(map(without_gates, records.soaks))
        facts |= {"span": self._observer.span, "disk_bytes": self.written_bytes}
        return json.dumps(facts)
