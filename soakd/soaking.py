"""Asking for rounds on kept nodes: what is refused, and what a soak begins with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from soakd.core import run_state
from soakd.core.errors import UserError
from soakd.core.plan import Plan, flows_per_round, longest_round_s
from soakd.core.run_state import Soak
from soakd.core.soak_plan import room_for, soak_plan
from soakd.edge.clock import boot_now, rfc3339, wall_now
from soakd.records import MAX_SOAKS
from soakd.run import Run
from soakd.view import run_name


async def ask(run: Run, keys: Mapping[str, Any], uid: int) -> dict[str, Any]:
    """Begins a soak; returns a SoakResult once it is stored.

    Args:
        run: a live run.
        keys: what is measured, by key of the plan.
        uid: who wants it.

    Raises:
        UserError: `bad_plan`, or `refused`: its nodes are not kept, not ready, or busy.
    """
    await run.settled.wait()
    # One after the other: the number of a soak and its base follow from the one before.
    async with run.soak_turn:
        running = _idle(run)
        plan = soak_plan(run.plan, keys)
        no_room = room_for(longest_round_s(plan), longest_round_s(run.plan), run_name(run.id))
        if no_room is not None:
            raise no_room
        soak, notes = _soak(run, running, plan, keys)
        state = await run.tell(run_state.SoakAsked(soak), uid)
        if not isinstance(state, run_state.Running) or state.soak is not soak:
            raise _refused(run.id, "it is ending")
    deadline_at = None
    if soak.deadline_s is not None:
        deadline_at = rfc3339(wall_now() + soak.deadline_s - boot_now())
    return {
        "id": run_name(run.id),
        "measurement": soak.number,
        "first_round": soak.base + 1,
        "rounds_wanted": None if plan.rounds is None else plan.rounds * flows_per_round(plan),
        "deadline_at": deadline_at,
        "notes": notes,
    }


def _idle(run: Run) -> run_state.Running:
    """The state of a run whose nodes wait for something to do."""
    state = run.state
    if not run.plan.no_rounds:
        why = "it makes its own rounds; `soakctl start --no-rounds` keeps nodes for yours"
        raise _refused(run.id, why)
    if isinstance(state, run_state.Stopping | run_state.Finished):
        raise _refused(run.id, f"it is {run_state.name(state)}; start other nodes")
    name = run_name(run.id)
    if not isinstance(state, run_state.Running):
        why = f"its nodes are not ready; wait for them: soakctl wait {name} --for ready"
        raise _refused(run.id, why)
    if state.soak is not None:
        why = f"soak {state.soak.number} is under way; follow it: soakctl watch {name}"
        raise _refused(run.id, why)
    return state


def _soak(
    run: Run, running: run_state.Running, plan: Plan, keys: Mapping[str, Any]
) -> tuple[Soak, list[str]]:
    records, notes = run.work.records, []
    assert records is not None, "a run without records is running"
    if len(records.soaks) >= MAX_SOAKS:
        raise _refused(run.id, f"it has had {MAX_SOAKS} soaks; start other nodes")
    now_s, deadline_s = boot_now(), None
    if plan.duration_s is not None:
        deadline_s = now_s + plan.duration_s
        if running.deadline_s is not None and running.deadline_s < deadline_s:
            deadline_s = running.deadline_s
            notes.append(
                f"cut at the end of {run_name(run.id)}, in {max(0.0, deadline_s - now_s):.0f} s;"
                f" soakctl extend {run_name(run.id)} gives it more time"
            )
    elif running.deadline_s is not None:
        # However many rounds are wanted: behind the run's end nobody keeps the nodes.
        deadline_s = running.deadline_s
    soak = Soak(
        number=1 + max((int(ended["number"]) for ended in records.soaks), default=0),
        base=records.last_round,
        keys=dict(keys),
        since_s=now_s,
        deadline_s=deadline_s,
        gap_s=run.observer.gap_s,
        panics=records.panics,
    )
    return soak, notes


def _refused(run_id: int, why: str) -> UserError:
    return UserError("refused", f"cannot soak {run_name(run_id)}: {why}")
