"""Statuses and events as soakd would send them."""

from __future__ import annotations

from typing import Any

from tests.soakctl.fake_soakd import Handler, Notify, Params


def status(**changes: Any) -> dict[str, Any]:
    """Return the status of a healthy run in its twelfth round."""
    return {
        "id": "r7",
        "owner": "alice",
        "label": "nightly",
        "state": "running",
        "created_at": "2026-11-22T16:59:00Z",
        "started_at": "2026-11-22T17:00:00.25Z",
        "ended_at": None,
        "reason": None,
        "phase": "wait_search",
        "link": "connected",
        "verdict": None,
        "cause": None,
        "remaining_s": 1692.0,
        "rounds": rounds(hit=9, late=1, miss=1, prestored=2),
        "nodes": [node("a"), node("b", pid=4712)],
        "gaps": [],
        "edits": ["a: sam.session_name = rust-mule-a-soak-x-r7"],
        "why": None,
        "result": None,
        "hit_rate": {"value": 10 / 11, "n": 11},
        "search_hit_rate": {"value": 8 / 9, "n": 9},
        "position": None,
        "scenario": "source_probe",
        "simulation": False,
        "rung": None,
        **changes,
    }


def finished(
    verdict: str = "passed", why: str = "every gate holds", **changes: Any
) -> dict[str, Any]:
    """Return the status of a run that is over."""
    ended = {
        "state": "finished",
        "phase": None,
        "remaining_s": None,
        "verdict": verdict,
        "why": why,
        "result": "completed",
        "ended_at": "2026-11-22T17:30:09Z",
        "nodes": [node("a", pid=None, state="exited", exit={"code": 0})],
    }
    return status(**{**ended, **changes})


def node(name: str, **changes: Any) -> dict[str, Any]:
    """Return a node of a status."""
    return {"name": name, "pid": 4711, "state": "ready", "exit": None, **changes}


def rounds(**counts: int) -> dict[str, int]:
    """Return counters with their total."""
    every = {"hit": 0, "late": 0, "miss": 0, "error": 0, "skipped": 0, **counts}
    every["total"] = sum(every[name] for name in ("hit", "late", "miss", "error", "skipped"))
    return {"prestored": 0, **every}


def watch(*events: tuple[str, dict[str, Any]]) -> Handler:
    """Return a handler of `run.watch` that sends these events and ends."""

    def handle(params: Params, notify: Notify) -> dict[str, Any]:
        for seq, (kind, data) in enumerate(events, start=1):
            notify("run.event", {"run": "r7", "seq": seq, "kind": kind, "data": data})
        return {"run": "r7", "last_seq": len(events)}

    return handle
