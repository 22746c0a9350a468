"""soakctl without a process for each command: its own functions, called in here.

For tests that look at what soakd does, not at how soakctl is called; `Box` runs the real one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

from soakctl.client import Client
from soakctl.commands import start as start_command
from soakctl.failures import exit_of_verdict
from soakctl.planning import start_requests
from soakctl.session import Session
from soakctl.status_text import status_lines
from soakctl.watching import Follower, Silent
from soakctl.watching import submit as submit_request
from tests.e2e.box import Box, Status
from tests.e2e.waiting import STOP_GUARD_S


def start(box: Box, *args: str, **variables: str) -> str:
    """Start a soak as `Box.start` does, and return its id."""
    parser = argparse.ArgumentParser()
    start_command.add_arguments(parser)
    session = _session(box, box.plan_env(**variables))
    [request] = start_requests(session, parser.parse_args(args)).each
    run = submit_request(session, "run.start", request)["id"]
    assert isinstance(run, str)
    return run


def wait(box: Box, run: str, status: int = 0) -> Status:
    """Wait for the end of a run, of which `soakctl wait` would exit so; the final status."""
    final = _follow(box, run)
    assert exit_of_verdict(final["verdict"]) == status, final
    return final


def stop(box: Box, run: str) -> Status:
    """Stop a run as `soakctl stop` does: return when nothing is left of it; the final status."""

    def ask(client: Client, run: str) -> None:
        client.call("run.stop", {"run": run})

    return _follow(box, run, ask)


def status_text(status: Status) -> str:
    """What `soakctl status` prints of a status."""
    return "\n".join(status_lines(status, colours=False))


def _follow(box: Box, run: str, ask: Callable[[Client, str], None] | None = None) -> Status:
    follower = Follower(_session(box, {}), Silent(), timeout_s=STOP_GUARD_S, ask=ask)
    final = dict(follower.follow(run))
    assert final["state"] == "finished"
    return final


def _session(box: Box, variables: Mapping[str, str]) -> Session:
    return Session(socket=str(box.socket), json=True, environ={**box.env, **variables})
